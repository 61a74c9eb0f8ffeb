"""Fresh environments, the warm command line that they share, and mypy as ``make lint`` runs it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.environment import READY, Environment, Mypy, NewEnvironment
from tests.project.sources import ROOMS, ROOT


@pytest.fixture(scope="session")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewEnvironment]:
    """Makes an environment in which xllmc is installed, and no plugin."""
    address = str(tmp_path_factory.mktemp("warm") / "door")
    command = [sys.executable, "-m", "tests.plugins.warm", address]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as warm:
        assert warm.stdout is not None
        assert warm.stdout.readline().strip() == READY
        yield lambda: Environment(Path(tmp_path_factory.mktemp("environment")), address)
        warm.kill()


@pytest.fixture(scope="session")
def mypy() -> Mypy:
    """(A folder of sources, arguments that name what of it) to nothing, or an assertion that quotes mypy."""
    links = ROOT / "build" / "mypy" / "xllmc"
    links.mkdir(parents=True, exist_ok=True)
    for room in ROOMS:
        if not (links / room).exists():
            (links / room).symlink_to(Path("..", "..", "..", room))

    def check(sources: Path, *arguments: str) -> None:
        variables = os.environ | {"MYPYPATH": f"build/mypy{os.pathsep}{sources}"}
        command = [sys.executable, "-m", "mypy", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=variables)
        assert done.returncode == 0, done.stdout + done.stderr

    return check
