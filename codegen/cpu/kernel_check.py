"""Kernels that plugins bring are run before an engine is made of them, and held against their ops' references.

xllmc's own kernels are tested with xllmc. One that came with a package is built for this machine, run in a process of
its own on two sample steps with one thread and with two, and must give what the reference gives, write nothing else,
and not depend on the threads.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx

from ...compiler.check.samples import Samples
from ...compiler.ir.program import Program, type_of
from ...runtime.artifact.errors import XllmcError
from ...runtime.artifact.isa import supported_isas
from ...runtime.artifact.recipe import Tensor, pack_panels
from ...runtime.artifact.schema import KernelLibrary, Plan
from ..brought import brought_calls, check_reference, compare

TIME_LIMIT = 60
"""Seconds that the runs of one kernel may take."""

Build = Callable[[Program, Path, str], tuple[KernelLibrary, Plan]]
"""Lowers a program and builds its library for an instruction set, in a directory."""


def check_brought(program: Program, work: Path, build: Build, progress: Callable[[str], None]) -> None:
    """Run every kernel of ``program`` that is not xllmc's own. XllmcError names the op and what is wrong.

    Kernels of ops that read or change a cache are not run.
    """
    for number, (node, alone) in enumerate(brought_calls(program, "cpu"), 1):
        progress(f"running {node.target.name}")
        _check(alone, node, work / f"kernel-{number}", build)


def _check(alone: Program, node: fx.Node, directory: Path, build: Build) -> None:
    directory.mkdir()
    library, plan = build(alone, directory, supported_isas()[-1])
    (directory / "library.json").write_text(library.model_dump_json())
    (directory / "plan.json").write_text(plan.model_dump_json())
    runs, expected = [], {}
    for seed in (0, 1):
        run, values = _prepare(alone, seed, directory)
        runs.append(run)
        expected[run["name"]] = values
    (directory / "runs.json").write_text(json.dumps(runs))
    what = f"the CPU kernel of op {node.target.name} ({node.target.kernels['cpu'].__module__}), "
    what += f"for {', '.join(str(type_of(a)) for a in node.args)},"
    command = [sys.executable, "-m", "xllmc.codegen.cpu.kernel_run", str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired as error:
        raise XllmcError(f"{what} does not end within {TIME_LIMIT} s") from error
    if done.returncode < 0:
        raise XllmcError(f"{what} crashes (signal {-done.returncode}); it reads or writes where it must not")
    if done.returncode:
        raise XllmcError(f"{what} is wrong: {(done.stderr.splitlines() or ['no message'])[-1]}")
    for name, values in expected.items():
        for number, value in enumerate(values):
            _compare(what, node, value, [_result(directory, name, t, number, value) for t in (1, 2)])


def _prepare(alone: Program, seed: int, directory: Path) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """One run, written to the directory, and what the reference gives."""
    samples = Samples(seed)
    name, forward = f"run{seed}", alone.forward
    values: dict[fx.Node, Any] = {}
    for node in forward.inputs:
        values[node] = samples.value(str(node.target), type_of(node))
        np.save(directory / f"{name}.{node.target}.npy", carrier(values[node]))
    offsets: dict[str, int] = {}
    stored = bytearray()
    for node in forward.graph.nodes:
        if node.op == "get_attr":
            weight = alone.weights[str(node.target)]
            values[node] = samples.weight(weight, {})
            array = carrier(values[node])
            if weight.layout == "panels":
                array = pack_panels(Tensor(array, weight.type.dtype)).values
            offsets[str(node.target)] = len(stored)
            stored += array.tobytes() + bytes(-array.nbytes % 64)
    if seed == 0:
        np.save(directory / "weights.npy", np.frombuffer(bytes(stored) + bytes(64), np.uint8))
    for node in forward.calls:
        operands = [values[a] if isinstance(a, fx.Node) else a for a in node.args]
        values[node] = node.target(*operands, **node.kwargs)
    results = [values[o] for o in forward.outputs]
    for node, value in zip(forward.outputs, results, strict=True):
        check_reference(node, value, samples)
    run = {
        "name": name,
        "sizes": {s: samples.step.sizes[s] for s in "TSRB"},
        "weights": offsets,
        "inputs": [str(n.target) for n in forward.inputs],
        "results": {r: v.numel() * v.element_size() for r, v in zip(forward.results, results, strict=True)},
    }
    return run, results


def _result(directory: Path, run: str, threads: int, number: int, like: torch.Tensor) -> torch.Tensor:
    raw = torch.from_numpy(np.load(directory / f"{run}.{threads}.result_{number}.npy"))
    return raw.view(like.dtype).reshape(like.shape)


def _compare(what: str, node: fx.Node, expected: torch.Tensor, got: list[torch.Tensor]) -> None:
    one, two = got
    if not torch.equal(one.view(torch.uint8), two.view(torch.uint8)):
        raise XllmcError(f"{what} gives other bits with two threads than with one")
    compare(what, node, expected, one)


def carrier(value: torch.Tensor) -> np.ndarray:
    """The tensor's numbers as numpy has them; bf16 as its bits."""
    plain = value.contiguous()
    array: np.ndarray = (plain.view(torch.uint16) if value.dtype == torch.bfloat16 else plain).numpy()
    return array
