"""Which named thing of one side is which of the other: by what it is first, then by what it is called."""

import re
from collections import defaultdict, deque
from collections.abc import Mapping


def matched_names(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Each name of ``after`` to the name to show it by; both map names to all that counts about the thing.

    A thing takes the name of its counterpart in ``before``: the one with its name if that is the same in all else, or
    another that is, or the one with its name. One without a counterpart keeps its own name, marked where it is taken.
    """
    shown = {name: name for name, thing in after.items() if before.get(name) == thing}
    left: dict[str, deque[str]] = defaultdict(deque)
    for name, thing in before.items():
        if name not in shown:
            left[thing].append(name)
    for name, thing in after.items():
        if name not in shown and left[thing]:
            shown[name] = left[thing].popleft()
    used = set(shown.values())
    for name in after:
        if name not in shown:
            shown[name] = name if name not in used else f"{name}'"
    return shown


def same_but_for_numbers(one: str, other: str) -> bool:
    """Whether two names differ in nothing but their digits and the dots or underscores before them."""
    return re.sub(r"[._]?\d+", "", one) == re.sub(r"[._]?\d+", "", other)
