"""A step of a lowered program, for the interpreter: the same launches, operands and grids as on a device.

Every launch whose conditions hold at the captured sizes is run. Sizes of the capture may be above those of the step, as
they are on a device; then programs beyond the step's own sizes must do nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ....compiler.ir.program import Program, type_of
from ....runtime.artifact.dtypes import ITEM_BYTES
from ....runtime.artifact.schema import BufferEntry, DeviceSize, FunctionPlan, Launch, Pointer
from ....runtime.artifact.sizes import grid_of, holds
from ..compile import source_file
from ..kernel import DEVICE_SIZES
from ..lower import Lowered
from .requests import InterpretedKernel, Request

FIXED = "fixed"
SENTINEL = 0xAB
"""What every byte of an arena holds before a step."""


@dataclass(frozen=True)
class InterpretedStep:
    """What to ask, and where its results are."""

    request: Request
    launches: tuple[Launch, ...]
    """Those that run."""
    functions: tuple[FunctionPlan, ...]
    buffers: Mapping[str, BufferEntry]
    sizes: Mapping[DeviceSize, int]
    """Of the step."""
    key: Mapping[DeviceSize, int]
    """Of the capture."""

    def start(self, buffer: str) -> int:
        """Where a buffer begins in its arena."""
        entry = self.buffers[buffer]
        return entry.offset * (self.key[entry.scale] if entry.scale else 1)

    def arena(self, buffer: str) -> str:
        """The memory that a buffer is in."""
        return f"arena:{self.buffers[buffer].scale or FIXED}"

    def results(self, program: Program, after: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """By name, from the memory after the step."""
        found = {}
        for result in self._results(program):
            raw = after[result.arena][result.begin : result.end].copy()
            found[result.name] = torch.from_numpy(raw).view(result.dtype).reshape(result.shape)
        return found

    def writes_elsewhere(self, program: Program, after: Mapping[str, np.ndarray]) -> bool:
        """Whether a byte of an arena was written that belongs neither to a result nor to scratch memory."""
        left = {name: memory.copy() for name, memory in after.items() if name.startswith("arena:")}
        for result in self._results(program):
            left[result.arena][result.begin : result.end] = SENTINEL
        for name, entry in self.buffers.items():
            if name.count(":") > 1:  # as scratch memory is named
                begin, scale = self.start(name), self.key[entry.scale] if entry.scale else 1
                left[self.arena(name)][begin : begin + entry.bytes * scale] = SENTINEL
        return any(bool((memory != SENTINEL).any()) for memory in left.values())

    def _results(self, program: Program) -> Iterator["_Result"]:
        for function in self.functions:
            nodes = program.functions[function.name]
            for name, node in zip(nodes.results, nodes.outputs, strict=True):
                kind, buffer = type_of(node), function.outputs[name]
                shape = tuple(s if isinstance(s, int) else s.factor * self.sizes[s.symbols[0]] for s in kind.shape)
                count, begin = int(np.prod(shape)) * ITEM_BYTES[kind.dtype], self.start(buffer)
                yield _Result(name, self.arena(buffer), begin, begin + count, kind.torch_dtype, shape)


class _Result(NamedTuple):
    """Where one is, in bytes."""

    name: str
    arena: str
    begin: int
    end: int
    dtype: torch.dtype
    shape: tuple[int, ...]


def write_sources(lowered: Lowered, place: Path) -> None:
    """Every kernel's file, where ``prepare_step`` says that it is."""
    for source in lowered.sources:
        (place / f"{source.name}.py").write_text(source_file(source))


def prepare_step(
    lowered: Lowered,
    place: Path,
    memory: Mapping[str, np.ndarray],
    sizes: Mapping[DeviceSize, int],
    capture: Mapping[DeviceSize, int],
    functions: tuple[str, ...] = ("forward",),
) -> InterpretedStep:
    """``memory``: of weights, states and inputs, by kind and name (``weight:lm_head.weight``); ``sizes``: T, S, R, B
    and Q of the step; ``capture``: those of the key. Kernels' files are in ``place``.
    """
    plan = lowered.plan
    chosen = tuple(function for function in plan.functions if function.name in functions)
    launches = tuple(launch for function in chosen for launch in function.launches if holds(launch.when, capture))
    sources = {source.name: source for source in lowered.sources}
    scales = {FIXED: 1} | {str(name): size for name, size in capture.items()}
    whole = {f"arena:{name}": np.full(unit * scales[name], SENTINEL, np.uint8) for name, unit in plan.arenas.items()}
    whole |= {**memory, "sizes:": np.array([sizes[name] for name in DEVICE_SIZES], np.int32)}
    kernels: list[InterpretedKernel] = []
    buffers = {buffer.name: buffer for buffer in plan.buffers}
    step = InterpretedStep(Request(kernels, whole), launches, chosen, buffers, sizes, capture)
    for launch in launches:
        source = sources[launch.kernel]
        operands = [_place(step, pointer) for pointer in launch.operands if isinstance(pointer, Pointer)]
        path = place / f"{source.name}.py"
        kernels.append(InterpretedKernel(path, source.name, list(source.pointers), operands, grid_of(launch, capture)))
    return step


def _place(step: InterpretedStep, pointer: Pointer) -> tuple[str, int]:
    if pointer.kind == "buffer":
        return step.arena(pointer.name), step.start(pointer.name)
    return f"{pointer.kind}:{pointer.name}", 0


def to_numpy(value: torch.Tensor) -> np.ndarray:
    """The tensor's numbers as numpy has them; bf16 as its bits."""
    carrier = value.contiguous()
    array: np.ndarray = (carrier.view(torch.uint16) if carrier.dtype == torch.bfloat16 else carrier).numpy()
    return array
