"""What is known of a family of models: how often passes match it, and how to import operations only it uses.

A plugin brings families by the entry point ``xllmc.models``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from transformers import PretrainedConfig

from .importer import Handler

FORMULA = re.compile(
    r"(?:(?:(?P<factor>\d+) \* )?layers(?: (?P<sign>[+-]) (?P<more>\d+))?|(?P<number>\d+))(?: unless (?P<flag>\w+))?"
)


@dataclass(frozen=True)
class Family:
    """``name`` is config.json's model_type."""

    name: str
    expected: Mapping[str, str] = field(default_factory=dict)
    """Pass name to the least number of sites it must match: ``2 * layers + 1``, ``layers unless mlp_bias``.

    After ``unless`` stands a setting of config.json; where it is true, nothing is expected.
    """
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    """Further import rules by ATen operation (``aten.foo.default``), before those that all models share."""

    def __post_init__(self) -> None:
        for name, formula in self.expected.items():
            if not FORMULA.fullmatch(formula):
                raise ValueError(
                    f"family {self.name} expects {name}: {formula!r}; write 12, layers or 2 * layers + 1, "
                    "and after that perhaps unless SETTING"
                )

    def expected_matches(self, config: PretrainedConfig) -> dict[str, int]:
        """By pass name, for a model of this configuration."""
        return {name: evaluate(formula, config) for name, formula in self.expected.items()}


def evaluate(formula: str, config: PretrainedConfig) -> int:
    """The number a formula comes to."""
    found = FORMULA.fullmatch(formula)
    assert found is not None
    layers = config.num_hidden_layers
    if found["flag"] and getattr(config, found["flag"], False):
        return 0
    if found["number"]:
        return int(found["number"])
    more = int(found["more"] or 0)
    return int(found["factor"] or 1) * layers + (-more if found["sign"] == "-" else more)
