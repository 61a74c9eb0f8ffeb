"""What a pass is: a frozen dataclass whose fields are its options, run inside a transaction (``compiler.pipeline``)."""

import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Literal

from .rewriter import Rewriter

Numerics = Literal["exact", "reassociating", "lossy"]
"""What a pass does to results: nothing; it rounds elsewhere or sums in another order; it approximates."""
Stage = Literal["traced", "canonical", "recognised", "fused", "lowered"]
STAGES: tuple[Stage, ...] = ("traced", "canonical", "recognised", "fused", "lowered")
"""In order. A program is at the furthest stage that a pass has taken it to."""


@dataclass(frozen=True)
class Pass:
    """Base of all passes; written through ``@rewrite`` and ``@graph_pass``."""

    name: ClassVar[str]
    stage: ClassVar[Stage]
    numerics: ClassVar[Numerics] = "exact"
    tolerance: ClassVar[float] = 0.0
    """Of a lossy pass: the largest relative error it may bring."""
    before: ClassVar[tuple[str, ...]] = ()
    after: ClassVar[tuple[str, ...]] = ()
    """Passes of the same stage that run later, and earlier."""
    counts_as: ClassVar[tuple[str, ...]] = ()
    """Passes whose place it takes: its matches count as theirs where a model declares how many it expects."""
    each_stage: ClassVar[bool] = False
    """Run at the start of its own stage and of every later one."""
    examples: ClassVar[tuple[Any, ...]] = ()

    def run(self, rewriter: Rewriter) -> None:
        """Change the function through the rewriter."""
        raise TypeError(f"pass {type(self).__name__} must define run")

    @property
    def options(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def declare(
    base: type[Pass],
    *,
    stage: Stage,
    numerics: Numerics,
    tolerance: float,
    before: str | tuple[str, ...],
    after: str | tuple[str, ...],
    counts_as: str | tuple[str, ...],
    name: str | None,
    **declared: Any,
) -> Callable[[type[Any]], type[Pass]]:
    """A decorator that makes a class of plain methods and fields a pass of ``base``. TypeError says what is wrong."""

    def decorate(written: type[Any]) -> type[Pass]:
        label = name or kebab(written.__name__)
        if stage not in STAGES[1:]:
            raise TypeError(f"pass {label} requires a stage of {', '.join(STAGES[1:])}, got {stage!r}")
        if (numerics == "lossy") != (tolerance > 0):
            raise TypeError(f"pass {label}: a lossy pass states the tolerance it keeps, and only a lossy one does")
        options = dataclass(frozen=True)(written)
        if reserved := {f.name for f in fields(options)} & {*dir(base), "name", "stage"}:
            raise TypeError(f"pass {label} cannot have options named {', '.join(sorted(reserved))}")
        if required := [f.name for f in fields(options) if f.default is MISSING and f.default_factory is MISSING]:
            raise TypeError(f"pass {label} requires a default for its option {', '.join(required)}")
        made = type(
            written.__name__,
            (options, base),
            {
                **declared,
                "name": label,
                "stage": stage,
                "numerics": numerics,
                "tolerance": tolerance,
                "before": several(before),
                "after": several(after),
                "counts_as": several(counts_as),
                "__doc__": written.__doc__,
                "__module__": written.__module__,
                "__qualname__": written.__qualname__,
            },
        )
        if not made.__doc__ or made.__doc__.startswith(f"{written.__name__}("):  # which is what dataclass writes
            raise TypeError(f"pass {label} requires a docstring: what it turns into what")
        return made

    return decorate


def pass_types(*made: type[Any]) -> tuple[type[Pass], ...]:
    """The classes as what their decorators made them: checkers take a decorated class for what was written."""
    for one in made:
        if not issubclass(one, Pass):
            raise TypeError(f"{one.__name__} is not a pass; decorate it with @rewrite or @graph_pass")
    return made


def several(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def kebab(name: str) -> str:
    """``fuse-add-rms-norm`` of ``FuseAddRMSNorm`` or ``fuse_add_rms_norm``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name)
    return words.replace("_", "-").lower()
