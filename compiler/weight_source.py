"""Where the values of weights come from: a checkpoint, or a seed."""

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from ..runtime.artifact.checkpoint import Checkpoint
from ..runtime.artifact.dtypes import f32_to_bf16, numpy_dtype
from ..runtime.artifact.errors import CheckpointError
from ..runtime.artifact.recipe import Recipe, Tensor, as_declared
from .ir.program import Program

BLOCK = 1 << 24
"""Elements invented at a time, which bounds the memory that float32 intermediates take."""


class WeightSource(Protocol):
    def names(self) -> Iterable[str] | None:
        """The tensors there are; None where any name will do."""

    def read(self, leaf: Recipe) -> Tensor:
        """The value of a ``source`` leaf."""


class CheckpointSource:
    """The tensors of a Hugging Face model directory."""

    def __init__(self, directory: Path) -> None:
        self.checkpoint = Checkpoint(directory)

    def names(self) -> Iterable[str]:
        return self.checkpoint.names

    def read(self, leaf: Recipe) -> Tensor:
        return self.checkpoint.read(leaf.attribute("name"))

    def check(self, program: Program) -> None:
        """Raise CheckpointError for the first tensor that is missing, misshapen or of a wrong type."""
        for weight in program.weights.values():
            for leaf in weight.recipe.sources():
                entry = self.checkpoint.entry(leaf.attribute("name"))
                as_declared(
                    leaf, Tensor(np.broadcast_to(np.zeros((), numpy_dtype(entry.dtype)), entry.shape), entry.dtype)
                )

    def check_ties(self, ties: Iterable[tuple[str, str]]) -> None:
        """Raise CheckpointError if two tensors differ that the model has as one."""
        for one, other in ties:
            a, b = self.checkpoint.read(one), self.checkpoint.read(other)
            if a.dtype != b.dtype or not np.array_equal(a.values, b.values):
                raise CheckpointError(
                    f"config.json ties {other} to {one}, but the checkpoint has both and they differ; "
                    "set tie_word_embeddings to false, or drop one of them"
                )


class RandomSource:
    """Weights invented from a seed: normal with deviation 0.02; vectors that scale (norms) around one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def names(self) -> None:
        return None

    def read(self, leaf: Recipe) -> Tensor:
        name, shape, dtype = (leaf.attribute(k) for k in ("name", "shape", "dtype"))
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        mean = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
        out = np.empty(int(np.prod(shape)), numpy_dtype(dtype))
        for start in range(0, out.size, BLOCK):
            values = rng.standard_normal(min(BLOCK, out.size - start), np.float32)
            values *= 0.02
            values += mean
            out[start : start + BLOCK] = f32_to_bf16(values) if dtype == "bf16" else values
        return Tensor(out.reshape(shape), dtype)
