"""Files that belong together are replaced together, or not at all."""

from pathlib import Path

import pytest
from xllmc.runtime.artifact.errors import ArtifactError
from xllmc.runtime.artifact.publish import publish_files


def write(target: Path, text: str) -> None:
    with publish_files(target) as aside:
        for name in (target.name, f"{target.name}.data"):
            (aside / name).write_text(text)


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_files_go_beside_their_target_and_replace_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    for text in ("old", "new"):
        write(tmp_path / "new/x.onnx", text)
        assert contents(tmp_path / "new") == {"x.onnx": text, "x.onnx.data": text}
    assert (tmp_path / "other").read_text() == "kept"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    write(tmp_path / "x", "old")
    with pytest.raises(error), publish_files(tmp_path / "x") as aside:
        (aside / "x").write_text("new")
        raise error
    assert contents(tmp_path) == {"x": "old", "x.data": "old"}


def test_a_reader_never_finds_an_old_target_beside_new_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before each of the moves in turn: the target is then either of one age with the rest, or missing."""
    for stop in range(3):
        write(tmp_path / "x", "old")
        moves = iter(range(3))

        def replace(self: Path, target: Path, moves=moves, stop=stop, real=Path.rename) -> Path:
            if next(moves) == stop:
                raise KeyboardInterrupt
            return real(self, target)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Path, "replace", replace)
            write(tmp_path / "x", "new")
            raise KeyboardInterrupt
        found = contents(tmp_path)
        assert "x" not in found or found["x"] == found["x.data"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".x.12345.tmp").mkdir()
    write(tmp_path / "x", "new")
    assert contents(tmp_path) == {"x": "new", "x.data": "new"}


def test_a_directory_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "y.data").mkdir()
    for name in ("x", "y"):
        with pytest.raises(ArtifactError, match="choose another"):
            write(tmp_path / name, "new")
    with pytest.raises(ArtifactError, match="choose another"):
        write(tmp_path / "y.data/../y.data", "new")
