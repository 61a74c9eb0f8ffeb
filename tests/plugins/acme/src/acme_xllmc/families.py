"""How often the pass must match: a Gemma 2 whose logits are not capped by it does not compile."""

from dataclasses import replace

from xllmc.models.families import FAMILIES

OWN = next(family for family in FAMILIES if family.name == "gemma2")
GEMMA2 = replace(OWN, expected={**OWN.expected, "acme-softcap": "1"})
