"""The last step towards a binary for an NPU: ``bishengir-compile``, which comes with CANN and nowhere else.

It has not been run here: a stand-in has shown which command it is given and what is done with the files it makes. The
command and the names of its files are those that triton-ascend 3.2.0 uses.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from ...runtime.artifact.errors import OptionError, XllmcError

PROGRAM = "bishengir-compile"

MACHINES = {
    "910b": "Ascend910B1",
    "910b1": "Ascend910B1",
    "910b2": "Ascend910B2",
    "910b3": "Ascend910B3",
    "910b4": "Ascend910B4",
}
"""Our names of NPUs, to those that the compiler knows."""

OPTIONS = (
    "--enable-auto-multi-buffer=True",
    "--enable-auto-bind-sub-block=True",
    "--enable-hfusion-compile=true",
    "--enable-hivm-compile=true",
    "--enable-triton-kernel-compile=true",
)

NOT_FOUND = (
    f"{PROGRAM} is not on PATH, so this engine holds the kernels' Linalg and HIVM text and no binaries; "
    "compile again where CANN is installed"
)
"""What is told to whoever compiles without CANN."""

_MIX_MODE = re.compile(r'mix_mode = "(\w+)"')
_REMOVED = re.compile(r', mix_mode = "\w+"')


class Binary(NamedTuple):
    """What the compiler made of one kernel."""

    object: Path
    callbacks: Path | None
    """A library that tells how much workspace and how many locks the kernel wants, where one was made."""
    cores: str
    """The kernel's cores: ``aiv`` (vector), ``aic`` (cube) or ``mix``, which its launch names."""


def find_compiler() -> Path | None:
    """CANN's compiler, where PATH has it."""
    found = shutil.which(PROGRAM)
    return Path(found) if found else None


def compile_command(compiler: Path, source: Path, output: Path, machine: str) -> list[str]:
    """The command that compiles a kernel's text for one of ``MACHINES``. Raises OptionError for another."""
    if machine not in MACHINES:
        raise OptionError(f"--target ascend requires one of {', '.join(MACHINES)}, got {machine!r}; try ascend:910b")
    return [str(compiler), str(source), f"--target={MACHINES[machine]}", *OPTIONS, "-o", str(output)]


def compile_binary(compiler: Path, text: str, name: str, machine: str, work: Path) -> Binary:
    """Compile kernel ``name`` from its Linalg and HIVM text; the files are made in ``work``. Raises XllmcError."""
    cores = _MIX_MODE.search(text)
    if cores is None:
        raise XllmcError(f"the text of kernel {name} must name its cores by mix_mode, and does not")
    source, output = work / f"{name}.mlir", work / name
    # The compiler finds the cores out for itself, and does not take the attribute.
    source.write_text(_REMOVED.sub("", text))
    command = compile_command(compiler, source, output, machine)
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode:
        lines = [line.strip() for line in told.stderr.splitlines() if "error" in line] or told.stderr.splitlines()[-1:]
        reason = lines[0][:300] if lines else f"it ended with code {told.returncode}"
        raise XllmcError(f"{PROGRAM} cannot compile kernel {name}: {reason}")
    # Releases before a change of its options name the object after its being relocatable.
    made = [path for path in (work / f"{name}.o", work / f"{name}_reloc.o") if path.is_file()]
    if not made:
        raise XllmcError(f"{PROGRAM} made no object of kernel {name}, though it ended without an error")
    library = work / f"lib{name}.so"
    return Binary(made[0], library if library.is_file() else None, cores[1])
