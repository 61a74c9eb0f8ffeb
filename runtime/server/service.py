"""What the server's endpoints share: the engine once it is loaded, and whether requests are taken."""

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from ..artifact.errors import DrainingError
from .errors import not_ready
from .metrics import Metrics
from .served import Served
from .settings import ServeSettings

_RETRY_AFTER = 5.0
"""Seconds in which another instance may have taken over."""


@dataclass
class Service:
    """The server's state. Only the event loop's thread changes it."""

    settings: ServeSettings
    metrics: Metrics
    served: Served | None = None
    """None while the engine is being loaded."""
    draining: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when what still runs must end."""
    active: int = 0
    """Requests for tokens that were accepted and are not answered."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> Literal["ok", "loading", "draining"]:
        if self.draining:
            return "draining"
        return "loading" if self.served is None else "ok"

    def ready(self) -> Served:
        """What serves. Raises ApiError while there is nothing, and DrainingError while no more is taken."""
        if self.draining:
            raise DrainingError("the server finishes what it has and will then stop; ask another", _RETRY_AFTER)
        if self.served is None:
            raise not_ready()
        return self.served

    def loaded(self) -> Served:
        """What serves, or still does. Raises ApiError while there is nothing."""
        if self.served is None:
            raise not_ready()
        return self.served

    def __enter__(self) -> "Service":
        """Around a request for tokens, which draining waits for."""
        self.active += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.active -= 1
        if not self.active:
            self.idle.set()

    async def drain(self, seconds: float) -> None:
        """Take no more requests, and return when those accepted are answered; after ``seconds`` they are cancelled
        and told so.
        """
        self.draining = True
        if self.served is not None:
            self.served.engine.drain()
        for wait in (seconds, 1.0):
            self.idle.clear()
            if not self.active:
                return
            try:
                await asyncio.wait_for(self.idle.wait(), wait)
            except TimeoutError:
                self.stopping.set()


def stopped() -> DrainingError:
    """What requests are told that were not done when draining had to end."""
    return DrainingError("the server stopped before this request was done; ask another", _RETRY_AFTER)
