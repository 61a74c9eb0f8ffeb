"""Who is next: by priority, then fairly among keys, then by arrival."""

import heapq
from typing import Any

from .sequence import Sequence

_REMEMBERED = 1024
"""Keys that no longer wait, and places of sequences that no longer do, are remembered up to so many more than wait."""


class FairQueue:
    """Sequences that wait. Among those of the highest priority, the key that was served least goes first.

    Each key has a counter of tokens computed for it; one that comes back after a pause starts at the least counter of
    those that wait, so that idleness saves nothing up (the virtual token counter of Sheng et al., 2023).
    """

    def __init__(self) -> None:
        self._heaps: dict[int, dict[str, list[tuple[int, Sequence]]]] = {}
        self._members: dict[Sequence, int] = {}
        """Those that wait, and how many tokens they wanted computed when they came."""
        self._by_arrival: list[tuple[float, int, Sequence]] = []
        self.tokens = 0
        """That all of them want computed."""
        self._waiting: dict[str, int] = {}
        """Key to how many of its sequences wait."""
        self._served: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._members

    def add(self, sequence: Sequence) -> None:
        options = sequence.request.options
        if options.key not in self._waiting:
            least = min((self._served.get(key, 0.0) for key in self._waiting), default=0.0)
            self._served[options.key] = max(self._served.get(options.key, 0.0), least)
        self._waiting[options.key] = self._waiting.get(options.key, 0) + 1
        self._members[sequence] = sequence.missing
        self.tokens += sequence.missing
        self._push(self._by_arrival, (sequence.request.arrived, sequence.number, sequence))
        heap = self._heaps.setdefault(options.priority, {}).setdefault(options.key, [])
        self._push(heap, (sequence.number, sequence))

    def remove(self, sequence: Sequence) -> None:
        """Take out one that waits."""
        self.tokens -= self._members.pop(sequence)
        key = sequence.request.options.key
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]
            self._forget_keys()

    def first(self) -> Sequence | None:
        """The sequence to serve next; it stays."""
        for priority in sorted(self._heaps, reverse=True):
            keys = self._heaps[priority]
            for key in [key for key, heap in keys.items() if not self._skim(heap)]:
                del keys[key]
            if keys:
                key = min(keys, key=lambda key: (self._served.get(key, 0.0), keys[key][0][0]))
                return keys[key][0][1]
            del self._heaps[priority]
        return None

    def oldest(self) -> Sequence | None:
        """The one that arrived first."""
        return self._by_arrival[0][-1] if self._skim(self._by_arrival) else None

    def charge(self, key: str, tokens: int) -> None:
        """Count tokens that are computed for a key."""
        self._served[key] = self._served.get(key, 0.0) + tokens

    def _push(self, heap: list[Any], entry: tuple[Any, ...]) -> None:
        """Add an entry; what was removed behind others is dropped when there is much of it."""
        heapq.heappush(heap, entry)
        if len(heap) > 2 * len(self._members) + _REMEMBERED:
            heap[:] = [entry for entry in heap if entry[-1] in self._members]
            heapq.heapify(heap)

    def _skim(self, heap: list[Any]) -> bool:
        """Drop those at the top that were removed; whether any is left. One that was added again stands twice."""
        while heap and heap[0][-1] not in self._members:
            heapq.heappop(heap)
        return bool(heap)

    def _forget_keys(self) -> None:
        if not self._waiting:
            self._served.clear()
        elif len(self._served) > 2 * len(self._waiting) + _REMEMBERED:
            least = min(self._served.get(key, 0.0) for key in self._waiting)
            self._served = {k: n for k, n in self._served.items() if n > least or k in self._waiting}
