"""The wheel of ``xllmc`` installs without torch, is complete, and runs an engine."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.project.sources import ROOMS, ROOT, files

PACKAGE_DATA = {
    "codegen": (".h", ".j2", ".cpp", ".json"),
    "compiler": (".css", ".j2", ".js"),
    "models": (".json", ".safetensors", ".jinja", ".md"),
    "passes": (".md",),
}


def run(*command: str | Path, **options) -> str:
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert result.returncode == 0, f"{command} failed:\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that no earlier build's files can slip in."""
    source = tmp_path_factory.mktemp("source")
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, source)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def clean_bin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of a new environment that holds the wheel and what it depends on."""
    home = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", home)
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
    return home / "bin"


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}


def test_the_wheel_holds_every_module_and_data_file(wheel: Path):
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"xllmc/{path}" for path in files(".py", folders=ROOMS)}
    for room, suffixes in PACKAGE_DATA.items():
        expected |= {f"xllmc/{path}" for path in files(*suffixes, folders=(room,))}
    assert expected - held == set()


def test_the_runtime_installs_without_torch(clean_bin: Path):
    listed = json.loads(run(sys.executable, "-m", "pip", "--python", clean_bin / "python", "list", "--format=json"))
    names = {entry["name"].lower() for entry in listed}
    assert "xllmc" in names
    assert names.isdisjoint({"torch", "transformers", "triton"})


def test_the_installed_command_says_its_version(clean_bin: Path, tmp_path: Path):
    printed = run(clean_bin / "xllmc", "--version", cwd=tmp_path, env=clean_environment())
    assert "0.1.0" in printed


def test_the_installed_command_runs_an_engine_without_torch(clean_bin: Path, engine_dir, tmp_path: Path):
    shutil.copytree(engine_dir("qwen3", "bf16"), tmp_path / "tiny.engine")
    command = ("generate", "tiny.engine", "--prompt", "def", "--max-tokens", "4", "--temperature", "0", "--json")
    printed = run(clean_bin / "xllmc", *command, cwd=tmp_path, env=clean_environment())
    assert json.loads(printed)


def test_building_commands_without_their_extra_say_what_to_install(clean_bin: Path, tmp_path: Path):
    result = subprocess.run(
        [clean_bin / "xllmc", "compile", tmp_path, "-o", tmp_path / "out.engine"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean_environment(),
    )
    assert result.returncode == 2
    assert "xllmc[compile]" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
