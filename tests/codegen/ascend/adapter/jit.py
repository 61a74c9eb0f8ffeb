"""Executing the adapter's IR on the CPU, twice: with other guards and in another order of programs."""

import pickle
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from xllmc.codegen.ascend.adapter import find_adapter

from tests.codegen.ascend.adapter.requests import AdaptedKernel, Guard, Request

_PARAMETER = re.compile(r"memref<\?x(?P<item>\w+)>")
_SIGNATURE = re.compile(r"^\s*func\.func @(?P<name>\w+)\((?P<parameters>.*)\) attributes", re.MULTILINE)
ITEMS = {"i1": 1, "i8": 1, "i16": 2, "bf16": 2, "f16": 2, "i32": 4, "f32": 4, "i64": 8, "f64": 8}


class ForeignMemoryError(AssertionError):
    """A kernel read or wrote beyond what it was given."""


@cache
def worker() -> subprocess.Popen:
    """The executing process, started once."""
    place = Path(__file__).with_name("worker.py")
    return subprocess.Popen([sys.executable, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def ask(request: Request) -> dict[str, np.ndarray]:
    """The memory after the kernels ran. ForeignMemoryError where one touched other memory than its own."""
    process = worker()
    assert process.stdin is not None and process.stdout is not None
    pickle.dump(request, process.stdin)
    process.stdin.flush()
    try:
        told = pickle.load(process.stdout)
    except EOFError:
        worker.cache_clear()
        names = ", ".join(kernel.name for kernel in request.kernels)
        raise ForeignMemoryError(f"the process died with {process.wait()} while it ran {names}") from None
    assert not isinstance(told, str), told
    return told


@cache
def generic(ir: str) -> str:
    """The same IR in MLIR's generic form, which a newer MLIR parses without knowing Ascend's dialects."""
    command = [str(find_adapter().path), "-", "--mlir-print-op-generic"]
    told = subprocess.run(command, input=ir, capture_output=True, text=True, check=True)
    # Renamed in MLIR since.
    return told.stdout.replace('"bufferization.to_memref"', '"bufferization.to_buffer"')


def parameters(ir: str) -> tuple[str, list[int]]:
    """The name of the kernel that the IR holds, and the bytes of an item of each of its own parameters."""
    found = _SIGNATURE.search(ir)
    assert found is not None, "the IR holds no function"
    items = [ITEMS[one] for one in _PARAMETER.findall(found["parameters"])]
    return found["name"], items[2:]  # without locks and workspace


def adapted(ir: str, operands: Sequence[tuple[str, int]], grid: tuple[int, int, int]) -> AdaptedKernel:
    """One launch of the kernel. ``operands``: memory and offset in bytes of each parameter."""
    name, items = parameters(ir)
    assert len(items) == len(operands), f"{name} has {len(items)} parameters, and is given {len(operands)}"
    return AdaptedKernel(generic(ir), name, items, list(operands), grid)


def execute(
    kernels: Sequence[AdaptedKernel], memory: Mapping[str, np.ndarray], slack: int = 0
) -> dict[str, np.ndarray]:
    """The memory after the launches, in whichever order programs run.

    Nothing before it may be touched, and nothing behind it but by reading ``slack`` bytes that must not matter.
    """
    first = ask(Request(list(kernels), dict(memory), Guard.AFTER, backwards=False, slack=slack))
    second = ask(Request(list(kernels), dict(memory), Guard.BEFORE, backwards=True, slack=slack))
    for name, values in first.items():
        assert values.tobytes() == second[name].tobytes(), f"{name} depends on the order of programs"
    return first


def run_ir(ir: str, arguments: list[np.ndarray], grid: tuple[int, int, int]) -> None:
    """Run the one kernel of ``ir`` (as ``lower_ttir`` gives it) on ``arguments``, which it changes in place.

    bf16 arrays are given as uint16.
    """
    name, items = parameters(ir)
    sizes = [argument.dtype.itemsize for argument in arguments]
    assert sizes == items, f"{name} wants items of {items} bytes, and is given {sizes}"
    names = [str(index) for index in range(len(arguments))]
    kernel = adapted(ir, [(name, 0) for name in names], grid)
    after = execute([kernel], dict(zip(names, arguments, strict=True)))
    for index, argument in zip(names, arguments, strict=True):
        argument[...] = after[index]
