"""What the README tells a reader to type works: its shell and Python blocks run in the order they stand."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.project.sources import ROOT

LINKED = (".venv", "models", "Makefile", "constraints.txt", "pyproject.toml", "setup.py")


class Block(NamedTuple):
    language: str
    text: str


def blocks() -> list[Block]:
    found = re.findall(r"^```(sh|python)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [Block(*block) for block in found]


def commands(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the repository to a command, with a ``build`` of its own."""
    place = tmp_path_factory.mktemp("readme")
    for name in LINKED:
        if (ROOT / name).exists():
            (place / name).symlink_to(ROOT / name)
    return place


def test_the_readme_runs(folder: Path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    assert blocks()
    with ExitStack() as servers:
        for block in blocks():
            if block.language == "python":
                subprocess.run([sys.executable, "-c", block.text], check=True, cwd=folder, env=environment)
            for command in commands(block.text) if block.language == "sh" else ():
                # `make` targets take minutes or run this very test: that they exist is enough.
                dry = re.sub(r"^make ", "make --dry-run ", command)
                if dry.endswith("&"):
                    servers.enter_context(running(dry.rstrip("& "), folder, environment))
                    continue
                subprocess.run(["bash", "-euo", "pipefail", "-c", dry], check=True, cwd=folder, env=environment)


@contextmanager
def running(command: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """A server in the background, once it is ready; told to end at the end."""
    port = re.search(r"--port (\d+)", command)
    assert port is not None
    with subprocess.Popen(command.split(), cwd=folder, env=environment) as process:
        while process.poll() is None and status(f"http://127.0.0.1:{port[1]}/ready") != 200:
            time.sleep(0.05)
        assert process.poll() is None, "the server ended at once"
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(60) == 0


def status(url: str) -> int | None:
    """None where nobody answers."""
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return None


def test_the_graph_that_the_readme_shows_is_the_compilers(folder: Path):
    """Runs after the blocks, which compile build/draft.engine."""
    graph = (folder / "build" / "draft.engine" / "graph" / "fused.txt").read_text()
    shown = re.search(r"^```text\n(%.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert shown is not None
    for statement in re.sub(r"\s*\\\n\s*", " ", shown[1]).splitlines():
        assert statement in graph


def test_the_pass_that_the_readme_shows_is_the_one_that_runs():
    shown = re.search(r"^```py\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert shown[1] in (ROOT / "passes" / "fuse_add_rms_norm.py").read_text()


def test_every_make_target_of_the_readme_is_in_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named - targets == set()
