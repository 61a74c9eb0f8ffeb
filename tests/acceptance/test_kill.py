"""A compile that is killed over an existing engine leaves the old engine or the new one, whole."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.checkpoints import make_checkpoint
from tests.engines import compile_engine, engine_contents
from tests.project.sources import ROOT

ROUNDS = 6

COMPILE = """
import sys
from pathlib import Path
from tests.engines import compile_engine
from tests.project.sources import ROOT
print("ready", flush=True)
compile_engine(Path(sys.argv[1]), Path(sys.argv[2]))
"""

PUBLISH = """
import shutil, sys
from pathlib import Path
from xllmc.runtime.artifact.publish import publish
old, new, target = map(Path, sys.argv[1:])
print("ready", flush=True)
while True:
    for source in (old, new):
        with publish(target, lambda path: True) as aside:
            shutil.copytree(source, aside, dirs_exist_ok=True)
"""


@pytest.fixture(scope="module")
def engines(checkpoint, engine_dir, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The old engine, another checkpoint of the same model, and the engine compiled from it."""
    directory = tmp_path_factory.mktemp("kill")
    other = make_checkpoint("gpt2", directory / "other", seed=1)
    return engine_dir("gpt2", "fp32"), other, compile_engine(other, directory / "new.engine")


def kill_after(seconds: float, *command: str | Path) -> bool:
    """Start a script, wait until it is ready, and kill it after ``seconds``. Whether it was still running."""
    process = subprocess.Popen([sys.executable, "-c", *map(str, command)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    process.kill()
    process.stdout.close()
    return process.wait() == -signal.SIGKILL


def test_a_killed_compile_leaves_the_old_engine_or_the_new(engines: tuple[Path, Path, Path], tmp_path: Path):
    old, other, new = engines
    wholes = [engine_contents(old), engine_contents(new)]
    target = tmp_path / "target.engine"
    shutil.copytree(old, target)
    began = time.monotonic()
    compile_engine(other, tmp_path / "timed.engine")
    duration = time.monotonic() - began
    moments = random.Random(0)
    killed = 0
    for number in range(ROUNDS):
        killed += kill_after(duration * (number + moments.random()) / ROUNDS, COMPILE, other, target)
        assert engine_contents(target) in wholes
    assert killed
    compile_engine(other, target)
    assert engine_contents(target) == wholes[1]
    left_over = {path.name for path in tmp_path.iterdir()}
    assert left_over == {"target.engine", "timed.engine"}


def test_a_kill_while_publishing_leaves_the_old_engine_or_the_new(engines: tuple[Path, Path, Path], tmp_path: Path):
    old, _, new = engines
    wholes = [engine_contents(old), engine_contents(new)]
    target = tmp_path / "target.engine"
    shutil.copytree(old, target)
    moments = random.Random(1)
    for _ in range(12):
        assert kill_after(moments.uniform(0, 0.3), PUBLISH, old, new, target)
        assert engine_contents(target) in wholes
