"""Safetensors files without torch: a reader over a memory map, and a writer that holds one tensor at a time."""

import json
import math
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from .dtypes import ITEM_BYTES, SAFETENSORS, numpy_dtype
from .errors import ArtifactError, CheckpointError, XllmcError
from .recipe import Tensor

ALIGNMENT = 64
"""Of the first tensor's byte in files we write: a cache line, and a 512-bit vector."""
_HEADER_LIMIT = 100_000_000
"""From the format's specification."""
_NAMES = {short: name for name, short in SAFETENSORS.items()}


class TensorEntry(NamedTuple):
    """Where one tensor lies: ``start`` and ``stop`` count bytes from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class TensorLayout(NamedTuple):
    """A tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


class Sink(Protocol):
    """Where bytes are written."""

    def write(self, data: bytes | memoryview, /) -> int: ...


class SafetensorsFile:
    """The tensors of one file, as read-only views of its memory map.

    A damaged file raises ``error``: a CheckpointError, or the ArtifactError of an engine's own weights.
    """

    def __init__(self, path: Path, error: type[XllmcError] = CheckpointError) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                if size < 8:
                    raise error(
                        f"{path} is truncated: a safetensors file has at least 8 bytes, got {size}; {_way_out(error)}"
                    )
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as problem:
            raise error(f"{path} cannot be read: {problem.strerror}") from problem
        self.entries: Mapping[str, TensorEntry] = _parse_header(path, self.map, error)

    def __getitem__(self, name: str) -> Tensor:
        entry = self.entries[name]
        values: np.ndarray = np.frombuffer(
            self.map, numpy_dtype(entry.dtype), count=math.prod(entry.shape), offset=entry.start
        )
        return Tensor(values.reshape(entry.shape), entry.dtype)


def _way_out(error: type[XllmcError]) -> str:
    return "copy or compile the engine again" if error is ArtifactError else "fetch it again"


def _parse_header(path: Path, data: mmap.mmap, error: type[XllmcError]) -> dict[str, TensorEntry]:
    length = int.from_bytes(data[:8], "little")
    if length > _HEADER_LIMIT:
        raise error(f"{path} is not a safetensors file: its header would have {length} bytes; {_way_out(error)}")
    base = 8 + length
    if base > len(data):
        raise error(f"{path} is truncated: its header needs {base} bytes, the file has {len(data)}; {_way_out(error)}")
    try:
        header = json.loads(data[8:base].decode())
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} has a damaged safetensors header ({problem}); {_way_out(error)}") from problem
    if not isinstance(header, dict):
        raise error(f"{path} has a damaged safetensors header (not an object); {_way_out(error)}")
    header.pop("__metadata__", None)
    entries = sorted((_entry(path, name, info, base, error) for name, info in header.items()), key=lambda e: e[3:])
    position = base
    for entry in entries:
        if entry.start != position:
            fault = "overlaps another" if entry.start < position else "leaves a hole before it"
            raise error(
                f"{path} is damaged: tensor {entry.name} {fault} (byte {entry.start - base}); {_way_out(error)}"
            )
        position = entry.stop
    if position != len(data):
        fault = "truncated" if position > len(data) else "damaged: bytes follow the last tensor"
        raise error(
            f"{path} is {fault}: its header describes {position} bytes, the file has {len(data)}; {_way_out(error)}"
        )
    return {entry.name: entry for entry in entries}


def _entry(path: Path, name: str, info: Any, base: int, error: type[XllmcError]) -> TensorEntry:
    try:
        dtype, shape, (start, stop) = info["dtype"], tuple(info["shape"]), info["data_offsets"]
    except (TypeError, KeyError, ValueError) as problem:
        raise error(f"{path} has a damaged entry for tensor {name}; {_way_out(error)}") from problem
    if not isinstance(dtype, str):
        raise error(f"{path} has a damaged dtype for tensor {name}; {_way_out(error)}")
    if dtype not in SAFETENSORS:
        known = ", ".join(SAFETENSORS)
        raise error(f"tensor {name} of {path} must have one of the dtypes {known}, got {dtype}; dequantise it first")
    if not all(type(number) is int and number >= 0 for number in (*shape, start, stop)):
        raise error(f"{path} has a damaged shape or offsets for tensor {name}; {_way_out(error)}")
    expected = math.prod(shape) * ITEM_BYTES[SAFETENSORS[dtype]]
    if stop - start != expected:
        raise error(
            f"tensor {name} of {path} must have {expected} bytes, got offsets {start} to {stop}; {_way_out(error)}"
        )
    return TensorEntry(name, SAFETENSORS[dtype], shape, base + start, base + stop)


def tensor_bytes(values: np.ndarray) -> memoryview:
    """The bytes of an array in row-major order, without a copy when they lie so already."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def aligned_order(layouts: Iterable[TensorLayout]) -> list[TensorLayout]:
    """Tensors of whole cache lines first, wide element types before narrow ones: so each is as aligned as can be,
    for the format allows no holes.
    """
    return sorted(layouts, key=lambda t: (t.bytes % ALIGNMENT != 0, -ITEM_BYTES[t.dtype]))


def write_safetensors(
    file: Sink, layouts: Iterable[TensorLayout], produce: Callable[[TensorLayout], Tensor]
) -> Iterator[TensorLayout]:
    """Write ``layouts`` in ``aligned_order``, asking ``produce`` for one tensor at a time; yields each when written.

    Raises ValueError when a produced tensor is not of the layout's dtype and shape.
    """
    ordered = aligned_order(layouts)
    header: dict[str, Any] = {}
    position = 0
    for layout in ordered:
        header[layout.name] = {
            "dtype": _NAMES[layout.dtype],
            "shape": list(layout.shape),
            "data_offsets": [position, position + layout.bytes],
        }
        position += layout.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for layout in ordered:
        tensor = produce(layout)
        if tensor.dtype != layout.dtype or tuple(tensor.values.shape) != layout.shape:
            raise ValueError(
                f"tensor {layout.name} was announced as {layout.dtype}{list(layout.shape)}, "
                f"got {tensor.dtype}{list(tensor.values.shape)}"
            )
        file.write(tensor_bytes(tensor.values))
        yield layout
