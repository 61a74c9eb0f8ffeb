"""What a comparison finds: named facts that changed, and texts side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

CONTEXT = 3
"""Unchanged lines shown around a changed one."""


class Change(NamedTuple):
    """One fact. None: that side does not have it."""

    what: str
    before: str | None
    after: str | None


class Row(NamedTuple):
    """One line of either side, beside each other. None: no line there."""

    before: str | None
    after: str | None
    same: bool


@dataclass(frozen=True)
class Facts:
    """Facts of one kind that changed."""

    title: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Text:
    """Two versions of one text, whole; ``same`` rows are what they share."""

    title: str
    rows: tuple[Row, ...]

    @property
    def changed(self) -> int:
        return sum(not row.same for row in self.rows)

    def unified(self, context: int = CONTEXT) -> list[str]:
        """Lines of a unified diff, without its two head lines; empty where nothing changed."""
        lines: list[str] = []
        for first, last in hunks(self.rows, context):
            before, after = (sum(r[side] is not None for r in self.rows[:first]) for side in (0, 1))
            hunk = self.rows[first:last]
            counts = [sum(r[side] is not None for r in hunk) for side in (0, 1)]
            lines.append(f"@@ -{_span(before, counts[0])} +{_span(after, counts[1])} @@ {self.title}")
            lines += _hunk_lines(hunk)
        return lines


def _span(lines_before: int, count: int) -> str:
    return f"{lines_before + bool(count)},{count}"


def _hunk_lines(rows: Sequence[Row]) -> Iterator[str]:
    removed: list[str] = []
    added: list[str] = []
    for row in rows:
        if row.same:
            yield from (*removed, *added, f" {row.after}")
            removed, added = [], []
            continue
        removed += [] if row.before is None else [f"-{row.before}"]
        added += [] if row.after is None else [f"+{row.after}"]
    yield from (*removed, *added)


def hunks(rows: Sequence[Row], context: int) -> list[tuple[int, int]]:
    """Ranges of rows that hold every change and ``context`` rows around it."""
    ranges: list[tuple[int, int]] = []
    for place, row in enumerate(rows):
        if row.same:
            continue
        first, last = max(0, place - context), min(len(rows), place + context + 1)
        if ranges and first <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], last)
        else:
            ranges.append((first, last))
    return ranges


@dataclass(frozen=True)
class Comparison:
    """All that was compared, in the order to show it; parts in which nothing changed are left out."""

    before: str
    after: str
    """What the two sides are called."""
    facts: tuple[Facts, ...]
    texts: tuple[Text, ...]

    @property
    def equal(self) -> bool:
        return not self.facts and not self.texts

    def to_json(self) -> dict[str, Any]:
        return {
            "before": self.before,
            "after": self.after,
            "equal": self.equal,
            "facts": {part.title: [change._asdict() for change in part.changes] for part in self.facts},
            "texts": {part.title: part.unified() for part in self.texts},
        }


def changed_facts(title: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Facts:
    """The keys whose values differ, or that one side lacks: those of ``before`` first."""
    return Facts(
        title,
        tuple(
            Change(key, _shown(before.get(key)), _shown(after.get(key)))
            for key in dict.fromkeys([*before, *after])
            if key not in before or key not in after or before[key] != after[key]
        ),
    )


def _shown(value: Any) -> str | None:
    return None if value is None else str(value)


def paired(before: Sequence[str], after: Sequence[str]) -> Iterator[Row]:
    """Changed lines beside each other; the longer side's rest stands alone."""
    for old, new in zip_longest(before, after):
        yield Row(old, new, same=False)
