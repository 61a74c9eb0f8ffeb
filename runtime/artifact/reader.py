"""Reads and checks an engine directory. Opening one runs and unpickles nothing."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .consistency import faults
from .errors import ArtifactError
from .schema import ABI_VERSION, SCHEMA_VERSION, FileEntry, Manifest, Plan
from .version import xllmc_version
from .writer import BLANK_DIGEST, MANIFEST, PLAN

_DIGEST = re.compile(rb'"digest": "([0-9a-f]{64})"')


def read_manifest(path: Path, libraries: bool = True) -> Manifest:
    """The manifest of the engine ``path``, after checks that take milliseconds: its own digest, the versions, that its
    parts belong together, and that every file is there with its size. ``libraries`` False: its kernel libraries may be
    missing or damaged. Raises ArtifactError.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise ArtifactError(f"{path} is not an engine directory: it has no {MANIFEST}; make one with xllmc compile")
    try:
        raw = file.read_bytes()
        data = json.loads(raw)
    except OSError as problem:
        raise ArtifactError(f"{file} cannot be read: {problem.strerror}; check its permissions") from problem
    except (ValueError, RecursionError) as problem:
        raise ArtifactError(f"{file} is truncated or corrupted ({problem}); compile the engine again") from problem
    _check_versions(path, data)
    _check_digest(file, raw)
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as problem:
        raise ArtifactError(f"{file} is not a valid manifest: {_first(problem)}; compile the engine again") from problem
    if fault := next(faults(manifest), None):
        raise ArtifactError(f"{file} is not a valid manifest: {fault}; compile the engine again")
    for entry in _entries(manifest, libraries):
        _check_size(path, entry)
    return manifest


def read_plan(path: Path) -> Plan:
    """The launch plan of an engine whose manifest has been read."""
    try:
        return Plan.model_validate_json((path / PLAN).read_bytes())
    except (OSError, ValidationError) as problem:
        reason = _first(problem) if isinstance(problem, ValidationError) else problem.strerror
        raise ArtifactError(f"{path / PLAN} is damaged: {reason}; compile the engine again") from problem


def check_files(
    path: Path,
    manifest: Manifest,
    checked: Callable[[FileEntry], None] = lambda entry: None,
    libraries: bool = True,
) -> None:
    """Hash every file, kernel ``libraries`` or not, and compare with the manifest. ``checked`` is called after each.
    Raises ArtifactError.
    """
    for entry in _entries(manifest, libraries):
        _check_size(path, entry)
        with (path / entry.path).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry.sha256:
            raise ArtifactError(
                f"{path / entry.path} is corrupted: its SHA-256 must be {entry.sha256}, got {found}; "
                "copy or compile the engine again"
            )
        checked(entry)


def _entries(manifest: Manifest, libraries: bool) -> tuple[FileEntry, ...]:
    left_out = set() if libraries else {library.path for library in manifest.kernels}
    return tuple(entry for entry in manifest.files if entry.path not in left_out)


def _check_versions(path: Path, data: Any) -> None:
    if not isinstance(data, dict) or not {"schema_version", "abi_version", "digest"} <= data.keys():
        raise ArtifactError(f"{path / MANIFEST} is not the manifest of an engine; compile the engine again")
    maker = data.get("xllmc")
    for key, ours in (("schema_version", SCHEMA_VERSION), ("abi_version", ABI_VERSION)):
        theirs = data[key]
        if type(theirs) is not int:
            raise ArtifactError(
                f"{path / MANIFEST} must have a whole number as {key}, got {theirs!r}; compile the engine again"
            )
        if theirs == ours:
            continue
        newer = theirs > ours
        way_out = f"install xllmc >= {maker}" if newer else f"install xllmc == {maker}"
        raise ArtifactError(
            f"{path} was made by {'a newer' if newer else 'an older'} xllmc, {maker}, with {key} {theirs}; "
            f"xllmc {xllmc_version()} reads {key} {ours}: compile the engine again with this version, or {way_out}"
        )


def _check_digest(file: Path, raw: bytes) -> None:
    match = _DIGEST.search(raw)
    blanked = raw[: match.start(1)] + BLANK_DIGEST.encode() + raw[match.end(1) :] if match else b""
    if not match or hashlib.sha256(blanked).hexdigest().encode() != match.group(1):
        raise ArtifactError(f"{file} is corrupted: it does not match its own digest; copy or compile the engine again")


def _check_size(path: Path, entry: FileEntry) -> None:
    try:
        size = (path / entry.path).stat().st_size
    except OSError as problem:
        raise ArtifactError(
            f"{path} lacks the file {entry.path} ({problem.strerror}); copy or compile the engine again"
        ) from problem
    if size != entry.bytes:
        raise ArtifactError(
            f"{path / entry.path} must have {entry.bytes} bytes, got {size}; copy or compile the engine again"
        )


def _first(problem: ValidationError) -> str:
    error = problem.errors()[0]
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
