"""``sample`` on the interpreter and on the CPU's kernels, called as the CPU's own tests call them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from xllmc.compiler.ir.program import Program

from tests.codegen.triton.interpreted import Interpreted
from tests.lowering import Lowered
from tests.programs import program

_INPUTS = ("logits", "rows", "history", "bias_ids", "bias_values", "bitmask")
Kernels = Callable[..., None]
"""``kernels("sample_rows", inputs..., results..., rows, vocabulary)`` fills the results."""


def sampling_program(vocabulary: int) -> Program:
    """Whose forward function is ``sample``."""
    kinds = ("i32[R]", "f32[R, 3]", "i32[R, 20]", "f32[R, 20]")
    lists = "%history: i32[N], %bias_ids: i32[N], %bias_values: f32[N], %bitmask: u32[N]"
    names = [f"y{i}" for i in range(4)]
    lines = [
        f"func forward(%logits: f32[R, {vocabulary}], %rows: u8[R, 80], {lists}) -> ({', '.join(names)}) {{",
        f"  %y: ({', '.join(kinds)}) = sample({', '.join(f'%{n}' for n in _INPUTS)})",
        *[f"  %{name}: {kind} = get(%y, index={i})" for i, (name, kind) in enumerate(zip(names, kinds, strict=True))],
        f"  return {', '.join(f'%{name}' for name in names)}",
        "}",
    ]
    return program("\n".join(lines))


def on_device(vocabulary: int, work: Path) -> Kernels:
    """The Triton kernels, launched for more rows than there are."""
    device = Interpreted(sampling_program(vocabulary), {}, work)

    def call(name: str, *operands: np.ndarray | int, threads: int = 1) -> None:
        rows = operands[10]
        assert isinstance(rows, int)
        _fill(operands, device(_inputs(operands), {"R": rows}, {"R": rows + 2}))

    return call


def on_cpu(vocabulary: int, work: Path) -> Kernels:
    lowered = Lowered(sampling_program(vocabulary), {}, work)

    def call(name: str, *operands: np.ndarray | int, threads: int = 1) -> None:
        rows = operands[10]
        assert isinstance(rows, int)
        _fill(operands, lowered(_inputs(operands), rows))

    return call


def _inputs(operands: tuple[np.ndarray | int, ...]) -> dict[str, torch.Tensor]:
    arrays = [torch.from_numpy(np.array(values)) for values in operands[: len(_INPUTS)]]
    return dict(zip(_INPUTS, arrays, strict=True))


def _fill(operands: tuple[np.ndarray | int, ...], results: dict[str, torch.Tensor]) -> None:
    for array, found in zip(operands[6:10], results.values(), strict=True):
        assert isinstance(array, np.ndarray)
        array[...] = found.numpy()
