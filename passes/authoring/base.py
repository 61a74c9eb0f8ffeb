"""What a pass is: a frozen dataclass whose fields are its options, run as a transaction (``compiler.pipeline.run``)."""

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from types import CodeType
from typing import Any, ClassVar, Literal, get_args

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
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", label):
            raise TypeError(f"a pass is named in lower case with dashes, as fuse-add-norm is, got {label!r}")
        if numerics not in get_args(Numerics):
            raise TypeError(f"pass {label} requires numerics of {', '.join(get_args(Numerics))}, got {numerics!r}")
        if stage not in STAGES[1:]:
            raise TypeError(f"pass {label} requires a stage of {', '.join(STAGES[1:])}, got {stage!r}")
        if (numerics == "lossy") != (tolerance > 0):
            raise TypeError(f"pass {label}: a lossy pass states the tolerance it keeps, and only a lossy one does")
        if not 0 <= tolerance < 1:
            raise TypeError(f"pass {label}: tolerance is a relative error below 1, got {tolerance}")
        if unknown := [n for n in vars(written) if not n.startswith("_") and not known_member(written, base, n)]:
            raise TypeError(
                f"pass {label} has a member {unknown[0]} that means nothing to a pass; an option requires a type "
                f"({unknown[0]}: int = ...), a helper of its own a leading underscore or a place outside the class"
            )
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


def known_member(written: type[Any], base: type[Pass], name: str) -> bool:
    """Whether a class may have the member: an option, a method or value of a pass, or one that those call."""
    if name in inspect.get_annotations(written) or hasattr(base, name):
        return True
    return any(name in names_in(v.__code__) for v in vars(written).values() if inspect.isfunction(v))


def names_in(code: CodeType) -> set[str]:
    """Names that a function reads, comprehensions and functions inside of it included."""
    inner = (names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return {*code.co_names}.union(*inner)


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
