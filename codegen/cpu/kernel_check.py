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

from ...compiler.check.compare import SLACK, relative_error
from ...compiler.check.samples import Samples
from ...compiler.ir.program import Function, Program, Weight, emit, emit_weight, is_weight, type_of
from ...compiler.ir.types import PagedType, TensorType, TupleType
from ...compiler.ops import OPS
from ...runtime.artifact.errors import XllmcError
from ...runtime.artifact.isa import supported_isas
from ...runtime.artifact.recipe import Recipe, Tensor, pack_panels
from ...runtime.artifact.schema import KernelLibrary, Plan

TIME_LIMIT = 60
"""Seconds that the runs of one kernel may take."""
OWN = "xllmc."

Build = Callable[[Program, Path, str], tuple[KernelLibrary, Plan]]
"""Lowers a program and builds its library for an instruction set, in a directory."""


def check_brought(program: Program, work: Path, build: Build, progress: Callable[[str], None]) -> None:
    """Run every kernel of ``program`` that is not xllmc's own. XllmcError names the op and what is wrong.

    Kernels of ops that read or change a cache are not run.
    """
    seen: set[str] = set()
    for function in program.functions.values():
        for node in function.calls:
            kernel = node.target.kernels.get("cpu")
            if kernel is None or kernel.__module__.startswith(OWN) or touches_states(node):
                continue
            alone = program_of(program, node)
            key = str([type_of(a) for a in node.args]) + str(sorted(node.kwargs.items(), key=str)) + node.target.name
            if key not in seen:
                seen.add(key)
                progress(f"running {node.target.name}")
                _check(alone, node, work / f"kernel-{len(seen)}", build)


def touches_states(node: fx.Node) -> bool:
    return any(isinstance(type_of(v), PagedType) for v in (*node.args, node))


def program_of(program: Program, node: fx.Node) -> Program:
    """A program of this call alone, whose operands are inputs, or weights stored as they are stored."""
    function = Function("forward", fx.Graph(), ())
    alone = Program(program.facts, {"forward": function}, {}, {}, program.groups, program.stage)
    computed = list(dict.fromkeys(a for a in node.args if isinstance(a, fx.Node) and not is_weight(a)))
    operands: dict[Any, fx.Node] = {}
    for number, value in enumerate(computed):
        operands[value] = function.graph.placeholder(f"input_{number}")
        operands[value].target = f"input_{number}"
        operands[value].meta.update(type=type_of(value), where="")
    for value in dict.fromkeys(a for a in node.args if is_weight(a)):
        kept, name = program.weights[value.target], f"weight_{len(alone.weights)}"
        source = Recipe.source(name, kept.type.sizes, kept.type.dtype)
        alone.weights[name] = Weight(kept.type, source, kept.layout)
        operands[value] = emit_weight(function.graph, alone, name)
    arguments = [operands[a] if isinstance(a, fx.Node) else a for a in node.args]
    call = emit(function.graph, node.target, *arguments, **node.kwargs)
    several = isinstance(type_of(call), TupleType)
    count = len(type_of(call).items) if several else 1
    results = [emit(function.graph, OPS["get"], call, index=i) for i in range(count)] if several else [call]
    function.graph.output(tuple(results))
    function.results = tuple(f"result_{i}" for i in range(count))
    return alone


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
        _check_reference(node, value, samples)
    run = {
        "name": name,
        "sizes": {s: samples.step.sizes[s] for s in "TSRB"},
        "weights": offsets,
        "inputs": [str(n.target) for n in forward.inputs],
        "results": {r: v.numel() * v.element_size() for r, v in zip(forward.results, results, strict=True)},
    }
    return run, results


def _check_reference(node: fx.Node, value: Any, samples: Samples) -> None:
    kind: TensorType = type_of(node)
    if value.dtype != kind.torch_dtype or tuple(value.shape) != samples.shape_of(kind):
        got = f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        raise XllmcError(f"the reference of op {node.target.name} gives {got}, where its type rule says {kind}")


def _result(directory: Path, run: str, threads: int, number: int, like: torch.Tensor) -> torch.Tensor:
    raw = torch.from_numpy(np.load(directory / f"{run}.{threads}.result_{number}.npy"))
    return raw.view(like.dtype).reshape(like.shape)


def _compare(what: str, node: fx.Node, expected: torch.Tensor, got: list[torch.Tensor]) -> None:
    one, two = got
    if not torch.equal(one.view(torch.uint8), two.view(torch.uint8)):
        raise XllmcError(f"{what} gives other bits with two threads than with one")
    kind = str(expected.dtype).removeprefix("torch.")
    names = {"bfloat16": "bf16", "float32": "f32", "float16": "f16", "int32": "i32"}
    allowed = SLACK * node.target.tolerance.get(names.get(kind, kind), 0.0)
    error = relative_error(expected, one)
    if not error <= allowed:
        raise XllmcError(
            f"{what} does not compute what the op's reference does: relative error {error:.3g}, allowed {allowed:.3g}"
        )


def carrier(value: torch.Tensor) -> np.ndarray:
    """The tensor's numbers as numpy has them; bf16 as its bits."""
    plain = value.contiguous()
    array: np.ndarray = (plain.view(torch.uint16) if value.dtype == torch.bfloat16 else plain).numpy()
    return array
