"""Compiling a small program's kernels ahead of time, as a build does."""

from pathlib import Path

from xllmc.codegen.triton.architecture import ARCHITECTURES
from xllmc.codegen.triton.compile import Compiled, compile_cubin
from xllmc.codegen.triton.lower import lower
from xllmc.compiler.ir.program import Program


def compile_all(program: Program, architecture: str, work: Path, invariant: bool = False) -> list[Compiled]:
    """Every kernel of a program in the lowered stage."""
    machine = ARCHITECTURES[architecture]
    return [compile_cubin(source, machine, work) for source in lower(program, machine, invariant).sources]
