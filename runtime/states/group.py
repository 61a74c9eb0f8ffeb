"""What every kind of state offers, so that scheduling need not know which it is."""

from collections.abc import Sequence
from typing import Any, Protocol

from ..artifact.schema import StateGroup
from .pool import PagePool
from .transfer import Transfer


class GroupStates(Protocol):
    """The states of one group of layers, for all sequences; a ``part`` is what one sequence holds of them.

    Methods that return transfers change who owns what at once; the memory follows when the transfers are carried out,
    in order, before the next step.
    """

    group: StateGroup
    pool: PagePool

    @property
    def stored(self) -> int:
        """Pages stored away."""
        ...

    def needs(self, tokens: int) -> int:
        """The most pages that a sequence of ``tokens`` holds at once."""
        ...

    def open(self) -> Any:
        """The part of a sequence without tokens."""
        ...

    def missing(self, part: Any, start: int, stop: int) -> int:
        """How many more pages than now ``extend`` would leave in use."""
        ...

    def missing_in_steps(self, part: Any, start: int, stop: int) -> int:
        """How many more pages than now are in use at most while steps go on from ``start`` to ``stop``."""
        ...

    def extend(self, part: Any, start: int, stop: int) -> list[Transfer]:
        """Make room that the part may write at positions from ``start`` up to ``stop``, and give back what no token
        from ``start`` on looks at. IndexError where there are fewer pages than ``missing``.
        """
        ...

    def check_reaches_back(self, part: Any, length: int) -> None:
        """ValueError if what a token after the first ``length`` positions looks at is there no more."""
        ...

    def fork(self, part: Any, length: int) -> Any:
        """Another part that goes on after the first ``length`` positions."""
        ...

    def roll_back(self, part: Any, length: int) -> None:
        """Forget all positions from ``length`` on."""
        ...

    def compact(self, part: Any, start: int, kept: Sequence[int]) -> list[Transfer]:
        """Move positions ``start + kept[i]`` to ``start + i``; ``kept`` rises."""
        ...

    def can_store(self, part: Any) -> bool:
        """Whether the host's other memory has room for the part."""
        ...

    def store(self, part: Any) -> list[Transfer]:
        """Keep the part in the host's other memory, and give its pages back."""
        ...

    def can_load(self, part: Any, spare: int) -> bool:
        """Whether there are pages for a stored part, and ``spare`` more."""
        ...

    def load(self, part: Any) -> list[Transfer]:
        """Bring a stored part back."""
        ...

    def release(self, part: Any) -> None:
        """Give back all that the part holds, stored or not; it can be extended anew."""
        ...

    def reaches(self, chain: Sequence[bytes], blocks: int) -> bool:
        """Whether the cache holds all that goes on after these blocks, or their last token, would look at."""
        ...

    def hit(self, chain: Sequence[bytes], blocks: int) -> Any:
        """The part of a sequence that starts with these cached blocks, which it shares."""
        ...

    def keep(self, part: Any, chain: Sequence[bytes], blocks: range) -> None:
        """Remember what these blocks hold, for whoever starts alike."""
        ...
