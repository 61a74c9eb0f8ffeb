"""Finding a C++ compiler and building a kernel library for each instruction-set level."""

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ...runtime.artifact import isa as machine
from ...runtime.artifact.errors import OptionError, XllmcError
from ...runtime.artifact.schema import KernelLibrary

LEVELS: dict[str, tuple[str, ...]] = {
    "x86-64-v3": ("-march=x86-64-v3",),
    "x86-64-v4": ("-march=x86-64-v4",),
    "x86-64-v4-bf16": ("-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni"),
}

ZIG_CPUS = {
    "x86-64-v3": "x86_64_v3",
    "x86-64-v4": "x86_64_v4",
    "x86-64-v4-bf16": "x86_64_v4+avx512bf16+avx512vnni",
}
"""The same levels as zig names them."""

SOURCE = "kernels.cpp"
"""The generated source, in an engine's ``kernels`` folder beside ``include``."""

FLAGS = [
    "-std=c++20",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-fPIC",
    "-shared",
    "-pthread",
    "-static-libgcc",
    "-static-libstdc++",
    "-Wall",
]
"""Contraction is off: whether a product and a sum are one rounding is written in the kernels, never chosen for them."""


@dataclass(frozen=True)
class Compiler:
    command: tuple[str, ...]
    version: str

    def machine(self, level: str) -> tuple[str, ...]:
        """The flags that choose an instruction-set level."""
        is_zig = any(Path(word).name in ("zig", "ziglang") for word in self.command)
        return (f"-mcpu={ZIG_CPUS[level]}",) if is_zig else LEVELS[level]


def find_compiler() -> Compiler:
    """``$CXX``, else g++, clang++ or the ziglang wheel; XllmcError where there is none."""
    wanted = os.environ.get("CXX")
    candidates = [shlex.split(wanted)] if wanted else [["g++"], ["clang++"]]
    if not wanted and importlib.util.find_spec("ziglang"):
        candidates.append([sys.executable, "-m", "ziglang", "c++"])
    for command in candidates:
        if shutil.which(command[0]):
            result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
            if result.returncode == 0:
                return Compiler(tuple(command), result.stdout.splitlines()[0].strip())
    raise XllmcError(
        "compiling for the CPU requires a C++20 compiler, found "
        + (f"none at $CXX={wanted}" if wanted else "neither g++ nor clang++ (g++ 12 or newer, or pip install ziglang)")
    )


def choose_levels(isa: Sequence[str]) -> tuple[str, ...]:
    """The levels named by the option: ``all``, ``native`` or their names."""
    if platform.machine() not in ("x86_64", "AMD64"):
        raise OptionError(f"--target cpu requires an x86-64 machine so far, this one is {platform.machine()}")
    chosen: list[str] = []
    for name in isa:
        if name == "all":
            chosen += LEVELS
        elif name == "native":
            chosen += machine.supported_isas()[-1:]
        elif name in LEVELS:
            chosen.append(name)
        else:
            raise OptionError(f"--isa must be all, native or of {', '.join(LEVELS)}, got {name!r}")
    return tuple(dict.fromkeys(chosen))


def build(
    directory: Path, source: str, levels: Sequence[str], compiler: Compiler, jobs: int, progress: Callable[[str], None]
) -> tuple[dict[str, Path], tuple[KernelLibrary, ...]]:
    """Compile ``source`` (a path in ``directory``) once for each level; returns files and their manifest entries."""

    def one(level: str) -> tuple[str, Path, KernelLibrary]:
        output = f"libkernels.{level}.so"
        command = [*compiler.command, *FLAGS, *compiler.machine(level), "-Iinclude", source, "-o", output]
        result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        if result.returncode:
            lines = [line for line in result.stderr.splitlines() if "error" in line] or result.stderr.splitlines()[-1:]
            fault = (lines or ["no message"])[0].strip()
            raise XllmcError(
                f"{compiler.command[0]} cannot compile the kernels for {level}: {fault}; g++ 12 is known to work, "
                "and $CXX chooses the compiler"
            )
        path = directory / output
        progress(level)
        return level, path, KernelLibrary(isa=level, path=f"kernels/{output}", glibc=needed_glibc(path))

    with ThreadPoolExecutor(jobs) as pool:
        built = list(pool.map(one, levels))
    return {entry.path: path for _, path, entry in built}, tuple(entry for _, _, entry in built)


def needed_glibc(library: Path) -> str:
    """The newest C library version whose symbols the library asks for."""
    versions = {tuple(map(int, v.split(b"."))) for v in re.findall(rb"GLIBC_(\d+(?:\.\d+)+)", library.read_bytes())}
    return ".".join(map(str, max(versions, default=(2, 17))))
