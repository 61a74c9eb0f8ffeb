"""Writes an engine directory, one file or one tensor at a time, and publishes it whole."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .publish import publish
from .recipe import Tensor
from .safetensors_file import TensorLayout, write_safetensors
from .schema import FileEntry, Manifest, Plan, WeightEntry

MANIFEST = "manifest.json"
PLAN = "plan.json"
MEASURED = "measured.json"
WEIGHTS = "weights.safetensors"
BLANK_DIGEST = "0" * 64


@contextmanager
def write_engine(path: Path) -> Iterator["EngineWriter"]:
    """Write the engine ``path``: add files and weights inside the block, end it with ``finish``.

    Nothing is seen at ``path`` before the block ends, and nothing is left when it fails. An engine that is there is
    replaced; any other directory raises ArtifactError.
    """
    with publish(path, is_engine) as directory:
        writer = EngineWriter(directory)
        yield writer
        if not writer.finished:
            raise ValueError("an engine must be ended with EngineWriter.finish")


def is_engine(path: Path) -> bool:
    """Whether the directory looks like an engine, of any version, perhaps a damaged one."""
    try:
        with (path / MANIFEST).open("rb") as file:
            return b'"abi_version"' in file.read(256)
    except OSError:
        return False


class EngineWriter:
    """The files of one engine, hashed as they are written. Paths are relative, with forward slashes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: list[FileEntry] = []
        self.finished = False

    def add_bytes(self, path: str, data: bytes) -> None:
        with self._create(path) as file:
            file.write(data)

    def add_text(self, path: str, text: str) -> None:
        self.add_bytes(path, text.encode())

    def add_file(self, path: str, source: Path) -> None:
        """Copy ``source``."""
        with source.open("rb") as original, self._create(path) as file:
            while block := original.read(1 << 20):
                file.write(block)

    def add_weights(
        self,
        entries: Iterable[WeightEntry],
        produce: Callable[[WeightEntry], Tensor],
        written: Callable[[WeightEntry], None] = lambda entry: None,
    ) -> None:
        """Write ``weights.safetensors``. ``produce`` is asked for one packed tensor at a time, in an order of the
        writer's choosing (for alignment); ``written`` is called after each, for progress.
        """
        by_name = {entry.name: entry for entry in entries}
        layouts = [TensorLayout(entry.name, entry.dtype, entry.shape) for entry in by_name.values()]
        with self._create(WEIGHTS) as file:
            for layout in write_safetensors(file, layouts, lambda wanted: produce(by_name[wanted.name])):
                written(by_name[layout.name])

    def finish(self, manifest: Manifest, plan: Plan, measured: Mapping[str, Any] | None = None) -> Manifest:
        """Write ``plan.json``, ``measured.json`` and last ``manifest.json``; returns the manifest with the list of
        files and its digest. ``measured`` (times, costs) is outside of the reproducible set.
        """
        self.add_text(PLAN, canonical_json(plan.model_dump(mode="json")))
        if measured is not None:
            (self._directory / MEASURED).write_text(canonical_json(measured))
        present = {entry.path for entry in self._files}
        for needed in (WEIGHTS, *(k.path for k in manifest.kernels), *manifest.graphs.values()):
            if needed not in present:
                raise ValueError(f"the manifest refers to {needed}, which was not added to the engine")
        files = tuple(sorted(self._files, key=lambda entry: entry.path))
        blank = manifest.model_copy(update={"files": files, "digest": BLANK_DIGEST})
        text = canonical_json(blank.model_dump(mode="json"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        (self._directory / MANIFEST).write_text(text.replace(BLANK_DIGEST, digest, 1))
        self.finished = True
        return blank.model_copy(update={"digest": digest})

    @contextmanager
    def _create(self, path: str) -> Iterator["_HashedFile"]:
        if Path(path).is_absolute() or ".." in Path(path).parts or path in (MANIFEST, MEASURED):
            raise ValueError(f"{path!r} cannot be the name of an engine's file")
        if any(entry.path == path for entry in self._files):
            raise ValueError(f"{path} was already added to the engine")
        place = self._directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as raw:
            file = _HashedFile(raw.write)
            yield file
        self._files.append(FileEntry(path=path, bytes=file.size, sha256=file.digest.hexdigest()))


class _HashedFile:
    def __init__(self, sink: Callable[[bytes | memoryview], int]) -> None:
        self._sink = sink
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview, /) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._sink(data)


def canonical_json(data: Any) -> str:
    """One text for one value: sorted keys, fixed indentation, a final newline."""
    return json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
