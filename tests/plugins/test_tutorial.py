"""``passes/TUTORIAL.md`` works as it stands: its files are written, its commands typed, and their outputs compared.

    ```python acme/passes.py      a file, written to that path
    ```console                    commands after ``$``, each followed by what it prints, in part where ``...`` stands
    ```python                     a snippet; all of them run in one module, in order

Blanks count as one, and figures of time as any.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.plugins.environment import Environment, Mypy, NewEnvironment
from tests.project.sources import ROOT

TUTORIAL = ROOT / "passes" / "TUTORIAL.md"
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


CHECKED = """
from xllmc.compiler.pipeline.examples import run_examples

for made in [v for v in vars().copy().values() if isinstance(v, type) and issubclass(v, Pass) and hasattr(v, "name")]:
    for result in run_examples(made()):
        print(result.fault or "ok")
"""
"""Comes after the snippets: the examples of their passes, in numbers."""


class Block(NamedTuple):
    language: str
    path: str
    text: str


class Command(NamedTuple):
    line: str
    shown: str


def blocks() -> list[Block]:
    return [Block(*found) for found in FENCE.findall(TUTORIAL.read_text())]


def commands(text: str) -> list[Command]:
    """The commands of a console block, with what stands below each."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [Command(*part.partition("\n")[::2]) for part in parts]


def fits(shown: str, printed: str) -> bool:
    """Whether ``printed`` is what is shown, with anything in place of ``...``."""
    parts = [re.escape(" ".join(part.split())) for part in re.split(r"\.\.\.", shown)]
    pattern = r"\s*.*\s*".join(parts) if len(parts) > 1 else parts[0]
    return re.fullmatch(pattern, " ".join(printed.split()), re.DOTALL) is not None


@pytest.fixture(scope="module")
def environment(new_environment: NewEnvironment) -> Environment:
    """Where a reader is: in a folder with the bundled model, and no plugin installed."""
    made = new_environment()
    (made.work / "models").symlink_to(ROOT / "models")
    return made


def test_the_tutorial_runs(environment: Environment):
    assert blocks()
    for block in blocks():
        if block.path:
            place = environment.work / block.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(block.text)
        for command in commands(block.text) if block.language == "console" else ():
            done = environment.run("bash", "-c", f"({command.line}) 2>&1")
            assert fits(command.shown, done.out), f"$ {command.line}\n{done.out}\nbut it shows\n{command.shown}"


def test_the_snippets_hold(environment: Environment):
    """In types, or their passes could not be made, and in numbers."""
    text = "\n".join(b.text for b in blocks() if b.language == "python" and not b.path)
    (environment.work / "snippets.py").write_text(text + CHECKED)
    done = environment.run("python", "snippets.py")
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) >= 5 and set(done.out.split()) == {"ok"}, done.out


def test_the_first_plugin_is_small():
    written = [block for block in blocks() if block.path][:2]
    assert [Path(block.path).suffix for block in written] == [".toml", ".py"]
    assert sum(len(block.text.splitlines()) for block in written) < 50


def test_the_plugins_are_clean(tmp_path: Path, mypy: Mypy):
    """As the repository's own files are: formatted, linted and typed."""
    places = [tmp_path / Path(block.path).name for block in blocks() if block.language == "python" and block.path]
    for place, block in zip(places, [b for b in blocks() if b.language == "python" and b.path], strict=True):
        place.write_text(block.text)
    settings = ("--config", ROOT / "pyproject.toml")
    for command in (("check", "--extend-ignore", "F722,F821"), ("format", "--check")):
        subprocess.run([sys.executable, "-m", "ruff", *command, *settings, *places], check=True, cwd=ROOT)
    mypy(tmp_path, *(word for place in places for word in ("-m", place.stem)))


def test_a_shown_output_is_compared():
    assert fits("a ... c\n", "a\nb c") and fits("", "") and fits("a...\n", "a b")
    assert not fits("a ... d\n", "a b c") and not fits("", "a") and not fits("a\n", "a b")
