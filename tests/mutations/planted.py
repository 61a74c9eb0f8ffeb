"""Whole pipelines with one known fault, for what looks for faults: ``bisect``."""

import random
from collections import Counter
from itertools import chain
from typing import NamedTuple

from xllmc.compiler.check.compare import relative_error
from xllmc.compiler.check.samples import Samples
from xllmc.compiler.ir.program import Program
from xllmc.compiler.pipeline.listing import pass_list
from xllmc.compiler.pipeline.run import PassError, RunOptions, run
from xllmc.compiler.tiny_models import TINY_MODELS
from xllmc.passes.api import Pass

from tests.mutations.harness import Mutant, mutants_of
from tests.passes.interpreted import values

VISIBLE = 1e-2
"""Relative difference of the model's results."""
MOST_OF_ONE_PASS = 2


class Planted(NamedTuple):
    program: Program
    """As traced."""
    passes: tuple[Pass, ...]
    """All that a compile runs, one of them with a fault; they run through where verification is off."""
    pass_name: str
    position: int
    """Of the faulty pass in ``passes``."""
    site: int
    """Number of the faulty site among the pass's matches, from 1."""
    where: str
    """Its module path."""
    what: str


def sample_mutants(count: int, seed: int = 0, models: tuple[str, ...] = ("qwen3-fp32", "gemma2-fp32")) -> list[Planted]:
    """Faults at any sites of the passes of these float32 models, each of which changes their results visibly."""
    chosen = random.Random(seed)
    named = [m for m in TINY_MODELS if m.name in models]
    candidates = list(chain.from_iterable(mutants_of(model, every_site=True) for model in named))
    chosen.shuffle(candidates)
    taken: Counter[str] = Counter()
    found: list[Planted] = []
    for mutant in candidates:
        if len(found) == count:
            break
        if taken[mutant.one.name] < MOST_OF_ONE_PASS and (planted := _planted(mutant)):
            taken[mutant.one.name] += 1
            found.append(planted)
    return found


def _planted(mutant: Mutant) -> Planted | None:
    """The pipeline with this fault; None where it cannot be run through, or where results stay what they were."""
    passes = list(pass_list().passes)
    passes[mutant.position] = mutant.faulty
    try:
        after, _ = run(mutant.traced, passes, RunOptions(verification="off"))
        wanted, got = values(mutant.traced, Samples(0)), values(after, Samples(0))
    except (PassError, RuntimeError, TypeError, ValueError, LookupError):
        return None
    if max(relative_error(wanted[name], got[name]) for name in wanted) < VISIBLE:
        return None
    what = f"{mutant.operator}: {mutant.placed.edit.what}"
    return Planted(
        mutant.traced, tuple(passes), mutant.one.name, mutant.position, mutant.seen.site, mutant.seen.where, what
    )
