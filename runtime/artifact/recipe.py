"""Weight recipes: how a packed weight is made from tensors of a Hugging Face checkpoint.

A recipe is a tree of registered pure operations over named source tensors. The compiler evaluates it when it writes an
engine, and the runtime evaluates the same tree when weights are updated, so both give the same bytes. Torch-free.

Arrays travel with their element type, because numpy has no bfloat16: a ``Tensor`` is (values, dtype name).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .dtypes import cast, numpy_dtype
from .errors import CheckpointError

PANEL = 32
"""Output columns in one panel of a packed matrix: two 512-bit vectors of float32 accumulators."""


class Tensor(NamedTuple):
    values: np.ndarray
    """In the numpy carrier of ``dtype`` (uint16 for bf16)."""
    dtype: str


@dataclass(frozen=True)
class Recipe:
    """One node: an operation, its inputs and its constant attributes.

    The leaf ``source`` has attributes ``name``, ``shape`` and ``dtype`` (the dtype the model computes in: a checkpoint
    tensor of another float type is cast to it). The leaf ``constant`` refers by ``name`` to an array stored in the
    engine, which no update changes (rotary frequencies, say).
    """

    op: str
    inputs: tuple["Recipe", ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def source(cls, name: str, shape: tuple[int, ...], dtype: str) -> "Recipe":
        return cls("source", (), (("dtype", dtype), ("name", name), ("shape", tuple(shape))))

    @classmethod
    def constant(cls, name: str) -> "Recipe":
        return cls("constant", (), (("name", name),))

    @classmethod
    def of(cls, op: str, *inputs: "Recipe", **attributes: Any) -> "Recipe":
        if op not in OPERATIONS:
            raise ValueError(f"unknown recipe operation {op!r}; known: {', '.join(sorted(OPERATIONS))}")
        return cls(op, inputs, tuple(sorted(attributes.items())))

    def attribute(self, name: str) -> Any:
        return dict(self.attributes)[name]

    def sources(self) -> tuple["Recipe", ...]:
        """The ``source`` leaves, each once, in order of first use."""
        found: dict[Recipe, None] = {}
        stack = [self]
        while stack:
            node = stack.pop()
            if node.op == "source":
                found[node] = None
            stack.extend(reversed(node.inputs))
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"op": self.op}
        if self.inputs:
            out["inputs"] = [i.to_json() for i in self.inputs]
        return out | {k: list(v) if isinstance(v, tuple) else v for k, v in self.attributes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Recipe":
        attributes = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k not in ("op", "inputs")}
        return cls(
            data["op"],
            tuple(cls.from_json(i) for i in data.get("inputs", ())),
            tuple(sorted(attributes.items())),
        )


OPERATIONS: dict[str, Callable[..., Tensor]] = {}


def operation(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Register a recipe operation under its function's name."""
    OPERATIONS[function.__name__] = function
    return function


def evaluate(recipe: Recipe, read: Callable[[Recipe], Tensor]) -> Tensor:
    """The recipe's value. ``read`` gives the value of a leaf (``source`` or ``constant``)."""
    if recipe.op in ("source", "constant"):
        tensor = read(recipe)
        return as_declared(recipe, tensor) if recipe.op == "source" else tensor
    inputs = [evaluate(i, read) for i in recipe.inputs]
    return OPERATIONS[recipe.op](*inputs, **dict(recipe.attributes))


def as_declared(source: Recipe, tensor: Tensor) -> Tensor:
    """``tensor`` in the shape and dtype that the leaf ``source`` declares; other float types are cast."""
    name, shape, dtype = (source.attribute(k) for k in ("name", "shape", "dtype"))
    if tuple(tensor.values.shape) != shape:
        raise CheckpointError(
            f"tensor {name} must have shape {list(shape)}, got {list(tensor.values.shape)}; "
            "check that the weights belong to this config.json"
        )
    if tensor.dtype not in ("f32", "f16", "bf16", "f64"):
        raise CheckpointError(f"tensor {name} must be of a float type, got {tensor.dtype}; dequantise it first")
    return Tensor(cast(tensor.values, tensor.dtype, dtype), dtype)


