"""Which items of one sequence stand for which of another."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from difflib import SequenceMatcher
from typing import TypeVar

Item = TypeVar("Item")
Key = Callable[[Item], Hashable]
Pair = tuple[int | None, int | None]

MOST_CANDIDATES = 1_000_000
"""Pairs of items with an equal key: a key that gives more says too little, and would be searched for minutes."""


def align(before: Sequence[Item], after: Sequence[Item], keys: Sequence[Key[Item]]) -> list[Pair]:
    """Pairs of places in order; None on the side that has no counterpart.

    Items with an equal first key are matched first, in order; what lies between is matched by the next key, and so on.
    Equal sequences are matched item by item.
    """
    return _align(before, after, range(len(before)), range(len(after)), keys)


def _align(
    before: Sequence[Item], after: Sequence[Item], old: range, new: range, keys: Sequence[Key[Item]]
) -> list[Pair]:
    if not old or not new or not keys:
        return [*((i, None) for i in old), *((None, j) for j in new)]
    key, *coarser = keys
    ours, theirs = [key(before[i]) for i in old], [key(after[j]) for j in new]
    head = _common(ours, theirs)
    tail = _common(ours[head:][::-1], theirs[head:][::-1])
    pairs: list[Pair] = list(zip(old[:head], new[:head], strict=True))
    old_end, new_end = len(old) - tail, len(new) - tail
    for equal, i, i_end, j, j_end in _blocks(ours[head:old_end], theirs[head:new_end]):
        inner_old, inner_new = old[head + i : head + i_end], new[head + j : head + j_end]
        if equal:
            pairs += zip(inner_old, inner_new, strict=True)
        else:
            pairs += _align(before, after, inner_old, inner_new, coarser)
    return [*pairs, *zip(old[old_end:], new[new_end:], strict=True)]


def _common(before: list[Hashable], after: list[Hashable]) -> int:
    """How many first items are equal."""
    count = 0
    while count < min(len(before), len(after)) and before[count] == after[count]:
        count += 1
    return count


def _blocks(before: list[Hashable], after: list[Hashable]) -> list[tuple[bool, int, int, int, int]]:
    """Stretches (equal, and where each begins and ends on both sides)."""
    if not before and not after:
        return []
    counts, others = Counter(before), Counter(after)
    if sum(count * others[key] for key, count in counts.items()) > MOST_CANDIDATES:
        return [(False, 0, len(before), 0, len(after))]
    opcodes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return [(tag == "equal", i, i_end, j, j_end) for tag, i, i_end, j, j_end in opcodes]
