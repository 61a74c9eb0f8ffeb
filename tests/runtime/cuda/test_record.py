"""What the driver is told equals the plan, argument for argument: the capture of every key, and its replay."""

import math
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from xllmc.runtime.artifact.schema import FunctionPlan, Launch, Plan, Pointer

from tests.runtime.cuda.scenarios import SMALL, every_key
from tests.runtime.cuda.stub_driver import Gpu, Record
from tests.runtime.cuda.toy_cuda import KERNELS, cuda_plan
from tests.runtime.toy import WEIGHTS

COLUMNS = 7
"""Of the block tables: pages of 32 for a context of 200."""
DECODE = [(n, n, n, 1) for n in (1, 2, 4, 6)]
MIXED = [(16, 6, 6, 16), (24, 6, 6, 24)]
FORWARD = sorted([*DECODE, *MIXED])
"""T, S, R and Q of every key for the capacities ``SMALL``."""
ROWS = [(n, n, n, 1) for n in (1, 2, 4, 6)]
STEPS = [
    ((1, 1, 1, 1), True, False),
    ((2, 2, 2, 1), True, True),
    ((3, 3, 2, 1), False, True),
    ((5, 5, 0, 1), False, False),
    ((6, 6, 6, 1), True, False),
    ((9, 3, 3, 4), True, False),
    ((16, 1, 1, 16), False, False),
    ((24, 6, 6, 12), True, True),
    ((17, 2, 5, 9), True, False),
]
"""T, S, R and Q, sampled, scored."""
USED = [(1, 1, 1, 1), (2, 2, 2, 1), (4, 4, 4, 1), (6, 6, 6, 1), (6, 6, 6, 1), MIXED[0], MIXED[0], MIXED[1], MIXED[1]]
"""The key of each."""


@pytest.fixture(scope="module")
def record(gpu: Gpu, cuda_toy: Path, toy_library: Path) -> Record:
    return gpu.play(every_key, cuda_toy, toy_library, STEPS)


def graphs() -> list[tuple[FunctionPlan, tuple[int, int, int, int]]]:
    """Function and key of every graph, in the order of their capture."""
    return [(f, key) for f in cuda_plan().functions for key in (FORWARD if f.name == "forward" else ROWS)]


def due(function: FunctionPlan, key: tuple[int, int, int, int]) -> list[tuple[Launch, list[int]]]:
    """The launches that a graph must have, with their grids."""
    sizes: dict[Any, int] = {**dict(zip("TSRQ", key, strict=True)), "B": COLUMNS}
    found = []
    for launch in function.launches:
        assert launch.grid is not None
        grid = [
            sum(math.ceil(t.factor * (sizes[t.symbol] if t.symbol else 1) / t.divisor) for t in a) for a in launch.grid
        ]
        if all(c.least <= sizes[c.symbol] <= (c.most or math.inf) for c in launch.when):
            found.append((launch, grid))
    return found


def captures(record: Record) -> list[tuple[list[dict[str, Any]], int]]:
    """What was captured, and the executable it became."""
    found: list[tuple[list[dict[str, Any]], int]] = []
    for line in record.log:
        if line.get("call") == "cuStreamBeginCapture":
            found.append(([], 0))
        elif line.get("captured"):
            found[-1][0].append(line)
        elif line.get("call") == "cuGraphInstantiate":
            found[-1] = (found[-1][0], line["executable"])
    return found


def kernels(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if "kernel" in line]


def test_every_key_is_captured_once_with_the_launches_of_the_plan(record: Record) -> None:
    made = captures(record)
    assert len(made) == len(graphs())
    resources = {k.name: (32 * k.warps, k.shared_bytes) for k in cuda_plan().device_kernels}
    for (function, key), (lines, _) in zip(graphs(), made, strict=True):
        told = [(c["kernel"], c["grid"], (c["block"], c["shared"])) for c in kernels(lines)]
        assert told == [(one.kernel, grid, resources[one.kernel]) for one, grid in due(function, key)], (
            function.name,
            key,
        )
    few = [{c["kernel"] for c in kernels(lines)} for lines, _ in made[: len(FORWARD)]]
    assert ["toy_logits" in names for names in few] == [True] * 4 + [False] * 2, "kernels for few and for many tokens"


def test_every_argument_is_the_address_that_the_plan_means(record: Record) -> None:
    plan, places = cuda_plan(), Places(record)
    for (function, key), (lines, _) in zip(graphs(), captures(record), strict=True):
        for call, (launch, _) in zip(kernels(lines), due(function, key), strict=True):
            assert call["arguments"][-2:] == [0, 0], "Triton's scratch memory"
            assert len(call["arguments"]) == len(KERNELS[launch.kernel]) + 2
            for operand, address in zip(launch.operands, call["arguments"], strict=False):
                assert isinstance(operand, Pointer)
                places.meet(function.name, key, operand, address)
    places.check(plan)


