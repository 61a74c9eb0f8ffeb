"""Inputs on which graphs are compared: small, consistent as a step, and hostile where arithmetic is weak."""

import zlib

import numpy as np
import torch

from ..runtime.artifact import recipe as recipes
from ..runtime.artifact.dtypes import f32_to_bf16, numpy_dtype
from ..runtime.artifact.pages import PAGE_TOKENS
from ..runtime.artifact.recipe import Recipe
from .ir.dims import Dim, Size
from .ir.program import Weight
from .ir.types import PagedType, TensorType
from .ops.attention import PagedCache

SIZES = {"T": 5, "S": 2, "S+1": 3, "R": 3, "B": 2}
"""Two sequences: three tokens that begin one, and two that go on past a page's edge in another."""

STEP = {
    "positions": [0, 1, 2, PAGE_TOKENS, PAGE_TOKENS + 1],
    "query_starts": [0, 3, 5],
    "logit_rows": [2, 4, 0],
    "slots": [0, 1, 2, 2 * PAGE_TOKENS, 2 * PAGE_TOKENS + 1],
    "block_table": [[0, 3], [1, 2]],
}
FAR = [0, 7, 1000, 32_767, 131_071]
PAGES = 4

LARGEST_DRAW = 1_000_003
"""Elements drawn for one array: a copy of what was drawn costs a hundredth of drawing more."""


def size_of(size: Size) -> int:
    if isinstance(size, int):
        return size
    value = size.factor
    for name in size.symbols:
        value *= SIZES[name]
    return value


def shape_of(kind: TensorType) -> tuple[int, ...]:
    return tuple(size_of(s) for s in kind.shape)


class Samples:
    """Deterministic values for graph inputs, by seed.

    ``infinite`` strews in -inf; ``far`` puts tokens at positions a long context has, for graphs without a cache.
    """

    def __init__(self, seed: int = 0, infinite: bool = False, far: bool = False) -> None:
        self.seed = seed
        self.infinite = infinite
        self.far = far

    def generator(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def step_input(self, name: str, kind: TensorType) -> torch.Tensor | None:
        values = FAR if self.far and name == "positions" else STEP.get(name.split(".")[0])
        return None if values is None else torch.tensor(values, dtype=kind.torch_dtype)

    def state(self, name: str, kind: PagedType) -> PagedCache:
        dtype = TensorType(kind.dtype, ()).torch_dtype
        slots = PAGES * PAGE_TOKENS
        keys, values = (
            torch.from_numpy(self.normal(f"{name}.{part}", (slots, kind.kv_heads, dim))).to(dtype)
            for part, dim in (("keys", kind.key_dim), ("values", kind.value_dim))
        )
        return PagedCache(keys, values)

    def value(self, name: str, kind: TensorType) -> torch.Tensor:
        """A computed value: rows in turn ordinary, near zero, huge, all ties, and ordinary again."""
        shape = shape_of(kind)
        if not kind.is_float:
            return torch.from_numpy(self.generator(name).integers(0, 3, shape)).to(kind.torch_dtype)
        values = self.normal(name, shape)
        if len(shape) > 1 and isinstance(kind.shape[0], Dim):
            for row in range(shape[0]):
                values[row] *= (1.0, 1e-5, 3e2, 0.0, 1.0)[row % 5]
                values[row] += 0.75 if row % 5 == 3 else 0.0
        if self.infinite:
            values.reshape(-1)[:: max(3, values.size // 7)] = -np.inf
        return torch.from_numpy(values).to(kind.torch_dtype)

    def weight(self, weight: Weight, constants: dict[str, recipes.Tensor]) -> torch.Tensor:
        def read(leaf: Recipe) -> recipes.Tensor:
            name = leaf.attribute("name")
            if leaf.op == "constant":
                return constants[name]
            shape, dtype = leaf.attribute("shape"), leaf.attribute("dtype")
            block = self.block(name, shape) * np.float32(0.5 if len(shape) == 1 else shape[-1] ** -0.5)
            typed = f32_to_bf16(block) if dtype == "bf16" else block.astype(numpy_dtype(dtype))
            return recipes.Tensor(np.resize(typed, shape), dtype)

        return to_torch(recipes.evaluate(weight.recipe, read))

    def normal(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.resize(self.block(name, shape), shape)

    def block(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal float32, as many as the shape has; large arrays repeat a block of odd length."""
        return self.generator(name).standard_normal(min(int(np.prod(shape)), LARGEST_DRAW), np.float32)


def to_torch(tensor: recipes.Tensor) -> torch.Tensor:
    values = torch.from_numpy(np.array(tensor.values))  # a copy: checkpoints are mapped read-only
    return values.view(torch.bfloat16) if tensor.dtype == "bf16" else values