def _same_dtype(operation_name: str, tensors: tuple[Tensor, ...]) -> str:
    dtypes = {t.dtype for t in tensors}
    if len(dtypes) != 1:
        raise ValueError(f"{operation_name} requires inputs of one dtype, got {sorted(dtypes)}")
    return dtypes.pop()


@operation
def concat(*tensors: Tensor, axis: int) -> Tensor:
    return Tensor(np.concatenate([t.values for t in tensors], axis), _same_dtype("concat", tensors))


@operation
def slice(tensor: Tensor, axis: int, start: int, stop: int) -> Tensor:
    index = (np.s_[:],) * axis + (np.s_[start:stop],)
    return Tensor(tensor.values[index], tensor.dtype)


@operation
def permute(tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
    return Tensor(tensor.values.transpose(axes), tensor.dtype)


@operation
def reshape(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return Tensor(tensor.values.reshape(shape), tensor.dtype)


@operation
def to_dtype(tensor: Tensor, dtype: str) -> Tensor:
    return Tensor(cast(tensor.values, tensor.dtype, dtype), dtype)


@operation
def add_scalar(tensor: Tensor, value: float) -> Tensor:
    """``tensor + value`` in the tensor's own precision (for ``1 + w`` norms)."""
    wide = cast(tensor.values, tensor.dtype, "f32") + np.float32(value)
    return Tensor(cast(wide, "f32", tensor.dtype), tensor.dtype)


@operation
def interleave(*tensors: Tensor, block: int) -> Tensor:
    """Rows of equally shaped matrices [N, ...] in turns of ``block``; N is padded with zeros to a multiple of it.

    Result: [ceil(N / block) * len(tensors) * block, ...]. A gate and an up projection interleaved by half a panel
    meet in one panel.
    """
    padded = [pad_rows(t, multiple=block).values for t in tensors]
    blocks = [p.reshape(-1, 1, block, *p.shape[1:]) for p in padded]
    joined = np.concatenate(blocks, 1).reshape(-1, *padded[0].shape[1:])
    return Tensor(joined, _same_dtype("interleave", tensors))


@operation
def pad_rows(tensor: Tensor, multiple: int) -> Tensor:
    """Zero rows appended until the first axis is a multiple of ``multiple``."""
    missing = -tensor.values.shape[0] % multiple
    if not missing:
        return tensor
    zeros = np.zeros((missing, *tensor.values.shape[1:]), tensor.values.dtype)
    return Tensor(np.concatenate([tensor.values, zeros]), tensor.dtype)


@operation
def pack_panels(tensor: Tensor) -> Tensor:
    """A matrix [N, K] as panels of 32 output columns, for every instruction set and every number of rows.

    float32: [ceil(N/32), K, 32]. bfloat16: [ceil(N/32), ceil(K/2), 32, 2], so that the two bf16 of one 32-bit lane are
    neighbours along K, as VDPBF16PS wants them. Missing rows, and the missing half of an odd K, are zero.
    """
    values = pad_rows(tensor, multiple=PANEL).values
    n, k = values.shape
    if tensor.dtype == "f32":
        return Tensor(np.ascontiguousarray(values.reshape(n // PANEL, PANEL, k).transpose(0, 2, 1)), "f32")
    if tensor.dtype != "bf16":
        raise ValueError(f"pack_panels requires f32 or bf16, got {tensor.dtype}")
    if k % 2:
        values = np.concatenate([values, np.zeros((n, 1), values.dtype)], 1)
    pairs = np.ascontiguousarray(values).view(np.uint32).reshape(n // PANEL, PANEL, -1)
    packed = np.ascontiguousarray(pairs.transpose(0, 2, 1))
    return Tensor(packed.view(numpy_dtype("bf16")).reshape(n // PANEL, -1, PANEL, 2), "bf16")
