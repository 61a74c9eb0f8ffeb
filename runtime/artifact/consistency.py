"""Whether the parts of a manifest belong together: cheap checks beyond the types of its fields."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from .dtypes import ITEM_BYTES
from .pages import PAGE_TOKENS, page_bytes
from .schema import Manifest, StateEntry
from .writer import PLAN, WEIGHTS

_LARGEST = (1 << 31) - 1


def faults(manifest: Manifest) -> Iterator[str]:
    """What the manifest must say and does not, one line each."""
    yield from _path_faults(manifest)
    for name in ("vocab_size", "max_context"):
        value = getattr(manifest.model, name)
        if not 1 <= value <= _LARGEST:
            yield f"{name} must be from 1 to {_LARGEST}, got {value}"
    for i, group in enumerate(manifest.groups):
        if group.index != i:
            yield f"state group {i} must have its place as index, got {group.index}"
        if group.page_tokens != PAGE_TOKENS:
            yield f"pages must have {PAGE_TOKENS} tokens, got {group.page_tokens}"
        if group.window is not None and group.window < 1:
            yield f"a window must be of at least 1 position, got {group.window}"
    for state in manifest.states:
        yield from _state_faults(state, len(manifest.groups))


def _path_faults(manifest: Manifest) -> Iterator[str]:
    paths = [entry.path for entry in manifest.files]
    for path in paths:
        relative = PurePosixPath(path)
        if not path or "\0" in path or relative.is_absolute() or ".." in relative.parts:
            yield f"it must name files inside of the engine, got {path!r}"
    for path in (PLAN, WEIGHTS, *(library.path for library in manifest.kernels), *manifest.graphs.values()):
        if path not in paths:
            yield f"its files must include {path!r}"


def _state_faults(state: StateEntry, groups: int) -> Iterator[str]:
    if not 0 <= state.group < groups:
        yield f"state {state.name} must be of one of the {groups} groups, got {state.group}"
    if state.dtype not in ITEM_BYTES:
        yield f"state {state.name} must have a known dtype, got {state.dtype}"
    elif state.page_bytes != (expected := page_bytes(state.kv_heads, state.key_dim, state.value_dim, state.dtype)):
        yield f"a page of state {state.name} must have {expected} bytes, got {state.page_bytes}"
    elif expected < 1:
        yield f"state {state.name} must have heads of at least 1 element"
