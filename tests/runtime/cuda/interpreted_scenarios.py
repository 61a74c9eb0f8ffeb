"""Compiled engines on the stub driver, whose kernels Triton's interpreter runs from the sources that engines ship."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from xllmc.runtime.artifact.reader import read_plan
from xllmc.runtime.backend import Capture
from xllmc.runtime.cost_command import KernelCost, report_step
from xllmc.runtime.engine import Engine
from xllmc.runtime.machine import choose_profile
from xllmc.runtime.measure import StepShape
from xllmc.runtime.requests import Completion
from xllmc.runtime.sampling import SamplingParams

from tests.runtime.cuda.stub_driver import loaded_stub

LOADING: dict[str, Any] = {"max_tokens": 64, "max_rows": 8, "max_sequences": 4, "kv_tokens": 256}
"""Few keys: every launch of a captured graph costs the interpreter its whole grid."""


def interpret_kernels(engine: Path) -> None:
    """Let the stub run the engine's kernels from now on."""
    os.environ["TRITON_INTERPRET"] = "1"
    from xllmc.codegen.triton.interpret.interpreter import run_kernel

    kernels = {kernel.name: kernel for kernel in read_plan(engine).device_kernels}

    def run(name: str, arguments: list[int], grid: tuple[int, int, int]) -> None:
        pointers = list(kernels[name].pointers)
        run_kernel(engine / "kernels" / f"{name}.py", name, pointers, list(arguments[: len(pointers)]), grid)

    loaded_stub().kernels(run)


def logits_of(path: Path, prompts: list[list[int]]) -> list[np.ndarray]:
    """float32 [T, vocabulary] of each prompt."""
    interpret_kernels(path)
    with Engine.load(path, **LOADING) as engine:
        return [engine.logits(prompt) for prompt in prompts]


def completions(path: Path, prompts: list[list[int]], params: SamplingParams) -> list[Completion]:
    """Of all prompts together."""
    interpret_kernels(path)
    with Engine.load(path, **LOADING) as engine:
        return engine.generate(prompts, params)


def profiled(path: Path) -> tuple[tuple[KernelCost, ...], Capture | None]:
    """Costs of a decode step's kernels, and what was captured."""
    interpret_kernels(path)
    profile = choose_profile("sm_90").profile
    with Engine.load(path, **LOADING) as engine:
        return report_step("decode", engine, StepShape(1, past=20), profile).kernels, engine.capture
