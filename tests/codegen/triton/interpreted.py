"""Running a lowered program's plan through Triton's interpreter, step after step."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from xllmc.codegen.triton.architecture import ARCHITECTURES
from xllmc.codegen.triton.interpret.process import interpret
from xllmc.codegen.triton.interpret.step import prepare_step, to_numpy, write_sources
from xllmc.codegen.triton.kernel import DEVICE_SIZES
from xllmc.codegen.triton.lower import lower
from xllmc.compiler.ir.program import Program
from xllmc.runtime.artifact.pages import page_bytes


class Interpreted:
    """A program lowered for ``architecture``, and its state memory, which steps change."""

    def __init__(
        self,
        program: Program,
        weights: Mapping[str, torch.Tensor],
        work: Path,
        architecture: str = "sm_90",
        pages: int = 8,
        invariant: bool = False,
    ) -> None:
        """``weights``: as they are stored, by name. ``pages``: of every state."""
        self.program = program
        self.lowered = lower(program, ARCHITECTURES[architecture], invariant)
        self.plan = self.lowered.plan
        self.kernels = {source.name: source for source in self.lowered.sources}
        self.work = work
        write_sources(self.lowered, work)
        self.weights = {name: to_numpy(value) for name, value in weights.items()}
        self.states = {
            name: np.zeros(pages * page_bytes(kind.kv_heads, kind.key_dim, kind.value_dim, kind.dtype), np.uint8)
            for name, kind in program.states.items()
        }
        self.launched: list[str] = []
        """Origins of the launches that the last run had."""

    def __call__(
        self,
        inputs: Mapping[str, torch.Tensor],
        sizes: Mapping[str, int],
        capture: Mapping[str, int] | None = None,
        functions: tuple[str, ...] = ("forward",),
    ) -> dict[str, torch.Tensor]:
        """Results by name. ``sizes``: T, S, R, B and Q of the step (default of all: 1); ``capture``: of the key."""
        real = {name: sizes.get(name, 1) for name in DEVICE_SIZES}
        memory = {f"weight:{name}": values for name, values in self.weights.items()}
        memory |= {f"state:{name}": values for name, values in self.states.items()}
        memory |= {f"input:{name}": to_numpy(value) for name, value in inputs.items()}
        step = prepare_step(self.lowered, self.work, memory, real, real | dict(capture or {}), functions)
        self.launched = [launch.origin for launch in step.launches]
        after = interpret(step.request)
        self.states = {name: after[f"state:{name}"] for name in self.states}
        return step.results(self.program, after)
