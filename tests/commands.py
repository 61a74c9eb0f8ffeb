"""Running the command line inside the test process, where torch is imported once for all."""

from typing import NamedTuple

import pytest
from xllmc.runtime.cli import run


class Finished(NamedTuple):
    code: int
    out: str
    err: str


def run_command(capfd: pytest.CaptureFixture[str], *arguments: object) -> Finished:
    """Run ``xllmc`` with ``arguments`` and return its exit code and what it printed."""
    capfd.readouterr()
    code = run([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    return Finished(code, out, err)
