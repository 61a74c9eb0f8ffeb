"""Types of weights that recipes make of weights: the type rules of ``runtime.artifact.recipe.OPERATIONS``."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from .types import TensorType


def recipe_type(operation: str, parts: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    """The type of ``operation`` of weights of these types. TypeError where it takes none such."""
    if operation not in RULES:
        raise TypeError(f"there is no weight recipe {operation!r} for a rewrite; known: {', '.join(sorted(RULES))}")
    if not parts or any(p.dtype != parts[0].dtype for p in parts):
        raise TypeError(f"{operation} requires weights of one dtype, got {', '.join(map(str, parts)) or 'none'}")
    return RULES[operation](parts, **attributes)


def _concat(parts: Sequence[TensorType], axis: int) -> TensorType:
    shapes = [p.sizes for p in parts]
    if len({(*s[:axis], *s[axis + 1 :]) for s in shapes}) > 1 or not 0 <= axis < len(shapes[0]):
        raise TypeError(f"concat on axis {axis} requires weights equal on the others, got {', '.join(map(str, parts))}")
    return parts[0].with_shape(*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])


def _interleave(parts: Sequence[TensorType], block: int) -> TensorType:
    if len(set(parts)) > 1:
        raise TypeError(f"interleave requires weights of one type, got {', '.join(map(str, parts))}")
    rows, *rest = parts[0].sizes
    return parts[0].with_shape(len(parts) * -(-rows // block) * block, *rest)


def _slice(parts: Sequence[TensorType], axis: int, start: int, stop: int) -> TensorType:
    (part,) = parts
    sizes = list(part.sizes)
    if not 0 <= axis < len(sizes) or not 0 <= start < stop <= sizes[axis]:
        raise TypeError(f"slice {start}:{stop} leaves axis {axis} of {part}")
    sizes[axis] = stop - start
    return part.with_shape(*sizes)


def _permute(parts: Sequence[TensorType], axes: tuple[int, ...]) -> TensorType:
    (part,) = parts
    if sorted(axes) != list(range(len(part.shape))):
        raise TypeError(f"permute requires each axis of {part} once, got {axes}")
    return part.with_shape(*(part.shape[a] for a in axes))


def _reshape(parts: Sequence[TensorType], shape: tuple[int, ...]) -> TensorType:
    (part,) = parts
    if prod(shape) != prod(part.sizes):
        raise TypeError(f"reshape requires as many elements, got {part} to {list(shape)}")
    return part.with_shape(*shape)


def _add_scalar(parts: Sequence[TensorType], value: float) -> TensorType:
    (part,) = parts
    return part


def _to_dtype(parts: Sequence[TensorType], dtype: str) -> TensorType:
    (part,) = parts
    return part.with_dtype(dtype)


RULES: dict[str, Callable[..., TensorType]] = {
    "concat": _concat,
    "interleave": _interleave,
    "slice": _slice,
    "permute": _permute,
    "reshape": _reshape,
    "add_scalar": _add_scalar,
    "to_dtype": _to_dtype,
}
