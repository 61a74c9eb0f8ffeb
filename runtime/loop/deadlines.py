"""Which requests are late."""

import heapq
from itertools import count

from ..scheduling.sequence import Request


class Deadlines:
    """Requests by deadline. Those that end in time are forgotten when their deadline comes."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._numbers = count()

    def add(self, request: Request) -> None:
        """Watch a request, if it has a deadline."""
        if request.deadline is not None:
            heapq.heappush(self._heap, (request.deadline, next(self._numbers), request))

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