class Places:
    """Which pointer was given as which address."""

    def __init__(self, record: Record) -> None:
        self.allocated = {c["address"]: c["bytes"] for c in record.calls("cuMemAlloc")}
        self.reserved = {c["address"]: c["bytes"] for c in record.calls("cuMemAddressReserve")}
        self.fixed: dict[tuple[str, str], int] = {}
        self.inputs: dict[Any, dict[str, int]] = {}

    def meet(self, function: str, key: Any, pointer: Pointer, address: int) -> None:
        if pointer.kind == "input" and function == "forward":
            # Inputs are packed anew for every key.
            assert self.inputs.setdefault(key, {}).setdefault(pointer.name, address) == address
        else:
            assert self.fixed.setdefault((pointer.kind, pointer.name), address) == address, "one address for all keys"

    def check(self, plan: Plan) -> None:
        (arena,) = (a for a, size in self.allocated.items() if size == plan.arenas["R"] * SMALL["max_rows"])
        for buffer in plan.buffers:
            assert self.fixed["buffer", buffer.name] == arena + buffer.offset * SMALL["max_rows"]
        states = [self.fixed["state", name] for name in ("all", "window")]
        assert len(set(states)) == 2 and set(states) <= self.reserved.keys()
        weights = sorted(self.fixed["weight", w.name] for w in WEIGHTS)
        assert weights[0] in self.allocated and [b - a for a, b in pairwise(weights)] == [1280, 1280]
        growing = [self.fixed["input", name] for name in ("history", "bias_ids", "bias_values", "bitmask")]
        assert len({*growing, *states}) == 6 and set(growing) <= self.reserved.keys()
        self.check_inputs()

    def check_inputs(self) -> None:
        """No two overlap, under any key."""
        for (tokens, sequences, rows, _), given in self.inputs.items():
            table = sequences * COLUMNS
            room = {"query_starts": sequences + 1, "logit_rows": rows, "block_table.0": table, "block_table.1": table}
            spans = [(address, address + 4 * room.get(name, tokens)) for name, address in given.items()]
            fixed = {"rows": 80 * SMALL["max_rows"], "targets": 4 * SMALL["max_rows"]}
            spans += [(self.fixed["input", n], self.fixed["input", n] + size) for n, size in fixed.items()]
            sizes = self.fixed["sizes", ""]
            spans = sorted([*spans, (sizes, sizes + 20)])
            assert all(a[1] <= b[0] for a, b in pairwise(spans))
            start, stop = spans[0][0], spans[-1][1]
            assert start in self.allocated and stop <= start + self.allocated[start]


def steps_of(record: Record) -> list[list[dict[str, Any]]]:
    """The log after each step's mark."""
    found: list[list[dict[str, Any]]] = []
    for line in record.log:
        if str(line.get("mark", "")).startswith("step"):
            found.append([])
        elif line.get("mark") == "closing":
            return found
        elif found:
            found[-1].append(line)
    raise AssertionError("the log has no end")


def test_a_step_replays_the_graphs_of_its_key(record: Record) -> None:
    executables = {(f.name, key): e for (f, key), (_, e) in zip(graphs(), captures(record), strict=True)}
    captured = {executable: kernels(lines) for lines, executable in captures(record)}
    for (sizes, sampled, scored), key, lines in zip(STEPS, USED, steps_of(record), strict=True):
        rows = next((k for k in ROWS if k[2] >= sizes[2]), None)
        expected = [executables["forward", key]]
        expected += [
            executables[name, rows] for name, on in (("sample", sampled), ("score", scored)) if on and sizes[2]
        ]
        launched = [line["executable"] for line in lines if line.get("call") == "cuGraphLaunch"]
        assert launched == expected, sizes
        ran = [(r["kernel"], r["grid"], r["arguments"]) for r in lines if r.get("run") == "kernel"]
        assert ran == [(c["kernel"], c["grid"], c["arguments"]) for e in expected for c in captured[e]]
        assert not [line for line in lines if line.get("call") == "cuLaunchKernel"]


def test_kernels_read_the_real_sizes(record: Record) -> None:
    for (tokens, sequences, rows, most), seen in zip([s for s, *_ in STEPS], record.result, strict=True):
        assert seen and all(sizes == [tokens, sequences, rows, 1, most] for sizes in seen)


def test_a_step_is_one_copy_there_and_one_wait(record: Record) -> None:
    for (sizes, sampled, scored), lines in zip(STEPS, steps_of(record), strict=True):
        calls = [line["call"] for line in lines if "call" in line and not line["call"].startswith("cuMem")]
        graphs = 1 + bool(sampled and sizes[2]) + bool(scored and sizes[2])
        assert calls == ["cuGraphLaunch"] * graphs + ["cuStreamSynchronize"], sizes
        copies = [line["call"] for line in lines if line.get("call", "").startswith("cuMemcpy")]
        logits = ["cuMemcpyDtoHAsync"] if sizes[2] else []
        assert copies == logits, "of a step by hand, which wants them; all else is in the graphs"
        there = [line for line in lines if line.get("run") == "copy" and line["what"] == "cuMemcpyHtoDAsync"]
        assert len(there) == 1
        back = [line for line in lines if line.get("run") == "copy" and line["what"] == "cuMemcpyDtoHAsync"]
        assert len(back) == graphs - 1, "each function's results in one piece"


def test_what_a_kernel_may_not_have_unasked_is_asked_for(record: Record) -> None:
    assert [(c["kernel"], c["value"]) for c in record.calls("cuFuncSetAttribute")] == [("toy_sample", 64 << 10)]
