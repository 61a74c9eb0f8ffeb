"""Paged states of one group of layers: keys and values of every position, or of those within a window."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..artifact.schema import StateGroup
from .pool import PagePool
from .transfer import CopyPage, LoadPage, MoveTokens, StorePage, Transfer


@dataclass(eq=False)
class PagedPart:
    """What one sequence holds of a group: pages of the blocks from ``first`` up to ``blocks``."""

    table: np.ndarray
    """i32 [columns]: page by block of positions, -1 where there is none."""
    first: int = 0
    """Blocks before fell out of the window."""
    blocks: int = 0
    slots: list[int] = field(default_factory=list)
    """Where its pages are while they are stored away."""


class PagedGroup:
    """See ``GroupStates``. A page is shared until someone writes it: then the writer gets a copy."""

    def __init__(self, group: StateGroup, pages: int, columns: int, max_tokens: int, host_pages: int) -> None:
        """``columns``: blocks of the longest sequence; ``max_tokens``: the most that one step adds to a sequence;
        ``host_pages``: how many can be stored away.
        """
        self.group = group
        self.pool = PagePool(pages)
        self._columns = columns
        self._max_tokens = max_tokens
        self._slots = list(range(host_pages - 1, -1, -1))
        self._host_pages = host_pages

    @property
    def stored(self) -> int:
        """Pages stored away."""
        return self._host_pages - len(self._slots)

    def needs(self, tokens: int) -> int:
        return pages_needed(self.group, tokens, self._max_tokens)

    def open(self) -> PagedPart:
        return PagedPart(np.full(self._columns, -1, np.int32))

    def missing(self, part: PagedPart, start: int, stop: int) -> int:
        pages = part.table[part.first : part.blocks].tolist()
        gone = self._gone(part, start)
        freed = sum(self.pool.uses(page) == 1 for page in pages[: gone - part.first])
        first_written = max(start // self.group.page_tokens, gone)
        copied = sum(self.pool.uses(page) > 1 for page in pages[max(first_written - part.first, 0) :])
        return max(self._blocks(stop) - part.blocks, 0) + copied - freed

    def missing_in_steps(self, part: PagedPart, start: int, stop: int) -> int:
        own = sum(self.pool.uses(page) == 1 for page in part.table[part.first : part.blocks].tolist())
        return min(self.missing(part, start, stop), self.needs(stop) - own)

    def extend(self, part: PagedPart, start: int, stop: int) -> list[Transfer]:
        gone = self._gone(part, start)
        for block in range(part.first, gone):
            self.pool.drop(int(part.table[block]))
            part.table[block] = -1
        part.first = gone
        transfers = self._own(part, start // self.group.page_tokens, part.blocks)
        for block in range(part.blocks, self._blocks(stop)):
            part.table[block] = self.pool.take()
            part.blocks = block + 1
        return transfers

    def check_reaches_back(self, part: PagedPart, length: int) -> None:
        window = self.group.window
        if window is not None and max(length - window + 1, 0) // self.group.page_tokens < part.first:
            raise ValueError(f"positions before {part.first * self.group.page_tokens} fell out of the window")

    def fork(self, part: PagedPart, length: int) -> PagedPart:
        blocks = min(self._blocks(length), part.blocks)
        forked = PagedPart(np.full(self._columns, -1, np.int32), part.first, blocks)
        forked.table[part.first : blocks] = part.table[part.first : blocks]
        for page in part.table[part.first : blocks].tolist():
            self.pool.share(page)
        return forked

    def roll_back(self, part: PagedPart, length: int) -> None:
        blocks = min(self._blocks(length), part.blocks)
        for page in part.table[blocks : part.blocks].tolist():
            self.pool.drop(page)
        part.table[blocks : part.blocks] = -1
        part.blocks = blocks

    def compact(self, part: PagedPart, start: int, kept: Sequence[int]) -> list[Transfer]:
        moved = [(start + to, start + offset) for to, offset in enumerate(kept) if to != offset]
        if not moved:
            return []
        blocks = [target // self.group.page_tokens for target, _ in moved]
        transfers = self._own(part, min(blocks), max(blocks) + 1)
        targets, sources = zip(*((self._slot(part, t), self._slot(part, s)) for t, s in moved), strict=True)
        return [*transfers, MoveTokens(self.group.index, sources, targets)]

    def can_store(self, part: PagedPart) -> bool:
        return part.blocks - part.first <= len(self._slots)

    def store(self, part: PagedPart) -> list[Transfer]:
        transfers: list[Transfer] = []
        for block in range(part.first, part.blocks):
            page, slot = int(part.table[block]), self._slots.pop()
            transfers.append(StorePage(self.group.index, page, slot))
            part.slots.append(slot)
            self.pool.drop(page)
            part.table[block] = -1
        return transfers

    def can_load(self, part: PagedPart, spare: int) -> bool:
        return len(part.slots) + spare <= self.pool.available

    def load(self, part: PagedPart) -> list[Transfer]:
        transfers: list[Transfer] = []
        for block, slot in zip(range(part.first, part.blocks), part.slots, strict=True):
            part.table[block] = self.pool.take()
            transfers.append(LoadPage(self.group.index, slot, int(part.table[block])))
        self._slots.extend(reversed(part.slots))
        part.slots = []
        return transfers

    def release(self, part: PagedPart) -> None:
        if part.slots:
            self._slots.extend(reversed(part.slots))
            part.slots = []
        else:
            # The end first, so that of a cached chain the end is evicted first.
            for page in part.table[part.first : part.blocks][::-1].tolist():
                self.pool.drop(page)
        part.table.fill(-1)
        part.first = part.blocks = 0

    def reaches(self, chain: Sequence[bytes], blocks: int) -> bool:
        return all(self.pool.find(chain[block]) is not None for block in range(self._oldest(blocks), blocks))

    def hit(self, chain: Sequence[bytes], blocks: int) -> PagedPart:
        part = PagedPart(np.full(self._columns, -1, np.int32), self._oldest(blocks), blocks)
        for block in range(part.first, blocks):
            page = self.pool.find(chain[block])
            assert page is not None, "reaches() was asked before"
            self.pool.share(page)
            part.table[block] = page
        return part

    def keep(self, part: PagedPart, chain: Sequence[bytes], blocks: range) -> None:
        for block in blocks:
            if part.first <= block < part.blocks:
                self.pool.keep(int(part.table[block]), chain[block])

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.group.page_tokens)

    def _slot(self, part: PagedPart, position: int) -> int:
        block, place = divmod(position, self.group.page_tokens)
        return int(part.table[block]) * self.group.page_tokens + place

    def _oldest(self, blocks: int) -> int:
        """The first block that a token after ``blocks`` full ones, or the last token of these, looks at."""
        if self.group.window is None:
            return 0
        return max(blocks * self.group.page_tokens - self.group.window, 0) // self.group.page_tokens

    def _gone(self, part: PagedPart, start: int) -> int:
        """The blocks that no token from ``start`` on looks at: those before this one."""
        if self.group.window is None:
            return part.first
        outside = max(start - self.group.window + 1, 0) // self.group.page_tokens
        return max(part.first, min(outside, part.blocks))

    def _own(self, part: PagedPart, start: int, stop: int) -> list[Transfer]:
        """Make the pages of these blocks the part's own, to be written."""
        transfers: list[Transfer] = []
        for block in range(max(start, part.first), stop):
            page = int(part.table[block])
            if self.pool.uses(page) > 1:
                part.table[block] = self.pool.take()
                transfers.append(CopyPage(self.group.index, page, int(part.table[block])))
                self.pool.drop(page)
            else:
                self.pool.forget(page)
        return transfers


def pages_needed(group: StateGroup, tokens: int, max_tokens: int) -> int:
    """The most pages that a sequence of ``tokens`` holds at once, when a step adds at most ``max_tokens``."""
    whole = -(-tokens // group.page_tokens)
    if group.window is None:
        return whole
    # A window and a step's tokens may start and end within a page.
    return min(whole, (group.window - 1 + max_tokens - 1) // group.page_tokens + 2)
