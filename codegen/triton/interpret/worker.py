"""``python -m xllmc.codegen.triton.interpret.worker``: reads pickled requests from stdin, answers on stdout.

It is started with TRITON_INTERPRET=1. Triton decides at its first import whether kernels are interpreted, and whoever
asks compiles them.
"""

import faulthandler
import pickle
import sys
import traceback

from .guarded import Guarded
from .interpreter import run_kernel
from .requests import Request


def serve() -> None:
    """Answer until stdin ends: the memory after the kernels ran, or the text of what one of them raised."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    while True:
        try:
            request: Request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(_answer(request), answers)
        answers.flush()


def _answer(request: Request) -> object:
    memory = {name: Guarded(values) for name, values in request.memory.items()}
    try:
        for kernel in request.kernels:
            addresses = [memory[name].address + offset for name, offset in kernel.operands]
            run_kernel(kernel.path, kernel.name, kernel.pointers, addresses, kernel.grid)
    except Exception:  # noqa: BLE001  # kernels may be a plugin's, and whoever asked shall see whatever it was
        return traceback.format_exc()
    return {name: guarded.values.copy() for name, guarded in memory.items()}


if __name__ == "__main__":
    faulthandler.enable()
    serve()
