"""The packed weights of an engine, in memory."""

import mmap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .artifact.dtypes import numpy_dtype
from .artifact.errors import ArtifactError
from .artifact.recipe import Tensor
from .artifact.safetensors_file import SafetensorsFile, TensorEntry
from .artifact.schema import Manifest
from .memory import allocate


@dataclass(frozen=True)
class Weights:
    """One version of the weights: replaced as a whole, never changed."""

    memory: np.ndarray
    """uint8: the weight file's bytes, or a copy with the same offsets."""
    entries: Mapping[str, TensorEntry]
    version: int

    def tensor(self, name: str) -> Tensor:
        """A read-only view of a packed weight."""
        entry = self.entries[name]
        values = self.memory[entry.start : entry.stop].view(numpy_dtype(entry.dtype)).reshape(entry.shape)
        values.flags.writeable = False
        return Tensor(values, entry.dtype)

    @property
    def offsets(self) -> dict[str, int]:
        return {name: entry.start for name, entry in self.entries.items()}


def open_weights(path: Path, manifest: Manifest, huge_pages: bool = False) -> Weights:
    """Map the weight file, or copy it to huge pages; of an engine with random weights it holds the constants alone.
    Raises ArtifactError if it is not what the manifest declares.
    """
    file = SafetensorsFile(path, ArtifactError)
    for entry in manifest.weights:
        if manifest.random_weights is not None and entry.recipe is not None:
            continue
        found = file.entries.get(entry.name)
        if found is None or (found.dtype, found.shape) != (entry.dtype, entry.shape):
            got = f"{found.dtype}{list(found.shape)}" if found else "nothing"
            raise ArtifactError(
                f"{path} must hold {entry.name} as {entry.dtype}{list(entry.shape)}, got {got}; "
                "compile the engine again"
            )
    memory: np.ndarray = np.frombuffer(file.map, np.uint8)
    if huge_pages:
        copy = allocate(memory.size)
        copy[:] = memory
        return Weights(copy, file.entries, 0)
    # Advice only; some file systems cannot follow it.
    with suppress(OSError):
        file.map.madvise(mmap.MADV_WILLNEED)
    return Weights(memory, file.entries, 0)
