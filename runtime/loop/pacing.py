"""When to choose the next step: late enough to take in who has come meanwhile, early enough to be ready in time."""

from collections import deque

_SHARE = 0.7
"""Of a step's predicted time that may pass before the next one is chosen; predictions are that wrong at times."""
_HOST_STEPS = 3
"""How many times the host's usual work is kept in reserve, and how much beside."""
_RESERVE_SECONDS = 1e-3
_PACE = 1 / 16
"""Weight of the newest step in what is usual."""


class Pacing:
    """Of steps that run one after the other. All times are seconds of ``time.perf_counter``."""

    def __init__(self) -> None:
        self.choose_at = 0.0
        """Not before, as long as a step runs."""
        self._predicted: deque[float] = deque()
        self._host = 0.0

    def submitted(self, predicted: float, now: float) -> None:
        """A step was handed to the executor, and will take ``predicted`` seconds once those before it have run."""
        self._predicted.append(predicted)
        if len(self._predicted) == 1:
            self._began(now)

    def ended(self, at: float) -> None:
        """The first of them has run; the next one, if there is one, began then."""
        self._predicted.popleft()
        if self._predicted:
            self._began(at)

    def worked(self, seconds: float) -> None:
        """What the host's work for one step took."""
        self._host += _PACE * (seconds - self._host) if self._host else seconds

    def reset(self) -> None:
        """All steps are gone."""
        self._predicted.clear()
        self.choose_at = 0.0

    def _began(self, at: float) -> None:
        reserve = _HOST_STEPS * self._host + _RESERVE_SECONDS
        self.choose_at = at + max(_SHARE * self._predicted[0] - reserve, 0.0)
