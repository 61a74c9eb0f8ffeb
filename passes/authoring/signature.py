"""What a pattern says of its parameters: kinds and named sizes, written as annotations that mypy accepts.

    def pattern(self, x: Float[Value, "... H"], w: Weight[Value, "H"] | None, eps: Number = 0.0): ...

Sizes are names (equal names are equal sizes), numbers, or ``...`` in front for any axes. Names of sizes and of
``Size`` parameters are one namespace, so that an attribute can be tied to an axis.
"""

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from .values import Value

Kind = Literal["float", "int", "tensor", "weight"]


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a kind. ``dims``: names or numbers of its last axes; all of them unless ``leading``."""

    kind: Kind
    dims: tuple[str | int, ...]
    leading: bool
    nullable: bool = False


@dataclass(frozen=True)
class StateSpec:
    """The cache of a layer."""


@dataclass(frozen=True)
class ScalarSpec:
    """A constant: any number, a size, one of some words, or anything an attribute can be."""

    kind: Literal["number", "size", "word", "any"]
    words: tuple[str, ...] = ()


Spec = TensorSpec | StateSpec | ScalarSpec

Number = Annotated[float, ScalarSpec("number")]
Size = Annotated[int, ScalarSpec("size")]
Attribute = Annotated[Any, ScalarSpec("any")]
State = Annotated[Value, StateSpec()]

if TYPE_CHECKING:
    from typing import Annotated as Float
    from typing import Annotated as Int
    from typing import Annotated as OneOf
    from typing import Annotated as Tensor
    from typing import Annotated as Weight
else:

    def _tensor(kind: Kind) -> type:
        def of(cls: type, item: tuple[type, str]) -> Any:
            written = f"{kind.capitalize()} requires a type and its axes, such as {kind.capitalize()}[Value, '... H']"
            if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[1], str):
                raise TypeError(f"{written}; got {item!r}")
            base, text = item
            names = text.split()
            leading = names[:1] == ["..."]
            dims = tuple(int(n) if n.isdigit() else n for n in names[leading:])
            if wrong := [d for d in dims if isinstance(d, str) and not d.isidentifier()]:
                raise TypeError(f"{written}: names and numbers, after ... for any others; got {wrong[0]!r} in {text!r}")
            return Annotated[base, TensorSpec(kind, dims, leading)]

        return type(kind.capitalize(), (), {"__class_getitem__": classmethod(of)})

    Float, Int, Tensor, Weight = (_tensor(kind) for kind in ("float", "int", "tensor", "weight"))

    class OneOf:
        """One of some words, separated by spaces: the name of an op (``ops[activation](x)``), or an attribute."""

        def __class_getitem__(cls, item: tuple[type, str]) -> Any:
            base, words = item
            return Annotated[base, ScalarSpec("word", tuple(words.split()))]


MISSING = inspect.Parameter.empty


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter of a pattern: what it may stand for, and what it is where an optional part is absent."""

    name: str
    spec: Spec
    default: Any = MISSING

    @property
    def absent(self) -> Any:
        """Its value where the optional call that names it is absent; ``MISSING`` where it must be there."""
        if self.default is MISSING and isinstance(self.spec, TensorSpec) and self.spec.nullable:
            return None
        return self.default


def parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """The parameters of a pattern method, without ``self``. TypeError for an annotation that says nothing."""
    hints = get_type_hints(function, include_extras=True)
    found = []
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        spec = _spec(hints.get(name))
        if spec is None:
            raise TypeError(
                f"{function.__qualname__}: parameter {name} requires an annotation such as "
                f'Float[Value, "T H"], Weight[Value, "H"], State, Number, Size or OneOf[str, "a b"], '
                f"got {parameter.annotation}"
            )
        found.append(Parameter(name, spec, parameter.default))
    return tuple(found)


def _spec(hint: Any) -> Spec | None:
    if get_origin(hint) in (Union, types.UnionType):
        parts = [h for h in get_args(hint) if h is not type(None)]
        spec = _spec(parts[0]) if len(parts) == 1 else None
        if not isinstance(spec, TensorSpec):
            return None
        return TensorSpec(spec.kind, spec.dims, spec.leading, nullable=True)
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, TensorSpec | StateSpec | ScalarSpec):
            return extra
    return None
