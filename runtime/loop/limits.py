"""How much may wait."""

import threading
from collections.abc import Sequence

from ..artifact.errors import QueueFullError
from ..options import SchedulingOptions
from ..scheduling.sequence import Request

_LEAST_RETRY, _MOST_RETRY = 1.0, 60.0


class QueueLimits:
    """Counts requests from their submission until they are first scheduled, or end. Safe to use from any thread."""

    def __init__(self, options: SchedulingOptions) -> None:
        self._most = options.max_waiting
        self._most_tokens = options.max_waiting_tokens
        self._lock = threading.Lock()
        self._waiting: dict[Request, int] = {}
        self._tokens = 0

    def admit(self, requests: Sequence[Request], now: float) -> None:
        """Count requests that are submitted together. Raises QueueFullError, and counts none, where others wait already
        and all of them would be too many. ``now``: seconds of ``time.perf_counter``.
        """
        tokens = sum(len(request.prompt) for request in requests)
        with self._lock:
            if self._waiting:
                self._check("requests", len(self._waiting) + len(requests), self._most, now)
                self._check("tokens of prompts", self._tokens + tokens, self._most_tokens, now)
            self._waiting |= {request: len(request.prompt) for request in requests}
            self._tokens += tokens

    def settle(self, request: Request) -> None:
        """It waits no longer."""
        with self._lock:
            self._tokens -= self._waiting.pop(request, 0)

    def _check(self, what: str, count: int, most: int | None, now: float) -> None:
        if most is None or count <= most:
            return
        # As long as the first in line has waited, a new one may have to wait too.
        waited = now - next(iter(self._waiting)).arrived
        retry = min(max(waited, _LEAST_RETRY), _MOST_RETRY)
        raise QueueFullError(f"at most {most} {what} may wait, and with this there would be {count}; try again", retry)
