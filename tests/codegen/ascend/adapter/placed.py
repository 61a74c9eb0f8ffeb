"""Memory between pages that cannot be touched, so that reading or writing beyond it ends the process."""

import ctypes
import mmap

import numpy as np

from tests.codegen.ascend.adapter.requests import Guard

ALIGNMENT = 16
"""To which a device's memory is aligned: fewer bytes than that may follow unguarded."""

_PAGE = mmap.PAGESIZE
_PROT_NONE, _PROT_READ = 0, 1
_libc = ctypes.CDLL(None, use_errno=True)


class Placed:
    """A copy of ``values`` that ends where the guard begins, or begins where it ends.

    ``slack``: bytes behind the values that may be read, though not written; they hold nan.
    """

    def __init__(self, values: np.ndarray, guard: Guard, slack: int = 0) -> None:
        size = max(_up(values.nbytes, ALIGNMENT), ALIGNMENT)
        pages, slack_pages = _up(size, _PAGE), _up(slack, _PAGE)
        self._region = mmap.mmap(-1, pages + slack_pages + 2 * _PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._region)) + _PAGE
        ctypes.memset(start, 0xFF, pages + slack_pages)
        _protect(start - _PAGE, _PAGE, _PROT_NONE)
        _protect(start + pages, slack_pages, _PROT_READ)
        _protect(start + pages + slack_pages, _PAGE, _PROT_NONE)
        self.address = start + pages - size if guard is Guard.AFTER else start
        self.size = size
        memory = (ctypes.c_char * values.nbytes).from_address(self.address)
        self.values: np.ndarray = np.frombuffer(memory, values.dtype).reshape(values.shape)
        self.values[...] = values


def _up(size: int, to: int) -> int:
    return -(-size // to) * to


def _protect(address: int, size: int, protection: int) -> None:
    if size and _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), protection):
        raise OSError(ctypes.get_errno(), "mprotect")
