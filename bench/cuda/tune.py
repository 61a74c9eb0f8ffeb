"""Times candidate tiles of matrix products on this machine's GPU, and keeps the fastest of each.

What ``xllmc bench tune`` writes goes to ``codegen/triton/tuned/<architecture>.json``: compiles for that architecture
then prefer it to predictions. Candidates are those that the compiler itself considers, the most promising first.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import fx

from ...codegen.triton.architecture import Architecture
from ...codegen.triton.compile import load_function
from ...codegen.triton.configs import BOUNDS, Variant, candidates
from ...codegen.triton.kernel import DEVICE_SIZES, TritonCall
from ...codegen.triton.predict import MANY, Problem, predict
from ...codegen.triton.providers.matmul import launch_product, problem_of
from ...codegen.triton.tuned import Choice, Choices
from ...compiler.driver import Clock, optimise
from ...compiler.ir.dims import evaluate
from ...compiler.ir.program import Program, is_call, type_of
from ...compiler.ir.types import TORCH_DTYPES, TensorType
from ...compiler.options import CompileOptions
from ...compiler.progress import Silent
from ...runtime.artifact.schema import Pointer
from ...runtime.artifact.sizes import grid_of_axes

Timer = Callable[[Callable[[], None]], float]
"""Milliseconds of a call, with cold caches."""


def products(model: Path, target: str, dtype: str) -> tuple[Program, dict[Problem, fx.Node]]:
    """A model's optimised program, and one node for each kind of matrix product in it."""
    options = CompileOptions(target=target, dtype=dtype, random_weights=0, verification="structure")
    program = optimise(model, model.with_name("tuned.engine"), options, Silent(), Clock()).program
    found: dict[Problem, fx.Node] = {}
    for node in program.forward.calls:
        if is_call(node, "linear"):
            found.setdefault(problem_of(node), node)
    return program, found


def tune(
    torch: Any,
    program: Program,
    nodes: Mapping[Problem, fx.Node],
    machine: Architecture,
    most: int,
    timer: Timer,
    say: Callable[[str], None],
) -> Iterator[Choice]:
    """The fastest of the ``most`` candidates that are predicted to be, for each product and range of rows."""
    with tempfile.TemporaryDirectory(prefix="xllmc-") as work:
        for problem, node in nodes.items():
            for bound in BOUNDS:
                bounded = replace(problem, rows=bound)
                wanted = sorted(candidates(bounded, machine), key=lambda c: predict(bounded, c, machine))[:most]
                say(f"{problem.columns} x {problem.inner}, rows {bound or MANY}: {len(wanted)} candidates")
                times = {}
                for number, config in enumerate(wanted):
                    call = TritonCall(program, "forward", node, machine)
                    launch_product(call, bounded, Variant(1, bound, config))
                    run = runnable(torch, call, bound or MANY, Path(work))
                    times[number] = timer(run)
                best = wanted[min(times, key=lambda number: times[number])]
                yield Choice(
                    dtype=problem.dtype,
                    columns=problem.columns,
                    inner=problem.inner,
                    gated=problem.gated,
                    rows=bound,
                    tiles=dict(best.tiles),
                    warps=best.warps,
                    stages=best.stages,
                )


def runnable(torch: Any, call: TritonCall, rows: int, work: Path, device: str = "cuda") -> Callable[[], None]:
    """What launches a call's kernels through Triton, on random operands of its own."""
    sizes = dict.fromkeys(DEVICE_SIZES, rows)
    memory: dict[Pointer, Any] = {
        Pointer(kind="sizes", name=""): torch.tensor([rows] * len(DEVICE_SIZES), dtype=torch.int32, device=device)
    }

    named = {str(name): size for name, size in sizes.items()}

    def add(pointer: Pointer, kind: TensorType) -> None:
        shape = [evaluate(size, named) for size in kind.shape]
        memory[pointer] = torch.randn(shape, device=device).to(TORCH_DTYPES[kind.dtype])

    for operand in call.node.all_input_nodes:
        add(call.value(operand).pointer, type_of(operand))
    add(call.result().pointer, type_of(call.node))
    for scratch in call.scratches:
        add(Pointer(kind="buffer", name=f"{call.function}:{scratch.value_name}"), scratch.type)
    launches = []
    for pending in call.launches:
        kernel = load_function(pending.kernel, work)
        operands = [memory[pointer] for pointer in pending.pointers]
        options = {"num_warps": pending.kernel.config.warps, "num_stages": pending.kernel.config.stages}
        launches.append((kernel[grid_of_axes(pending.grid, sizes)], operands, options))

    def run() -> None:
        for launch, operands, options in launches:
            launch(*operands, **options)

    return run


def merged(known: Choices | None, found: list[Choice], device: str) -> Choices:
    """``known`` with what was found in its place."""
    kept = {choice.problem: choice for choice in (known.choices if known else ())}
    kept |= {choice.problem: choice for choice in found}
    return Choices(device=device, choices=tuple(kept.values()))
