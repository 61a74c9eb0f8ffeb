"""What the interpreter is asked, answered by the adapter's IR instead, so that one test checks both."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from xllmc.codegen.ascend.adapter import READ_SLACK, lower_ttir
from xllmc.codegen.triton.compile import function_in
from xllmc.codegen.triton.interpret.requests import Request
from xllmc.codegen.triton.ttir import make_ttir

from tests.codegen.ascend.adapter.jit import adapted, execute

ALIGNED = [["tt.divisibility", 16]]


@cache
def lowered(source: str, name: str, pointers: Sequence[str], path: Path) -> str:
    """The adapter's IR of a kernel's source text, which stands in ``path``."""
    function = function_in(path, name)
    signature = dict(zip(function.arg_names, pointers, strict=True))
    ttir = make_ttir(function, signature, attrs={(index,): ALIGNED for index in range(len(signature))})
    return lower_ttir(ttir, name)


def interpret(request: Request) -> dict[str, np.ndarray]:
    """The memory after the request's kernels ran, as ``tests.codegen.triton.interpreted.interpret`` gives it."""
    kernels = []
    for kernel in request.kernels:
        ir = lowered(kernel.path.read_text(), kernel.name, tuple(kernel.pointers), kernel.path)
        kernels.append(adapted(ir, kernel.operands, kernel.grid))
    return execute(kernels, request.memory, READ_SLACK)
