"""A fresh environment, as a user of xllmc has: xllmc, torch and pip are there, and no plugin.

xllmc and what it needs are found through the environment that runs the tests; all else is the environment's own.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

CLIENT = """#!{python} -IS
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    command = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "variables": dict(os.environ), "site": {site!r}}}
    socket.send_fds(connection, [json.dumps(command).encode()], [0, 1, 2])
    connection.shutdown(socket.SHUT_WR)
    sys.exit(int(connection.recv(16)))
"""
"""The script ``xllmc`` in an environment's ``bin``: it asks the warm command line (``warm.py``)."""
READY = "ready"
"""What the warm command line says once it answers."""


class Finished(NamedTuple):
    code: int
    out: str
    err: str


class Environment:
    """A virtual environment in ``home``; its commands run in its folder ``work``.

    ``warm``: where the warm command line answers.
    """

    def __init__(self, home: Path, warm: str) -> None:
        self.bin, self.work = home / "bin", home / "work"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
        self.work.mkdir()
        site = next(home.glob("lib/python*/site-packages"))
        # A .pth of the tests' environment maps xllmc's folders, so its site-packages must be a site here too.
        parent = sysconfig.get_path("purelib")
        (site / "parent.pth").write_text(f"import site; site.addsitedir({parent!r})\n")
        plain = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.variables = plain | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "COLUMNS": "160",
            # Everything needed is installed: nothing may be asked of a network.
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self._script("pip", f'#!/bin/sh\nexec "{self.bin / "python"}" -m pip "$@"\n')
        self._script("xllmc", CLIENT.format(python=self.bin / "python", address=warm, site=str(site)))

    def run(self, *command: object, **variables: str) -> Finished:
        """Run a command, found in this environment first."""
        words = [str(word) for word in command]
        words[0] = shutil.which(words[0], path=self.variables["PATH"]) or words[0]
        done = subprocess.run(words, capture_output=True, text=True, cwd=self.work, env=self.variables | variables)
        return Finished(done.returncode, done.stdout, done.stderr)

    def _script(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def install(self, package: Path) -> None:
        """pip-install a package from a copy of its folder, so that nothing is written beside its sources."""
        source = shutil.copytree(package, self.work / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        done = self.run("pip", "install", "--quiet", source)
        assert done.code == 0, done.err


NewEnvironment = Callable[[], Environment]
"""A fresh one."""
Mypy = Callable[..., None]
"""Checks what arguments name of a folder of sources; AssertionError quotes mypy."""
