"""Inputs on which graphs are compared: small, consistent as a step, and hostile where arithmetic is weak."""

import zlib
from typing import Any

import numpy as np
import torch

from ...runtime.artifact import recipe as recipes
from ...runtime.artifact.dtypes import f32_to_bf16, numpy_dtype
from ...runtime.artifact.pages import PAGE_TOKENS
from ...runtime.artifact.recipe import Recipe
from ..ir.dims import Dim, Size, evaluate
from ..ir.program import Weight
from ..ir.types import PagedType, TensorType, TupleType, ValueType
from ..ops.attention import PagedCache

FAR = [0, 7, 1000, 32_767, 131_071]
"""Positions that a long context has."""

LARGEST_DRAW = 1_000_003
"""Elements drawn for one array: a copy of what was drawn costs a hundredth of drawing more."""

HELD = {"f16": (1e-3, 3e1)}
"""By dtype, the least and largest scale of rows whose products it still holds: beyond, all would be 0 or infinite."""


class Step:
    """Two sequences: some tokens that begin one, and two that go on past a page's edge, and a window's, in another.

    ``seed``: odd ones have a token and a wanted row less, so that a size taken from one step fails in another.
    """

    def __init__(self, seed: int = 0, window: int = 0) -> None:
        edge = max(PAGE_TOKENS, window)
        begun = [0, 1] if seed % 2 else [0, 1, 2]
        going_on = [edge - 1, edge] if seed % 2 else [edge, edge + 1]
        columns = (edge + 1) // PAGE_TOKENS + 1
        table = [[0, *[columns + 1] * (columns - 1)], list(range(columns, 0, -1))]
        pages = [table[0][0]] * len(begun) + [table[1][p // PAGE_TOKENS] for p in going_on]
        positions = begun + going_on
        rows = [3, 1] if seed % 2 else [2, 4, 0]
        self.pages = columns + 2
        self.sizes = {"T": len(positions), "S": 2, "S+1": 3, "R": len(rows), "B": columns}
        self.inputs: dict[str, list[Any]] = {
            "positions": positions,
            "query_starts": [0, len(begun), len(positions)],
            "logit_rows": rows,
            "slots": [page * PAGE_TOKENS + p % PAGE_TOKENS for page, p in zip(pages, positions, strict=True)],
            "block_table": table,
        }

    def size_of(self, size: Size) -> int:
        return evaluate(size, self.sizes)


class Samples:
    """Deterministic values for graph inputs, by seed.

    ``infinite`` strews in -inf; ``far`` puts tokens at positions a long context has, for graphs without a cache;
    ``window``: the longest of the graph's attention, at whose edge tokens then stand; ``cached``: the graph reads a
    cache, and tokens of one sequence are of one magnitude, as attention that adds 1e-5 to 300 hangs on a last bit.
    """

    def __init__(
        self, seed: int = 0, infinite: bool = False, far: bool = False, window: int = 0, cached: bool = False
    ) -> None:
        self.seed = seed
        self.infinite = infinite
        self.far = far
        self.step = Step(seed, window)
        small_or_large = 2.0 if seed % 2 else 1e-5
        self.scales = (small_or_large,) * 3 if cached else (1.0, 1e-5, 3e2)

    def generator(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def shape_of(self, kind: TensorType) -> tuple[int, ...]:
        return tuple(self.step.size_of(s) for s in kind.shape)

    def step_input(self, name: str, kind: TensorType) -> torch.Tensor | None:
        values = self.step.inputs.get(name.split(".")[0])
        if self.far and name == "positions":
            values = FAR[-self.step.sizes["T"] :]
        return None if values is None else torch.tensor(values, dtype=kind.torch_dtype)

    def state(self, name: str, kind: PagedType) -> PagedCache:
        dtype = TensorType(kind.dtype, ()).torch_dtype
        slots = self.step.pages * PAGE_TOKENS
        keys, values = (
            torch.from_numpy(self.normal(f"{name}.{part}", (slots, kind.kv_heads, dim))).to(dtype)
            for part, dim in (("keys", kind.key_dim), ("values", kind.value_dim))
        )
        return PagedCache(keys, values)

    def any(self, name: str, kind: ValueType) -> Any:
        """A computed value, a state, or a tuple of them."""
        if isinstance(kind, TupleType):
            return tuple(self.any(f"{name}.{i}", item) for i, item in enumerate(kind.items))
        return self.state(name, kind) if isinstance(kind, PagedType) else self.value(name, kind)

    def value(self, name: str, kind: TensorType) -> torch.Tensor:
        """A computed value: rows in turn ordinary, near zero, huge (see ``cached``), all ties, and ordinary again."""
        shape = self.shape_of(kind)
        if not kind.is_float:
            return torch.from_numpy(self.generator(name).integers(0, 3, shape)).to(kind.torch_dtype)
        values = self.normal(name, shape)
        if len(shape) > 1 and isinstance(kind.shape[0], Dim):
            low, high = HELD.get(kind.dtype, (0.0, np.inf))
            scales = [min(max(scale, low), high) for scale in self.scales]
            for row in range(shape[0]):
                values[row] *= (*scales, 0.0, 1.0)[row % 5]
                values[row] += 0.75 if row % 5 == 3 else 0.0
        if self.infinite:
            values.reshape(-1)[:: max(3, values.size // 7)] = -np.inf
        return torch.from_numpy(values).to(kind.torch_dtype)

    def weight(self, weight: Weight, constants: dict[str, recipes.Tensor]) -> torch.Tensor:
        def read(leaf: Recipe) -> recipes.Tensor:
            name = leaf.attribute("name")
            if leaf.op == "constant":
                return constants[name] if name in constants else self._constant(name, weight.type)
            shape, dtype = leaf.attribute("shape"), leaf.attribute("dtype")
            block = self.block(name, shape) * np.float32(0.5 if len(shape) == 1 else shape[-1] ** -0.5)
            typed = f32_to_bf16(block) if dtype == "bf16" else block.astype(numpy_dtype(dtype))
            return recipes.Tensor(np.resize(typed, shape), dtype)

        return to_torch(recipes.evaluate(weight.recipe, read))

    def _constant(self, name: str, kind: TensorType) -> recipes.Tensor:
        """Stands for an array that a program in text form names but does not hold: positive numbers up to 1."""
        values = np.abs(self.normal(name, kind.sizes))
        return recipes.Tensor((values / values.max()).astype(numpy_dtype(kind.dtype)), kind.dtype)

    def normal(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.resize(self.block(name, shape), shape)

    def block(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal float32, as many as the shape has; large arrays repeat a block of odd length."""
        return self.generator(name).standard_normal(min(int(np.prod(shape)), LARGEST_DRAW), np.float32)


def to_torch(tensor: recipes.Tensor) -> torch.Tensor:
    array = tensor.values if tensor.values.flags.writeable else tensor.values.copy()  # checkpoints are mapped read-only
    values = torch.from_numpy(np.ascontiguousarray(array))
    return values.view(torch.bfloat16) if tensor.dtype == "bf16" else values
