"""Which requests are late."""

import heapq
from itertools import count

from ..scheduling.sequence import Request

_TIDY = 64
"""Entries beyond twice as many as were needed the last time that are worth looking through."""


class Deadlines:
    """Requests by deadline. Those that end in time are forgotten now and then."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._numbers = count()
        self._tidy_at = _TIDY

    def add(self, request: Request) -> None:
        """Watch a request, if it has a deadline."""
        if request.deadline is not None:
            heapq.heappush(self._heap, (request.deadline, next(self._numbers), request))
            if len(self._heap) > self._tidy_at:
                self._heap = [entry for entry in self._heap if not entry[2].ended]
                heapq.heapify(self._heap)
                self._tidy_at = 2 * len(self._heap) + _TIDY

    @property
    def next(self) -> float | None:
        """When the first of those that have not ended is late: seconds of ``time.perf_counter``."""
        while self._heap and self._heap[0][2].ended:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def passed(self, now: float) -> list[Request]:
        """Requests that are late, each told once."""
        late: list[Request] = []
        while (deadline := self.next) is not None and deadline <= now:
            late.append(heapq.heappop(self._heap)[2])
        return late
