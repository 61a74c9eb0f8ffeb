"""An event loop that wakes when it is due. asyncio's own wakes up to a millisecond late, as epoll counts in those."""

import asyncio
import select
import selectors


class _FineSelector(selectors.EpollSelector):
    """Waits for epoll's own descriptor by ``select``, which counts in microseconds, and then asks epoll."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            select.select([self], (), (), timeout)
            timeout = 0
        return super().select(timeout)


def fine_loop() -> asyncio.AbstractEventLoop:
    """A new event loop."""
    return asyncio.SelectorEventLoop(_FineSelector())
