"""The paged key-value memory: pools of pages, and the pages that each sequence holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .artifact.errors import OptionError
from .artifact.schema import StateGroup


class PagePool:
    """The pages of one state group. What was freed last is taken first, so that few pages stay in memory.

    Pages are reserved before they are taken: who holds a reservation never waits.
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.reserved = 0
        self._free = list(range(pages - 1, -1, -1))

    @property
    def taken(self) -> int:
        return self.pages - len(self._free)

    def take(self) -> int:
        return self._free.pop()

    def give_back(self, page: int) -> None:
        self._free.append(page)


@dataclass
class SequencePages:
    """The pages of one sequence. ``tables[g]`` i32[columns]: page by block of positions, -1 where there is none."""

    tables: list[np.ndarray]
    reserved: list[int]
    blocks: int = 0
    """Blocks that have had a page."""
    dropped: list[int] = field(default_factory=list)
    """Per group, the blocks at the start that fell out of the window."""


class KvMemory:
    """Pages of all state groups, by sequence. Owned by the engine and used under its lock."""

    def __init__(self, groups: Sequence[StateGroup], pages: Sequence[int], columns: int, max_tokens: int) -> None:
        """``columns``: blocks of the longest sequence; ``max_tokens``: the most that one step adds to a sequence."""
        self.groups = tuple(groups)
        self.pools = tuple(PagePool(count) for count in pages)
        self._columns = columns
        self._max_tokens = max_tokens

    @property
    def page_tokens(self) -> int:
        return self.groups[0].page_tokens if self.groups else 1

    def reserve(self, tokens: int) -> SequencePages | None:
        """Room for a sequence of ``tokens``, or None while others have it. OptionError if it can never be had."""
        needs = self.needs(tokens)
        if any(pool.reserved + need > pool.pages for need, pool in zip(needs, self.pools, strict=True)):
            return None
        for need, pool in zip(needs, self.pools, strict=True):
            pool.reserved += need
        tables = [np.full(self._columns, -1, np.int32) for _ in self.groups]
        return SequencePages(tables, needs, dropped=[0] * len(self.groups))

    def needs(self, tokens: int) -> list[int]:
        """Pages per group for a sequence of ``tokens``. OptionError if there are not as many."""
        needs = [pages_needed(group, tokens, self._max_tokens) for group in self.groups]
        for need, pool, group in zip(needs, self.pools, self.groups, strict=True):
            if need > pool.pages:
                raise OptionError(
                    f"a sequence of {tokens} tokens needs {need * group.page_tokens} tokens of key-value memory, "
                    f"got {pool.pages * group.page_tokens}; load the engine with a larger kv_tokens"
                )
        return needs

    def extend(self, sequence: SequencePages, start: int, stop: int) -> None:
        """Give pages for positions up to ``stop``, and take back those that no token from ``start`` on looks at."""
        blocks = max(sequence.blocks, -(-stop // self.page_tokens))
        for g, (group, pool) in enumerate(zip(self.groups, self.pools, strict=True)):
            table = sequence.tables[g]
            if group.window is not None:
                gone = max(start - group.window + 1, 0) // group.page_tokens
                for block in range(sequence.dropped[g], min(gone, sequence.blocks)):
                    pool.give_back(int(table[block]))
                    table[block] = -1
                sequence.dropped[g] = max(sequence.dropped[g], gone)
            for block in range(sequence.blocks, blocks):
                table[block] = pool.take()
        sequence.blocks = blocks

    def release(self, sequence: SequencePages) -> None:
        """Take back all pages and the reservation."""
        for table, need, pool in zip(sequence.tables, sequence.reserved, self.pools, strict=True):
            for page in table[table >= 0]:
                pool.give_back(int(page))
            table.fill(-1)
            pool.reserved -= need
        sequence.reserved = [0] * len(self.groups)
        sequence.blocks = 0

    def tables(self, sequences: Sequence[SequencePages]) -> tuple[np.ndarray, ...]:
        """Per group, the sequences' block tables as one array [S, B], B being the blocks of the longest."""
        blocks = max(sequence.blocks for sequence in sequences)
        return tuple(np.stack([sequence.tables[g][:blocks] for sequence in sequences]) for g in range(len(self.groups)))


def pages_needed(group: StateGroup, tokens: int, max_tokens: int) -> int:
    """The most pages that a sequence of ``tokens`` holds at once, when a step adds at most ``max_tokens``."""
    whole = -(-tokens // group.page_tokens)
    if group.window is None:
        return whole
    # A window and a step's tokens may start and end within a page.
    return min(whole, (group.window - 1 + max_tokens - 1) // group.page_tokens + 2)
