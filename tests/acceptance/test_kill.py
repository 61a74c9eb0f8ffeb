"""A compile that is killed over an existing engine leaves the old engine or the new one, whole."""

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.checkpoints import make_checkpoint
from tests.engines import compile_engine, engine_contents
from tests.project.sources import ROOT

ROUNDS = 6

COMPILE = """
import os, signal, sys, time
from pathlib import Path
from tests.engines import compile_engine
model, target = map(Path, sys.argv[1:])
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            compile_engine(model, target)
        finally:
            os._exit(0)
    time.sleep(float(line))
    os.kill(child, signal.SIGKILL)
    print(os.WIFSIGNALED(os.waitpid(child, 0)[1]), flush=True)
"""
"""Compiles in a fork that it kills after as many seconds as each line says, so that torch is imported only once."""

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


@contextmanager
def script(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A Python script that has said it is ready; killed in the end."""
    arguments = [sys.executable, "-c", *map(str, command)]
    with subprocess.Popen(arguments, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_a_killed_compile_leaves_the_old_engine_or_the_new(engines: tuple[Path, Path, Path], tmp_path: Path):
    old, other, new = engines
    wholes = [engine_contents(old), engine_contents(new)]
    assert wholes[0] != wholes[1]
    target = tmp_path / "target.engine"
    shutil.copytree(old, target)
    began = time.monotonic()
    compile_engine(other, tmp_path / "timed.engine")
    duration = time.monotonic() - began
    moments = random.Random(0)
    killed = 0
    with script(COMPILE, other, target) as process:
        assert process.stdin is not None and process.stdout is not None
        for number in range(ROUNDS):
            process.stdin.write(f"{duration * (number + moments.random()) / ROUNDS}\n")
            process.stdin.flush()
            killed += process.stdout.readline() == "True\n"
            assert engine_contents(target) in wholes
    assert killed
    compile_engine(other, target)
    assert engine_contents(target) == wholes[1]
    assert {path.name for path in tmp_path.iterdir()} == {"target.engine", "timed.engine"}


def test_a_kill_while_publishing_leaves_the_old_engine_or_the_new(engines: tuple[Path, Path, Path], tmp_path: Path):
    old, _, new = engines
    wholes = [engine_contents(old), engine_contents(new)]
    target = tmp_path / "target.engine"
    shutil.copytree(old, target)
    moments = random.Random(1)
    for _ in range(12):
        with script(PUBLISH, old, new, target):
            time.sleep(moments.uniform(0, 0.3))
        assert engine_contents(target) in wholes
