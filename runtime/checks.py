"""What a value given by a caller is, before it is used: numbers of the right kind, and lists of token ids."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, TypeGuard

import numpy as np

from .artifact.errors import OptionError

INT32_MAX = (1 << 31) - 1


def is_whole(value: object) -> TypeGuard[int]:
    """Whether ``value`` is a whole number, of Python's or numpy's; bool is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a real number, of Python's or numpy's; bool is none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def token_list(given: Any, vocab_size: int, name: str) -> list[int]:
    """``given`` (a list, a tuple or an integer array [T]) as ids below ``vocab_size``. Raises OptionError."""
    if isinstance(given, np.ndarray):
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise OptionError(f"{name} must be an integer array [T], got {given.dtype}{list(given.shape)}")
        given = given.tolist()
    if not isinstance(given, Sequence) or isinstance(given, str | bytes | bytearray):
        raise OptionError(f"{name} must be a list of token ids, got {type(given).__name__}")
    for token in given:
        if not is_whole(token):
            raise OptionError(f"{name} must be whole numbers, got {_shown(token)}")
        if not 0 <= token < vocab_size:
            raise OptionError(f"{name} must be from 0 to {vocab_size - 1}, got {token}")
    return [int(token) for token in given]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:40]}..."
