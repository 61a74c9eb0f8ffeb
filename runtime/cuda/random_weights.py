"""Weights made of random numbers, for engines that are only to be measured: ``Manifest.random_weights``.

Their weight file holds the constants alone (rotary frequencies, say), which no measurement can do without.
"""

import numpy as np

from ..artifact.dtypes import cast, numpy_dtype
from ..artifact.recipe import Tensor
from ..artifact.schema import WeightEntry

SPREAD = 0.02
"""Standard deviation, as models are initialised with."""
BLOCK = 8_388_593
"""Numbers that are drawn, and then repeated: a prime, so that no two rows of a matrix are alike."""
_FLOATS = ("f32", "bf16", "f16")


def random_block(entry: WeightEntry, seed: int, count: int = BLOCK) -> Tensor:
    """``count`` numbers [count] to repeat in ``entry``: around 1 for a vector, which most likely is a norm's, around 0
    else. What is not of a float type is 0.
    """
    if entry.dtype not in _FLOATS:
        return Tensor(np.zeros(count, numpy_dtype(entry.dtype)), entry.dtype)
    values = np.random.default_rng(seed).standard_normal(count, np.float32) * np.float32(SPREAD)
    if len(entry.shape) == 1:
        values += 1
    return Tensor(cast(values, "f32", entry.dtype), entry.dtype)


def random_kind(entry: WeightEntry) -> tuple[str, bool]:
    """Entries of one kind repeat one block."""
    return entry.dtype, len(entry.shape) == 1
