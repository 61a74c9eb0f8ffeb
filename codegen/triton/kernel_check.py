"""Device kernels that plugins bring are interpreted before an engine is made of them, and held against references.

xllmc's own kernels are tested with xllmc. One that came with a package runs in Triton's interpreter, in a process of
its own, on two sample steps; the second is captured for more than it has, as a device's graphs are. It must give what
its op's reference gives, write nothing else, and read nothing but its operands.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import fx

from ...compiler.check.samples import Samples
from ...compiler.ir.program import Program, type_of
from ...runtime.artifact.errors import XllmcError
from ...runtime.artifact.schema import DeviceSize
from ..brought import brought_calls, check_reference, compare
from .architecture import Architecture
from .interpret.process import InterpreterError, interpret
from .interpret.step import prepare_step, to_numpy, write_sources
from .lower import Lowered, lower

TIME_LIMIT = 60
"""Seconds that one step of a kernel may take."""

_SPARE = 3
"""Tokens, sequences and rows that the second capture has beyond its step."""


def check_brought(
    program: Program, machine: Architecture, work: Path, progress: Callable[[str], None], invariant: bool = False
) -> None:
    """Interpret every kernel of ``program`` that is not xllmc's own. XllmcError names the op and what is wrong.

    Kernels of ops that read or change a cache are not run. ``invariant``: those of batch-invariant mode are run.
    """
    for number, (node, alone) in enumerate(brought_calls(program, "triton"), 1):
        progress(f"interpreting {node.target.name}")
        place = work / f"brought-{number}"
        place.mkdir()
        what = f"the Triton kernel of op {node.target.name} ({node.target.kernels['triton'].__module__}), "
        what += f"for {', '.join(str(type_of(a)) for a in node.args)},"
        for seed in (0, 1):
            _check(alone, lower(alone, machine, invariant), node, what, place, seed)


def _check(alone: Program, lowered: Lowered, node: fx.Node, what: str, place: Path, seed: int) -> None:
    samples = Samples(seed)
    values: dict[fx.Node, Any] = {}
    for one in alone.forward.graph.nodes:
        if one.op == "placeholder":
            values[one] = samples.value(str(one.target), type_of(one))
        elif one.op == "get_attr":
            values[one] = samples.weight(alone.weights[str(one.target)], {})
    kinds = {"get_attr": "weight", "placeholder": "input"}
    memory = {f"{kinds[one.op]}:{one.target}": to_numpy(value) for one, value in values.items()}
    for one in alone.forward.calls:
        values[one] = one.target(*(values[a] if isinstance(a, fx.Node) else a for a in one.args), **one.kwargs)
    write_sources(lowered, place)
    counts = samples.step.sizes
    sizes: dict[DeviceSize, int] = {"T": counts["T"], "S": counts["S"], "R": counts["R"], "B": counts["B"], "Q": 3}
    spare = _SPARE if seed else 0
    capture = {name: size + (spare if name != "B" else 0) for name, size in sizes.items()}
    step = prepare_step(lowered, place, memory, sizes, capture)
    try:
        after = interpret(step.request, TIME_LIMIT)
    except InterpreterError as problem:
        raise XllmcError(f"{what} fails in Triton's interpreter: {_last_line(str(problem))}") from problem
    if step.writes_elsewhere(alone, after):
        raise XllmcError(f"{what} writes beyond its results")
    found = step.results(alone, after)
    for result, output in zip(alone.forward.results, alone.forward.outputs, strict=True):
        expected: torch.Tensor = values[output]
        check_reference(output, expected, samples)
        compare(what, node, expected, found[result])


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1][:300]
