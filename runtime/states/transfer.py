"""What must happen to the memory of states before a step runs; recorded while scheduling, carried out in order."""

from typing import NamedTuple


class CopyPage(NamedTuple):
    """Within one group's pages."""

    group: int
    source: int
    target: int


class StorePage(NamedTuple):
    """From a group's pages to a slot of the host's other memory."""

    group: int
    page: int
    slot: int


class LoadPage(NamedTuple):
    """Back from there."""

    group: int
    slot: int
    page: int


class MoveTokens(NamedTuple):
    """Single positions: each source is read before any target is written. A slot is page * page_tokens + place."""

    group: int
    sources: tuple[int, ...]
    targets: tuple[int, ...]


Transfer = CopyPage | StorePage | LoadPage | MoveTokens
