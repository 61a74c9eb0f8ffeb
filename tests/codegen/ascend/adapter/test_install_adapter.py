"""The adapter is taken out of its wheel, whole or not at all. Nothing is downloaded here."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from xllmc.codegen.ascend import install_adapter
from xllmc.codegen.ascend.adapter import KNOWN, find_adapter
from xllmc.codegen.ascend.install_adapter import DIGEST, MEMBER, download, extract, install
from xllmc.runtime.artifact.errors import XllmcError

CONTENT = b"#!/bin/sh\nexit 0\n"


def wheel_of(work: Path, members: dict[str, bytes]) -> Path:
    path = work / "triton_ascend-3.2.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_only_the_program_is_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(install_adapter, "DIGEST", hashlib.sha256(CONTENT).hexdigest())
    made = tmp_path / "bin"
    made.mkdir()
    asked: list[Path] = []

    def download_once(work: Path) -> Path:
        asked.append(work)
        return wheel_of(work, {MEMBER: CONTENT, "triton/__init__.py": b""})

    monkeypatch.setattr(install_adapter, "download", download_once)
    for _ in range(2):
        place = install(made)
    assert len(asked) == 1
    assert [path.name for path in made.iterdir()] == ["triton-adapter-opt"]
    assert place.read_bytes() == CONTENT and subprocess.run([place], check=True).returncode == 0


def test_another_program_is_not_put_in_place(tmp_path: Path):
    place = tmp_path / "triton-adapter-opt"
    place.write_bytes(b"before")
    wheel = wheel_of(tmp_path, {MEMBER: b"changed"})
    with pytest.raises(XllmcError, match=f"must have the SHA-256 {DIGEST}"):
        extract(wheel, place)
    assert place.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 2
    with pytest.raises(XllmcError, match="must hold triton/backends/ascend"):
        extract(wheel_of(tmp_path, {}), place)


def test_pip_is_asked_for_the_wheel_of_the_python_that_it_exists_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: no network\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(XllmcError, match=r"pip cannot download triton-ascend==3.2.0: ERROR: no network"):
        download(tmp_path)
    assert asked[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--python-version=3.11", "--only-binary=:all:", "triton-ascend==3.2.0"} <= set(asked[0])


def test_another_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(install_adapter.platform, "machine", lambda: "aarch64")
    with pytest.raises(XllmcError, match="requires Linux on x86-64, this is linux on aarch64"):
        install(tmp_path)


def test_the_program_in_use_is_left_alone():
    folder = find_adapter().path.parent
    before = (folder / "triton-adapter-opt").stat()
    assert KNOWN[find_adapter().digest] == "3.2.0"
    install(folder)
    assert (folder / "triton-adapter-opt").stat().st_mtime_ns == before.st_mtime_ns
