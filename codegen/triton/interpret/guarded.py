"""Memory that ends where the next page cannot be touched, so that reading or writing beyond it ends the process."""

import ctypes
import mmap

import numpy as np

_PAGE = mmap.PAGESIZE
_PROT_NONE = 0
_libc = ctypes.CDLL(None, use_errno=True)


class Guarded:
    """A copy of ``values`` whose last byte, up to an alignment of 16, is the last of its pages."""

    def __init__(self, values: np.ndarray) -> None:
        size = max(-(-values.nbytes // 16) * 16, 16)
        pages = -(-size // _PAGE) * _PAGE
        self._region = mmap.mmap(-1, pages + 2 * _PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._region))
        for guard in (start, start + _PAGE + pages):
            if _libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(_PAGE), _PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.address = start + _PAGE + pages - size
        memory = (ctypes.c_char * values.nbytes).from_address(self.address)
        self.values: np.ndarray = np.frombuffer(memoryview(memory), values.dtype).reshape(values.shape)
        self.values[...] = values
