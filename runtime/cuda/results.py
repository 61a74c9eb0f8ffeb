"""Where a function's results arrive on the host: copied by the graph itself, in as few pieces as can be."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cuda.bindings import driver

from ..artifact.dtypes import ITEM_BYTES, numpy_dtype
from ..backend import Result
from .calls import call
from .layout import MERGE_GAP, Span, merged


class Results:
    """Of one function, for graphs of so many rows of logits."""

    def __init__(self, results: Sequence[Result], addresses: Mapping[str, int], rows: int, memory: np.ndarray) -> None:
        """``addresses``: on the device, by output. ``memory``: pinned, ``results_bytes`` of it."""
        places = {
            result.field: Span(addresses[result.output], addresses[result.output] + _bytes(result, rows))
            for result in results
        }
        self._spans = merged(places.values())
        self._address = int(memory.ctypes.data)
        self._rows = rows
        self._places: dict[str, tuple[Span, Result]] = {}
        begins = 0
        for span in self._spans:
            for result in results:
                place = places[result.field]
                if span.start <= place.start < span.stop:
                    start = begins + place.start - span.start
                    self._places[result.field] = Span(start, start + place.stop - place.start), result
            begins += span.stop - span.start
        self._memory = memory[:begins]

    def enqueue(self, stream: Any) -> None:
        """Copy them to the host."""
        offset = 0
        for span in self._spans:
            size = span.stop - span.start
            call(driver.cuMemcpyDtoHAsync, self._address + offset, span.start, size, stream)
            offset += size

    def snapshot(self) -> np.ndarray:
        """A copy of what has arrived. To be taken when the stream has come past the copies."""
        return self._memory.copy()

    def read(self, snapshot: np.ndarray, field: str, rows: int) -> np.ndarray:
        """A result for the first ``rows`` rows: a view of a snapshot."""
        (start, stop), result = self._places[field]
        values = snapshot[start:stop].view(numpy_dtype(result.dtype)).reshape(self._rows, *result.columns)
        return values[:rows]

    def read_all(self, snapshot: np.ndarray, rows: int) -> dict[str, np.ndarray]:
        """All results, by field."""
        return {field: self.read(snapshot, field, rows) for field in self._places}


def results_bytes(results: Sequence[Result], rows: int) -> int:
    """Room for the results of ``rows`` rows, and of less."""
    return sum(_bytes(result, rows) + MERGE_GAP for result in results)


def _bytes(result: Result, rows: int) -> int:
    return rows * math.prod(result.columns) * ITEM_BYTES[result.dtype]
