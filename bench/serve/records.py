"""What is sent to a server, and what is known of it afterwards. Times are seconds from the start of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

Prompt = str | tuple[int, ...] | tuple[Mapping[str, Any], ...]
"""Text, token ids, or the messages of a chat."""

UNFINISHED = "unfinished"
"""The kind of failure of a request that the run's own end cut off: no fault of the server's."""


@dataclass(frozen=True)
class Work:
    """One request, before it is sent."""

    index: int
    at: float
    """When it arrives. In a closed loop, where it goes when another is done, this says nothing."""
    prompt: Prompt
    output_tokens: int
    group: int | None = None
    """Requests of one group begin with the same prefix."""
    first_of_group: bool = False


class Failure(NamedTuple):
    """Why a request did not complete."""

    kind: str
    """A status (``429``), or ``connect``, ``disconnected``, ``malformed``, ``error event``, ``timeout``, ``no tokens``,
    ``not streamed``, ``http``, ``unfinished``."""
    message: str


@dataclass(frozen=True)
class Record:
    """One request, after it ended."""

    index: int
    scheduled: float
    """When it should have been sent. In a closed loop: when its turn came."""
    sent: float | None
    """When it was sent, for the first time where it was sent again; None: it never was."""
    ended: float
    chunks: tuple[float, ...]
    """When chunks that carry tokens came."""
    asked_tokens: int
    finished: float | None = None
    """When the server said that the output is complete."""
    failure: Failure | None = None
    prompt_tokens: int | None = None
    """The server's count, as are the next two. None: it gave none."""
    output_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str | None = None
    attempts: int = 1
    group: int | None = None
    first_of_group: bool = False

    @property
    def tokens(self) -> int:
        """Output tokens by the server's count; by chunks where it gave none."""
        return len(self.chunks) if self.output_tokens is None else self.output_tokens

    @property
    def lag(self) -> float | None:
        """Seconds by which the client itself sent too late."""
        return None if self.sent is None else self.sent - self.scheduled

    @property
    def ttft(self) -> float | None:
        """Seconds from the scheduled arrival to the first token."""
        return self.chunks[0] - self.scheduled if self.chunks else None

    @property
    def ttft_from_sending(self) -> float | None:
        return self.chunks[0] - self.sent if self.chunks and self.sent is not None else None

    @property
    def tpot(self) -> float | None:
        """Mean seconds for each output token after the first; None where there is no second."""
        if self.finished is None or not self.chunks or self.tokens < 2:
            return None
        return (self.finished - self.chunks[0]) / (self.tokens - 1)

    @property
    def e2e(self) -> float | None:
        """Seconds from the scheduled arrival to the end of the output."""
        return None if self.finished is None else self.finished - self.scheduled

    @property
    def e2e_from_sending(self) -> float | None:
        return None if self.finished is None or self.sent is None else self.finished - self.sent

    @property
    def gaps(self) -> tuple[float, ...]:
        """Seconds between chunks: inter-token latencies where every chunk holds one token."""
        return tuple(later - earlier for earlier, later in pairwise(self.chunks))


class ClientLoad(NamedTuple):
    """How busy the client itself was during a run."""

    cpu_share: float
    """Of one core; the client is one thread."""
    stalls: tuple[float, ...]
    """Seconds by which a regular wake-up came too late."""


@dataclass(frozen=True)
class Run:
    """One workload driven once against one server."""

    records: tuple[Record, ...]
    client: ClientLoad

    @property
    def seconds(self) -> float:
        """From the start to the last end."""
        return max((record.ended for record in self.records), default=0.0)
