"""How fast the CPU kernels are on this machine: ``python -m xllmc.bench.cpu_kernels``.

Compiles ``cpu_kernels.cpp`` for one of the machine's instruction sets and prints bandwidth of products of few rows,
arithmetic of products of many, whole steps of Qwen3-0.6B's shapes, and sampling.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from ..codegen.cpu.toolchain import LEVELS, find_compiler
from ..runtime.artifact.isa import supported_isas

HERE = Path(__file__).parent
INCLUDE = HERE.parent / "codegen/cpu/include"
FLAGS = ["-std=c++20", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-pthread", "-w"]
ELEMENTS = {"bf16": "xllmc::bf16", "f32": "float"}


def build(directory: Path, level: str, dtype: str) -> Path:
    """The measuring program for an instruction set and an element type, compiled into ``directory``."""
    program = directory / "cpu_kernels"
    command = [*find_compiler().command, *FLAGS, *LEVELS[level], f"-DXLLMC_BENCH_TYPE={ELEMENTS[dtype]}"]
    subprocess.run([*command, f"-I{INCLUDE}", str(HERE / "cpu_kernels.cpp"), "-o", str(program)], check=True)
    return program


def main() -> None:
    levels = supported_isas()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--isa", choices=levels, default=levels[-1])
    parser.add_argument("--dtype", choices=ELEMENTS, default="bf16")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        program = build(Path(directory), options.isa, options.dtype)
        print(f"{options.isa}, {options.dtype}, {options.threads} threads")
        run = subprocess.run([str(program), str(options.threads)], check=True, capture_output=True, text=True)
    for line in run.stdout.splitlines():
        name, value, unit = line.split("\t")
        print(f"{name:42} {float(value):>12.4g} {unit}")


if __name__ == "__main__":
    main()
