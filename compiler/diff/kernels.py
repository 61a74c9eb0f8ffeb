"""Generated kernel sources, taken apart into kernels and compared kernel by kernel."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple

from .changes import Row, Text, paired

KERNEL = re.compile(r"XLLMC_EXPORT void (\w+)\(")
SHARED = "(shared)"
"""The key under which stands what is outside of all kernels: includes, and functions that several use."""
HASH = re.compile(r"_[0-9a-f]{8}$")
ALIKE = 0.5
"""Share of common text from which a vanished and a new generated loop count as one that changed."""


def kernels_of(source: str) -> dict[str, str]:
    """Kernel name to its text, signature to closing brace. Comments of their own line say nothing and are left out."""
    kernels: dict[str, list[str]] = {SHARED: []}
    current = SHARED
    for line in source.splitlines():
        if match := KERNEL.match(line):
            current = match[1]
            kernels[current] = []
        elif line.startswith("//") or not line.strip():
            continue
        kernels[current].append(line)
        if line == "}":
            current = SHARED
    return {name: "\n".join(lines) for name, lines in kernels.items() if lines}


class Moved(NamedTuple):
    """A kernel on both sides, on one, or under another name after."""

    before: str | None
    after: str | None


@dataclass(frozen=True)
class KernelChange:
    """What became of one kernel."""

    before: str | None
    after: str | None
    """Its name on either side; None where it is not."""
    kind: str
    """``added``, ``removed``, ``changed`` (its source) or ``launches`` (only how often it runs)."""
    launches_before: int
    launches_after: int
    source: Text

    @property
    def name(self) -> str:
        if self.before and self.after and self.before != self.after:
            return f"{self.before} -> {self.after}"
        return self.after or self.before or ""


def compare_kernels(
    before: Mapping[str, str], after: Mapping[str, str], launches: tuple[Mapping[str, int], Mapping[str, int]]
) -> list[KernelChange]:
    """The kernels that differ in source or in launches, by name. A generated loop is named by a hash of its text: one
    that vanished and a new one of its kind, mostly the same text, are one that changed.
    """
    changes = []
    for old, new in _moves(before, after):
        text = before.get(old or "", ""), after.get(new or "", "")
        counts = launches[0].get(old or "", 0), launches[1].get(new or "", 0)
        if text[0] != text[1]:
            kind = "added" if old is None else "removed" if new is None else "changed"
        elif counts[0] != counts[1]:
            kind = "launches"
        else:
            continue
        shown = Text(new or old or "", source_rows(*text))
        changes.append(KernelChange(old, new, kind, *counts, shown))
    return sorted(changes, key=lambda c: c.after or c.before or "")


def source_rows(before: str, after: str) -> tuple[Row, ...]:
    """Two texts beside each other, line by line."""
    old, new = before.splitlines(), after.splitlines()
    rows: list[Row] = []
    for tag, i, i_end, j, j_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            rows += [Row(line, line, same=True) for line in old[i:i_end]]
        else:
            rows += paired(old[i:i_end], new[j:j_end])
    return tuple(rows)


def _moves(before: Mapping[str, str], after: Mapping[str, str]) -> list[Moved]:
    moves = [Moved(name, name) for name in before if name in after]
    gone = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    likeness = {
        (old, name): SequenceMatcher(None, before[old], after[name], autojunk=False).ratio()
        for old in gone
        for name in new
        if HASH.search(old) and HASH.search(name) and HASH.sub("", old) == HASH.sub("", name)
    }
    for (old, name), ratio in sorted(likeness.items(), key=lambda item: (-item[1], item[0])):
        if ratio >= ALIKE and old in gone and name in new:
            moves.append(Moved(old, name))
            gone.remove(old)
            new.remove(name)
    return [*moves, *(Moved(name, None) for name in gone), *(Moved(None, name) for name in new)]
