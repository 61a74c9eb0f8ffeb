"""Who is told how a compile goes on."""

from dataclasses import dataclass
from typing import Protocol

from .pipeline.run import PassReport


@dataclass(frozen=True)
class Estimate:
    """What a compile will take, before it starts."""

    engine_bytes: int
    memory_bytes: int
    seconds: float


class Listener(Protocol):
    """Told how a compile goes on."""

    def estimated(self, estimate: Estimate) -> None: ...

    def stage(self, name: str, total: int) -> None:
        """A stage begins: ``total`` units of it will be ``advanced`` by."""

    def advanced(self, units: int, what: str) -> None: ...

    def passed(self, report: PassReport) -> None: ...


class Silent:
    """A listener that does not listen."""

    def estimated(self, estimate: Estimate) -> None:
        pass

    def stage(self, name: str, total: int) -> None:
        pass

    def advanced(self, units: int, what: str) -> None:
        pass

    def passed(self, report: PassReport) -> None:
        pass
