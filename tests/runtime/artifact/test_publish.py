import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from xllmc.runtime.artifact import publish as module
from xllmc.runtime.artifact.errors import ArtifactError
from xllmc.runtime.artifact.publish import publish


def always(_: Path) -> bool:
    return True


def write(target: Path, text: str) -> None:
    with publish(target, always) as aside:
        (aside / "deep").mkdir()
        (aside / "deep/one").write_text(text)
        (aside / "two").write_text(text)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("exchange", [True, False])
def test_publishing_replaces_whole_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(module, "_exchange", lambda first, second: False)
    target = tmp_path / "new" / "x.engine"
    for text in ("old", "new"):
        write(target, text)
        assert (target / "deep/one").read_text() == (target / "two").read_text() == text
    assert names(target.parent) == {"x.engine"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    write(tmp_path / "x", "old")
    with pytest.raises(error), publish(tmp_path / "x", always) as aside:
        (aside / "two").write_text("new")
        raise error
    assert (tmp_path / "x/two").read_text() == "old"
    assert names(tmp_path) == {"x"}


def test_foreign_directories_and_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("home", "file"):
        with (
            pytest.raises(ArtifactError, match="choose another output path"),
            publish(tmp_path / name, lambda _: False),
        ):
            pass
    assert (tmp_path / "home/thesis").read_text() == (tmp_path / "file").read_text() == "precious"


def test_an_empty_directory_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with publish(tmp_path / "x", lambda _: False) as aside:
        (aside / "a").write_text("a")
    assert names(tmp_path / "x") == {"a"}


def test_leftovers_are_swept_but_not_those_of_a_living_writer(tmp_path: Path) -> None:
    (tmp_path / ".x.999999.tmp").mkdir()
    (tmp_path / ".x.999999.tmp/part").write_text("part")
    with publish(tmp_path / "y", always), publish(tmp_path / "x", always) as living:
        with pytest.raises(ArtifactError, match="being written"), publish(tmp_path / "x", always):
            pass
        assert living.is_dir()
    assert names(tmp_path) == {"x", "y"}


def test_a_kill_between_two_renames_is_healed(tmp_path: Path) -> None:
    (tmp_path / ".x.7.old").mkdir()
    (tmp_path / ".x.7.old/a").write_text("old")
    with pytest.raises(ValueError), publish(tmp_path / "x", always):
        raise ValueError
    assert (tmp_path / "x/a").read_text() == "old"


WRITER = """
import sys
from pathlib import Path
from xllmc.runtime.artifact.publish import publish
turn = 0
while True:
    with publish(Path(sys.argv[1]), lambda _: True) as aside:
        for name in "abcdefgh":
            (aside / name).write_text(f"{sys.argv[2]}.{turn}" * 1000)
    turn += 1
"""


def test_killed_at_any_moment_the_directory_is_old_or_new(tmp_path: Path) -> None:
    """Would catch writing in place, removing before renaming, and left-overs that pile up."""
    target = tmp_path / "x"
    wait = random.Random(5)
    for turn in range(6):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(target), str(turn)])
        until = time.monotonic() + 20
        while not (target / "a").exists() or not (target / "a").read_text().startswith(f"{turn}."):
            assert time.monotonic() < until
            time.sleep(0.002)
        time.sleep(wait.random() * 0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        contents = {(target / name).read_text() for name in "abcdefgh"}
        assert len(contents) == 1
    write(target, "last")
    assert names(tmp_path) == {"x"}
