"""A compiled library of small kernel instantiations, and a way to run one of them on numpy arrays."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
INCLUDE = HERE.parents[3] / "codegen/cpu/include"
FLAGS = ["-std=c++20", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
FLAGS += ["-fPIC", "-shared", "-pthread", "-static-libstdc++", "-static-libgcc"]
LEVELS = {
    "x86-64-v4-bf16": ["-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni"],
    "x86-64-v4": ["-march=x86-64-v4"],
    "x86-64-v3": ["-march=x86-64-v3"],
}
NEEDS = {"x86-64-v4-bf16": "avx512_bf16", "x86-64-v4": "avx512vl", "x86-64-v3": "avx2"}

POINTER, INTEGER, REAL = 0, 2, 3


class Argument(ctypes.Union):
    _fields_ = [("i", ctypes.c_int64), ("f", ctypes.c_double)]


class Operand(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("base", ctypes.c_int32), ("value", Argument)]


class Launch(ctypes.Structure):
    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("operands", ctypes.POINTER(Operand)),
        ("operand_count", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    ]


class Library:
    """Kernels by name. ``library(name, operands...)`` runs one.

    Arrays are pointers, None is null, ints and floats are themselves. ``threads`` picks the pool.
    """

    def __init__(self, path: Path) -> None:
        self.native = ctypes.CDLL(str(path))
        self.native.xllmc_pool_create.restype = ctypes.c_void_p
        self.native.xllmc_isa.restype = ctypes.c_char_p
        self.pools = {n: ctypes.c_void_p(self.native.xllmc_pool_create(n)) for n in (1, 2, 3)}

    def close(self) -> None:
        for pool in self.pools.values():
            self.native.xllmc_pool_destroy(pool)

    def __call__(self, name: str, *operands: np.ndarray | int | float | None, threads: int = 2) -> None:
        self.run([(name, operands)], threads)

    def run(self, calls: list[tuple[str, tuple]], threads: int = 2) -> list[float]:
        """Runs the calls as one list of launches; returns the seconds of each."""
        bases: list[int | None] = []
        launches = (Launch * len(calls))()
        keep = []
        for launch, (name, operands) in zip(launches, calls, strict=True):
            bound = (Operand * len(operands))()
            for slot, operand in zip(bound, operands, strict=True):
                if isinstance(operand, float):
                    slot.kind, slot.value.f = REAL, operand
                elif isinstance(operand, int):
                    slot.kind, slot.value.i = INTEGER, operand
                else:
                    assert operand is None or operand.flags.c_contiguous
                    slot.kind, slot.base = POINTER, len(bases)
                    bases.append(None if operand is None else operand.ctypes.data)
            launch.kernel = ctypes.cast(getattr(self.native, name), ctypes.c_void_p)
            launch.operands, launch.operand_count = bound, len(operands)
            keep.append(bound)
        seconds = (ctypes.c_double * len(calls))()
        pointers = (ctypes.c_void_p * max(1, len(bases)))(*bases)
        code = self.native.xllmc_run(self.pools[threads], launches, ctypes.c_int64(len(calls)), pointers, None, seconds)
        assert code == 0
        return list(seconds)


def supported_levels() -> list[str]:
    flags = Path("/proc/cpuinfo").read_text().split()
    return [level for level, flag in NEEDS.items() if flag in flags]


@pytest.fixture(scope="session", params=LEVELS)
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    level = request.param
    if level not in supported_levels():
        pytest.skip(f"this machine lacks {level}")
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    path = tmp_path_factory.mktemp("kernels") / f"{level}.so"
    command = [compiler, *FLAGS, *LEVELS[level], f"-I{INCLUDE}", str(HERE / "kernels.cpp"), "-o", str(path)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    library = Library(path)
    assert library.native.xllmc_isa().decode() == level
    yield library
    library.close()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(20240131)
