"""Triton's IR through the Ascend adapter to Linalg and HIVM, which Ascend's own compiler (CANN) turns into binaries.

The adapter is one program of the ``triton-ascend`` wheel, ``triton-adapter-opt``; it needs neither NPU nor CANN.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...runtime.artifact.errors import OptionError, XllmcError

PROGRAM = "triton-adapter-opt"
VARIABLE = "XLLMC_TRITON_ADAPTER"
"""Where this is set, it names the program, and nothing else is looked for."""

INSTALL = "python -m xllmc.codegen.ascend.install_adapter"

KNOWN = {"c7f72b8a8a55887b925b59631669c4321acc4d942d6d655cb52a7b07cfbb0f3b": "3.2.0"}
"""Digests of the programs that were tried, and the triton-ascend each is of: the program tells only LLVM's version."""

PASSES = (
    "--discrete-mask-access-conversion=compile-on-910-95=False force-simt-template=False",
    "--triton-to-annotation",
    "--triton-to-unstructure=compile-on-910-95=False force-simt-template=False",
    "--triton-to-hivm",
    "--triton-to-hfusion",
    "--triton-to-llvm",
    "--bubble-up-operation",
    "--triton-to-linalg=global-kernel=false named-ops=True enable-nd2nz-on-vector=False "
    "enable-select-analysis=False compile-on-910-95=False",
)
"""As triton-ascend itself gives them for a 910B."""

READ_SLACK = 1 << 16
"""Bytes behind any memory of a kernel that must be readable. Where the adapter does not see through the addresses of a
masked load (indices from memory, of a division or a minimum), or its mask compares other than consecutive numbers, it
reads all lanes and then chooses; kernels keep such lanes near their operand.
"""

SECONDS = 30
"""A kernel takes 0.02 to 0.2 s; on some constructs (``tl.sort``) the adapter never ends."""

ATTEMPTS = 5
"""Once in some fifty runs the adapter crashes on a kernel that it lowers, to one and the same text, in the others."""

_OPERATION = re.compile(r'^\s*(?:%[\w:, %]+ = )?"?(?P<name>(?:tt|ttg|llvm)\.[\w.]+)', re.MULTILINE)
"""What must not be left: Triton's operations, which Ascend's compiler does not know, and another machine's assembly."""

_DEFINED = re.compile(r"^\s*func\.func @(?P<name>\w+)\(", re.MULTILINE)
_DECLARED = re.compile(r"^\s*func\.func private @(?P<name>\w+)\(", re.MULTILINE)
_PROMISED = re.compile(r"^\s*tt\.func public @(?P<name>\w+)\(", re.MULTILINE)

MISREAD = {"tt.mulhiui": "tl.umulhi, which the adapter takes for a product of signed numbers; multiply as tl.uint64"}
"""Operations of TTIR that the adapter lowers to something else, and what to write for them."""


@dataclass(frozen=True)
class Adapter:
    path: Path
    digest: str
    """SHA-256 of the program."""

    @property
    def version(self) -> str:
        """The triton-ascend that it is of, where known: what a manifest records."""
        return KNOWN.get(self.digest, f"sha256:{self.digest[:16]}")


def find_adapter() -> Adapter:
    """The program at ``$XLLMC_TRITON_ADAPTER``, beside this Python's interpreter or on PATH. Raises OptionError."""
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named)
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise OptionError(f"${VARIABLE} must name {PROGRAM}, an executable file, got {named!r}; try {INSTALL}")
        return _adapter(path)
    beside = Path(sys.executable).parent / PROGRAM
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(PROGRAM)
    if found is None:
        raise OptionError(
            f"compiling for Ascend requires {PROGRAM}, found neither beside {sys.executable} nor on PATH; "
            f"try {INSTALL}, or name it in ${VARIABLE}"
        )
    return _adapter(Path(found))


def _adapter(path: Path) -> Adapter:
    status = path.stat()
    return _hashed(path, status.st_size, status.st_mtime_ns)


@cache
def _hashed(path: Path, size: int, changed: int) -> Adapter:
    """``size`` and ``changed``: of the file, so that another file of that name is another adapter."""
    with path.open("rb") as file:
        return Adapter(path, hashlib.file_digest(file, "sha256").hexdigest())


def lower_ttir(ttir: str, name: str) -> str:
    """The Linalg and HIVM text of the kernel ``name``, from its TTIR.

    The function it holds has the kernel's name; its parameters are ``memref<?xi8>`` for locks and for a workspace, the
    kernel's own, and six i32: the grid's sizes, and the place of one program in it.
    Raises OptionError where there is no adapter, and XllmcError where it cannot lower the kernel, or not truly.
    """
    for operation, reason in MISREAD.items():
        if operation in ttir:
            raise XllmcError(f"the Ascend adapter cannot lower kernel {name}: it uses {reason}")
    promised = _PROMISED.findall(ttir)
    if promised != [name]:
        raise XllmcError(f"the TTIR of kernel {name} must hold one public function of that name, got {promised}")
    adapter = find_adapter()
    with tempfile.TemporaryDirectory(prefix="xllmc-") as place:
        given, made = Path(place, "kernel.ttir"), Path(place, "kernel.mlir")
        given.write_text(ttir)
        command = [str(adapter.path), str(given), *PASSES, "-o", str(made)]
        told = _run(command, name)
        said = _errors(told.stderr, str(given))
        if told.returncode or said:
            reason = said[0] if said else _ending(told.returncode)
            raise XllmcError(f"the Ascend adapter cannot lower kernel {name}: {reason}")
        text = made.read_text()
    check_lowered(text, name)
    return text


def _run(command: list[str], name: str) -> subprocess.CompletedProcess[str]:
    """The adapter's answer. Raises OptionError where it cannot be run, and XllmcError where it does not end."""
    for _ in range(ATTEMPTS):
        try:
            told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        except subprocess.TimeoutExpired as problem:
            raise XllmcError(
                f"the Ascend adapter does not end on kernel {name} within {SECONDS} s; tl.sort is known to do that"
            ) from problem
        except OSError as problem:
            raise OptionError(f"cannot run {command[0]}: {problem.strerror}; try {INSTALL}") from problem
        if told.returncode >= 0:
            break
    return told


def check_lowered(text: str, name: str) -> None:
    """XllmcError where the adapter's result is not one whole kernel, though the adapter did not complain."""
    left = sorted({found["name"] for found in _OPERATION.finditer(text)})
    if left:
        raise XllmcError(f"the Ascend adapter leaves {', '.join(left)} in kernel {name}, which it cannot lower")
    called = _DECLARED.findall(text)
    if called:
        # Their code is in CANN, so what they compute could not be checked on any other machine.
        raise XllmcError(f"the Ascend adapter makes kernel {name} call {', '.join(called)}, which has no code here")
    defined = _DEFINED.findall(text)
    if defined != [name]:
        raise XllmcError(f"the Ascend adapter's result must define {name} alone, got {', '.join(defined) or 'nothing'}")


def _errors(stderr: str, place: str) -> list[str]:
    """What went wrong, by the lines that say so; the adapter warns of every value without a location."""
    lines = [line.split("error:", 1)[1].strip() for line in stderr.splitlines() if "error:" in line]
    return [line.replace(place, "kernel.ttir")[:300] for line in lines]


def _ending(code: int) -> str:
    return f"it crashed with signal {-code}" if code < 0 else f"it ended with code {code}"
