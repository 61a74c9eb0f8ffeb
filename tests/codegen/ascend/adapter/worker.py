"""A process that executes the adapter's IR: reads pickled requests from stdin, answers on stdout.

It is a process of its own because a kernel that touches foreign memory ends it, which is what a test wants to see.
"""

import faulthandler
import pickle
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4]))

import numpy as np

from tests.codegen.ascend.adapter.executor import run
from tests.codegen.ascend.adapter.placed import Placed
from tests.codegen.ascend.adapter.requests import Request


def answer(request: Request) -> dict[str, np.ndarray]:
    """The memory after all kernels ran."""
    memory = {name: Placed(values, request.guard, request.slack) for name, values in request.memory.items()}
    for kernel in request.kernels:
        operands = []
        for (name, offset), item in zip(kernel.operands, kernel.items, strict=True):
            address = memory[name].address + offset
            operands.append((address, (memory[name].size - offset) // item))
        run(kernel.ir, kernel.name, operands, kernel.grid, request.backwards)
    return {name: placed.values.copy() for name, placed in memory.items()}


def serve() -> None:
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    while True:
        try:
            request: Request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            told: dict[str, np.ndarray] | str = answer(request)
        except Exception:  # noqa: BLE001  # the test shall see whatever it was
            told = traceback.format_exc()
        pickle.dump(told, answers)
        answers.flush()


if __name__ == "__main__":
    faulthandler.enable()
    serve()
