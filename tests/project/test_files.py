"""Files stay small and say what they are."""

from tests.project.sources import ROOT, files

MAX_LINES = 450
CODE = (".py", ".h", ".cpp", ".j2", ".toml")


def test_no_file_is_long():
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in files(*CODE)}
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_file_is_called_utils():
    assert [path for path in files(".py") if path.stem in ("utils", "util", "helpers", "misc", "common")] == []


def test_modules_say_what_they_hold():
    documented = ('"""', 'r"""')
    missing = [
        path
        for path in files(".py", folders=("compiler", "passes", "codegen", "runtime", "models"))
        if (text := (ROOT / path).read_text()).strip() and not text.startswith(documented)
    ]
    assert missing == []
