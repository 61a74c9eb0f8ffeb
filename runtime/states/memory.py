"""The states of all sequences, whatever their kinds: opened, extended, shared, rolled back, stored away, released."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..artifact.errors import OptionError
from ..observe import GroupPages
from .digests import extend_chain, root_digest
from .group import GroupStates
from .transfer import Transfer


@dataclass(eq=False)
class SequenceStates:
    """What one sequence holds. Made and changed by ``StateMemory`` alone."""

    parts: list[Any]
    """One per state group."""
    version: int
    """Of the weights when it was opened; only a sequence wholly of the present ones may be cached."""
    root: bytes
    """Where its chain of digests starts."""
    length: int = 0
    """Positions that have states, or will when the steps that were scheduled have run."""
    reused: int = 0
    """Of these, found when it was opened."""
    chain: list[bytes] = field(default_factory=list)
    """Digests of its leading full blocks."""
    kept: int = 0
    """Blocks that were offered to the cache."""
    stored: bool = False
    """Whether the host's other memory holds it."""
    own_until: int = 0
    """Positions from ``length`` up to here can be written, for their pages are its own."""


class StateMemory:
    """Owned by whoever schedules: one thread at a time.

    What changes in memory (copies, and moves to and from the host's other memory) is recorded as transfers, to be
    carried out before the next step; ``take_transfers`` hands them over. So states may be given away while a step that
    was scheduled earlier still uses them: steps and transfers run in the order in which they were scheduled.
    """

    def __init__(self, groups: Sequence[GroupStates], *, version: int = 0, prefix_cache: bool = True) -> None:
        self.groups = tuple(groups)
        self.version = version
        self._caches = prefix_cache and bool(groups)
        self._transfers: list[Transfer] = []

    @property
    def page_tokens(self) -> int:
        return self.groups[0].group.page_tokens if self.groups else 1

    @property
    def pages(self) -> tuple[GroupPages, ...]:
        """Of each group, now."""
        return tuple(GroupPages(g.pool.pages, g.pool.in_use, g.pool.cached) for g in self.groups)

    @property
    def stored_pages(self) -> int:
        """Pages in the host's other memory."""
        return sum(group.stored for group in self.groups)

    def longest(self, most: int) -> int:
        """Tokens of the longest sequence that has room, ``most`` at most."""
        return bisect_right(range(most + 1), 0, lo=1, key=lambda tokens: not self._fits(tokens)) - 1

    def check_fits(self, tokens: int) -> None:
        """Raise OptionError if a sequence of ``tokens`` can never have room."""
        for states in self.groups:
            need, size = states.needs(tokens), states.group.page_tokens
            if need > states.pool.pages:
                raise OptionError(
                    f"a sequence of {tokens} tokens needs {need * size} tokens of key-value memory, "
                    f"got {states.pool.pages * size}; load the engine with a larger kv_tokens"
                )

    def open(self, tokens: Sequence[int] = (), salt: str = "") -> SequenceStates:
        """The states of a new sequence; ``length`` of its positions are there already, found in the prefix cache.

        Of ``tokens`` the last is never among them, for its logits are wanted.
        """
        root = root_digest(self.version, salt)
        chain: list[bytes] = []
        if self._caches and len(tokens) > 1:
            extend_chain(chain, root, tokens, self.page_tokens, len(tokens) // self.page_tokens)
        blocks = self._reached(chain)
        parts = [group.hit(chain, blocks) for group in self.groups] if blocks else [g.open() for g in self.groups]
        length = min(blocks * self.page_tokens, len(tokens) - 1) if blocks else 0
        # A block whose last token is computed again is written again, and so must be offered again.
        return SequenceStates(parts, self.version, root, length, length, chain, length // self.page_tokens)

    def room(self, states: SequenceStates, start: int, stop: int) -> int:
        """Pages that are left in the tightest group after ``extend``; below 0 where there is no room."""
        pairs = zip(self.groups, states.parts, strict=True)
        return min((g.pool.available - g.missing(part, start, stop) for g, part in pairs), default=0)

    def room_in_steps(self, states: SequenceStates, start: int, stop: int) -> int:
        """As ``room``, where several steps may go from ``start`` to ``stop``: windows move on between them."""
        pairs = zip(self.groups, states.parts, strict=True)
        return min((g.pool.available - g.missing_in_steps(part, start, stop) for g, part in pairs), default=0)

    def extend(self, states: SequenceStates, start: int, stop: int) -> bool:
        """Make room for positions from ``start`` up to ``stop``; False, and nothing changes, where there is none."""
        if stop > states.own_until:
            if self.room(states, start, stop) < 0:
                return False
            for group, part in zip(self.groups, states.parts, strict=True):
                self._transfers += group.extend(part, start, stop)
            states.own_until = -(-stop // self.page_tokens) * self.page_tokens
        states.length = max(states.length, stop)
        return True

    def fork(self, states: SequenceStates, length: int) -> SequenceStates:
        """A second sequence that shares the first ``length`` positions; kept unchanged, it is a snapshot.

        ValueError where a window has dropped what came before them.
        """
        self._check_reaches_back(states, length)
        parts = [group.fork(part, length) for group, part in zip(self.groups, states.parts, strict=True)]
        chain = states.chain[: length // self.page_tokens]
        kept = min(states.kept, len(chain))
        states.own_until = 0
        return SequenceStates(parts, states.version, states.root, length, length, chain, kept)

    def roll_back(self, states: SequenceStates, length: int) -> None:
        """Forget all positions from ``length`` on. ValueError where a window has dropped what came before them."""
        self._check_reaches_back(states, length)
        for group, part in zip(self.groups, states.parts, strict=True):
            group.roll_back(part, length)
        states.length = min(states.length, length)
        states.own_until = 0
        del states.chain[length // self.page_tokens :]
        states.kept = min(states.kept, len(states.chain))

    def compact(self, states: SequenceStates, start: int, kept: Sequence[int]) -> None:
        """Of the positions from ``start`` on, keep those at the rising offsets ``kept``, and close the gaps."""
        for group, part in zip(self.groups, states.parts, strict=True):
            self._transfers += group.compact(part, start, kept)
        self.roll_back(states, start + len(kept))
        # Names that were given to blocks before tokens moved are wrong.
        del states.chain[start // self.page_tokens :]
        states.kept = min(states.kept, len(states.chain))

    def store(self, states: SequenceStates) -> bool:
        """Move all to the host's other memory; False, and nothing changes, where that has no room."""
        pairs = list(zip(self.groups, states.parts, strict=True))
        if not all(group.can_store(part) for group, part in pairs):
            return False
        for group, part in pairs:
            self._transfers += group.store(part)
        states.stored = True
        states.own_until = 0
        return True

    def load(self, states: SequenceStates, spare: int = 0) -> bool:
        """Bring stored states back; False, and nothing changes, where there is no room for them and ``spare`` pages."""
        pairs = list(zip(self.groups, states.parts, strict=True))
        if not all(group.can_load(part, spare) for group, part in pairs):
            return False
        for group, part in pairs:
            self._transfers += group.load(part)
        states.stored = False
        return True

    def keep(self, states: SequenceStates, tokens: Sequence[int]) -> None:
        """Offer to the cache the full blocks whose states all scheduled steps will have computed; ``tokens``: those
        of the sequence as far as they are known.
        """
        blocks = min(len(tokens), states.length) // self.page_tokens
        if not self._caches or states.version != self.version or states.stored or blocks <= states.kept:
            return
        extend_chain(states.chain, states.root, tokens, self.page_tokens, blocks)
        for group, part in zip(self.groups, states.parts, strict=True):
            group.keep(part, states.chain, range(states.kept, blocks))
        states.kept = blocks

    def release(self, states: SequenceStates) -> None:
        """Give back all; the states cannot be used any more."""
        for group, part in zip(self.groups, states.parts, strict=True):
            group.release(part)
        states.length = 0

    def tables(self, sequences: Sequence[SequenceStates]) -> tuple[np.ndarray, ...]:
        """Per group, the sequences' block tables as one array i32 [S, B], B being the blocks of the longest."""
        blocks = max(part.blocks for states in sequences for part in states.parts) if self.groups else 0
        return tuple(
            np.stack([states.parts[g].table[:blocks] for states in sequences]) for g in range(len(self.groups))
        )

    def take_transfers(self) -> tuple[Transfer, ...]:
        """What is to be carried out, in order, before the next step; the caller has them now."""
        taken, self._transfers = tuple(self._transfers), []
        return taken

    def forget_cache(self) -> None:
        """Remember no prefixes; running sequences go on."""
        for group in self.groups:
            group.pool.forget_all()

    def set_version(self, version: int) -> None:
        """From now on the weights are of ``version``: nothing that others computed is found any more."""
        self.version = version
        self.forget_cache()

    def _fits(self, tokens: int) -> bool:
        return all(states.needs(tokens) <= states.pool.pages for states in self.groups)

    def _check_reaches_back(self, states: SequenceStates, length: int) -> None:
        """Before any group changes."""
        for group, part in zip(self.groups, states.parts, strict=True):
            group.check_reaches_back(part, length)

    def _reached(self, chain: Sequence[bytes]) -> int:
        """How many leading blocks of ``chain`` the cache has: all of them, or of windows their last ones."""
        whole = [states.pool for states in self.groups if states.group.window is None]
        windows = [states for states in self.groups if states.group.window is not None]
        longest = next(
            (n for n, digest in enumerate(chain) if any(pool.find(digest) is None for pool in whole)), len(chain)
        )
        return next((n for n in range(longest, 0, -1) if all(states.reaches(chain, n) for states in windows)), 0)
