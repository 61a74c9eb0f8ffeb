"""What tests have the runtime do in the process that has the stub driver."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import driver
from xllmc.runtime.artifact.errors import ArtifactError, DeviceError, OptionError
from xllmc.runtime.cuda import layout
from xllmc.runtime.cuda.calls import call
from xllmc.runtime.engine import Engine
from xllmc.runtime.sampling import RowRequest, SamplingParams, sampling_input
from xllmc.runtime.step import StepInput

from tests.runtime.cuda.stub_driver import Stub, loaded_stub
from tests.runtime.cuda.toy_cuda import CpuKernels
from tests.runtime.toy import VOCAB, checkpoint

SMALL = {"max_tokens": 24, "max_rows": 6, "max_sequences": 6, "kv_tokens": 800}
"""Capacities as of the CPU's toy engine in its tests."""


@contextmanager
def running(engine: Path, library: Path, **options: Any) -> Iterator[tuple[Engine, Stub, CpuKernels]]:
    """An engine whose kernels compute."""
    stub, kernels = loaded_stub(), CpuKernels(library)
    stub.kernels(kernels)
    try:
        with Engine.load(engine, **{**SMALL, **options}) as loaded:
            stub.mark("loaded")
            yield loaded, stub, kernels
            stub.mark("closing")
    finally:
        stub.kernels(None)


def generate(engine: Path, library: Path, prompts: list[list[int]], params: list[SamplingParams]) -> list[Any]:
    """What each of ``params`` makes of the prompts."""
    with running(engine, library) as (loaded, _, _):
        return [loaded.generate(prompts, one) for one in params]


def generate_on_a_quick_device(engine: Path, library: Path, *given: Any) -> list[Any]:
    """The same, where the device has done everything before the call that asks for it returns."""
    loaded_stub().eager(True)
    try:
        return generate(engine, library, *given)
    finally:
        loaded_stub().eager(False)


def generate_with_loose_tables(engine: Path, library: Path, *given: Any) -> list[Any]:
    """The same, where no table is small enough for a graph to copy it whole."""
    usual = layout.LARGE_TABLES
    layout.LARGE_TABLES = 0
    try:
        return generate(engine, library, *given)
    finally:
        layout.LARGE_TABLES = usual


def load_only(engine: Path, options: dict[str, Any]) -> None:
    """Load and close."""
    with Engine.load(engine, **{**SMALL, **options}):
        loaded_stub().mark("loaded")


def step_of(sizes: tuple[int, int, int, int], sampled: bool, scored: bool) -> StepInput:
    """A step of the toy of T tokens, S sequences, R rows, of which one sequence has Q tokens; pages as they come."""
    tokens, sequences, rows, most = sizes
    lengths = np.ones(sequences, np.int64)
    lengths[0] = most
    spare = tokens - lengths.sum()
    for i in range(1, sequences):
        more = min(spare, most - 1)
        lengths[i] += more
        spare -= more
    assert not spare, "the sizes fit no step"
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    table = np.arange(sequences, dtype=np.int32)[:, None]
    greedy = RowRequest(SamplingParams(temperature=0), 0, 0, [1], 1)
    return StepInput(
        token_ids=np.arange(tokens, dtype=np.int32) + 3,
        positions=np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])[None],
        query_starts=starts,
        block_tables=(table, table),
        logit_rows=np.arange(rows, dtype=np.int32) % tokens,
        sampling=sampling_input([greedy] * rows, VOCAB) if sampled else None,
        targets=np.arange(rows, dtype=np.int32) if scored else None,
    )


def every_key(engine: Path, library: Path, steps: list[tuple[tuple[int, int, int, int], bool, bool]]) -> Any:
    """Run ``steps``, each after a mark; the sizes that each one's kernels read."""
    with running(engine, library) as (loaded, stub, kernels):
        seen = []
        for number, (sizes, sampled, scored) in enumerate(steps):
            kernels.run_sizes.clear()
            stub.mark(f"step {number}")
            loaded.step(step_of(sizes, sampled, scored))
            seen.append([sizes for _, sizes, _ in kernels.run_sizes])
        return seen


def refusal(engine: Path, options: dict[str, Any], architecture: int = 90) -> str:
    """What loading says, where it must fail."""
    loaded_stub().architecture(architecture)
    try:
        Engine.load(engine, **{**SMALL, **options})
    except (ArtifactError, OptionError, DeviceError) as problem:
        return f"{type(problem).__name__}: {problem}"
    raise AssertionError("it loaded")


def absent_function() -> str:
    """What is said of a function that the driver does not have."""
    try:
        call(driver.cuStreamQuery, 0)
    except DeviceError as problem:
        return str(problem)
    raise AssertionError("it was there")


def every_refused_call(engine: Path, names: list[str]) -> dict[str, list[str]]:
    """Load with one call after the other failing, the first and the last of each name: what loading said. Nothing
    may be left behind, whatever fails.
    """
    stub, said = loaded_stub(), {}
    for name, count in Counter(names).items():
        for skipped in dict.fromkeys((0, count // 2, count - 1)):
            for code in (2, 999):
                stub.fail(name, skipped, code)
                try:
                    with Engine.load(engine, **SMALL):
                        problem = "loaded"
                except (ArtifactError, OptionError, DeviceError) as error:
                    problem = f"{type(error).__name__}: {error}"
                stub.fail("nothing")
                assert not stub.outstanding(), f"{name} call {skipped}, error {code}: {problem}"
                said.setdefault(name, []).append(problem)
    return said


def broken_device(engine: Path, library: Path, kernel: str) -> list[str]:
    """What is said when a kernel breaks the device, and afterwards."""
    stub, said = loaded_stub(), []
    with running(engine, library) as (loaded, _, _):
        loaded.generate([[1, 2]], SamplingParams(temperature=0, max_tokens=2))
        stub.poison(kernel)
        for attempt in (
            lambda: loaded.generate([[3, 4]], SamplingParams(temperature=0, max_tokens=4)),
            lambda: loaded.generate([[3, 4]], SamplingParams(temperature=0, max_tokens=4)),
            lambda: loaded.step(step_of((1, 1, 1, 1), True, False)),
            lambda: loaded.update_weights(checkpoint(1)),
        ):
            try:
                attempt()
                said.append("it went on")
            except DeviceError as problem:
                said.append(str(problem))
    return said


def short_of_memory(engine: Path, library: Path, spare: int) -> tuple[list[str], list[Any], int]:
    """An engine on a device that has ``spare`` bytes beside what loading takes: what too many sequences are told, what
    one is given afterwards, and the bytes that were taken.
    """
    said: list[str] = []
    with running(engine, library, max_sequences=6, kv_tokens=None, max_tokens=24) as (loaded, stub, _):
        before = stub.used
        stub.memory(before + spare)
        params = SamplingParams(temperature=0, max_tokens=60)
        try:
            loaded.generate([[n] * 130 for n in range(6)], params)
            said.append("there was room")
        except OptionError as problem:
            said.append(str(problem))
        stub.memory(1 << 30)
        made = loaded.generate([[7] * 130], params)
        return said, made, stub.used - before
