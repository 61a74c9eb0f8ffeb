"""A GPU behind an engine: graphs captured at load for every key, over one set of buffers; a step replays them.

All work goes to one stream. A step's inputs are put into pinned memory, and its functions' graphs are launched: forward
begins with copying the inputs to the device, each other one ends with copying its results back. The host waits once.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import numpy as np
from cuda.bindings import driver

from ..artifact.errors import XllmcError
from ..artifact.writer import WEIGHTS
from ..backend import NO_TOKENS, RESULTS, Capture, FunctionTimes, PreparedStep, Ran, StepSizes
from ..opening import Opening
from ..weights import Weights, open_weights
from .bound import DevicePlan, Graph
from .calls import OutOfMemoryError, call
from .device import Device
from .graphs import capture
from .keys import choose, choose_rows
from .launches import check_launches
from .layout import Span
from .results import Results, results_bytes
from .state_memory import StateMemory
from .step import PackedStep, pack
from .timing import Stopwatch

_KV_SHARE = 0.9
"""Of the memory that is free once weights and buffers have theirs, what the key-value pool may come to take unless
``kv_tokens`` says otherwise; captured graphs need some too."""

_SWITCH_SECONDS = 2e-5
"""How long another thread may keep the interpreter from the one that waits for the device, which then has the next step
to launch."""


def open_cuda(opening: Opening) -> tuple["CudaBackend", Weights]:
    """Raises ArtifactError, OptionError, DeviceError; then everything is given back."""
    check_launches(opening.plan, (entry.path for entry in opening.manifest.files))
    with ExitStack() as undo:
        device = Device(opening.manifest.target)
        undo.callback(device.close)
        weights = open_weights(opening.root / WEIGHTS, opening.manifest)
        try:
            backend = CudaBackend(opening, device, weights)
        except OutOfMemoryError as problem:
            raise device.no_room("the engine") from problem
        undo.pop_all()
    return backend, weights


class CudaBackend:
    """A plan bound to a device's memory, and its graphs."""

    threads = None

    def __init__(self, opening: Opening, device: Device, weights: Weights) -> None:
        manifest = opening.manifest
        self.isa = manifest.target.partition(":")[2]
        self._device = device
        self._vocab_size = manifest.model.vocab_size
        self._plan = DevicePlan(opening, device)
        self.functions = self._plan.functions
        self.pages = opening.pages(device.free_bytes() * _KV_SHARE)
        self.store = StateMemory(device, manifest.states, self.pages, opening.host_pages, opening.page_tokens)
        self._plan.place_states(self.store.addresses)
        self._plan.weights.write(weights)
        self._stopwatch = Stopwatch(device)
        self._results = self._place_results(opening.capacities.rows)
        began, self._launches = time.perf_counter(), 0
        self._graphs = {graph: self._captured(graph) for graph in self._plan.graphs}
        device.synchronize()
        self.capture = Capture(len(self._graphs), self._launches, time.perf_counter() - began)

    def check_open(self) -> None:
        self._device.check_open()

    def adopt_thread(self) -> None:
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        with suppress(XllmcError):
            self._device.adopt_thread()

    def prepare(self, sizes: StepSizes, values: Mapping[str, Mapping[str, np.ndarray]]) -> PreparedStep:
        key, rows_key = choose(self._plan.keys, sizes), choose_rows(self._plan.row_keys, sizes.rows)
        graphs = tuple((name, key if name == "forward" else rows_key) for name in values)
        tables = [values["forward"].get(f"block_table.{group}") for group in range(len(self.pages))]
        pages = tuple(0 if table is None else int(table.max(initial=-1)) + 1 for table in tables)
        step = pack(sizes, values, self._plan.dtypes, graphs, self._plan.layouts[key], pages)
        for name, array in step.growing.items():
            self._plan.growing[name].check(array)
        # While a step runs, pages of the next one get their memory. Where that fails, the step itself will say so.
        with suppress(XllmcError):
            self._device.activate()
            self.store.grow(pages)
        return step

    def begin(self, step: PreparedStep, logits: bool, timed: bool) -> Callable[[], Ran]:
        assert isinstance(step, PackedStep)
        if timed:
            return partial(self._run_timed, step, logits)
        with self._device.working(lambda: self._described(step)):
            self._send(step)
            for graph in step.graphs:
                call(driver.cuGraphLaunch, self._graphs[graph], self._device.stream)
        return partial(self._finish, step, logits, ())

    def _run_timed(self, step: PackedStep, logits: bool) -> Ran:
        times = []
        with self._device.working(lambda: self._described(step)):
            self._send(step)
            for graph in step.graphs:
                times.append(FunctionTimes(graph[0], time.perf_counter(), self._timed(graph)))
        return self._finish(step, logits, tuple(times))

    def _finish(self, step: PackedStep, logits: bool, times: tuple[FunctionTimes, ...]) -> Ran:
        """Wait for a step, and read its results."""
        rows = step.sizes.rows
        found = np.empty((rows if logits else 0, self._vocab_size), np.float32)
        with self._device.working(lambda: self._described(step)):
            if found.size:
                address = self._plan.output("forward", "logits")
                call(driver.cuMemcpyDtoHAsync, found.ctypes.data, address, found.nbytes, self._device.stream)
            self._device.synchronize()
        arrived = [(results, results.snapshot()) for results in map(self._results.get, step.graphs) if results]
        # Sampling is the first to have results.
        tokens = arrived[0][0].read(arrived[0][1], "tokens", rows) if "sample" in step.inputs else NO_TOKENS
        return Ran(tokens, partial(_read, arrived, rows), found, times)

    def time(self, step: PreparedStep, function: str) -> np.ndarray:
        assert isinstance(step, PackedStep)
        (graph,) = (graph for graph in step.graphs if graph[0] == function)
        with self._device.working(lambda: self._described(step)):
            return self._timed(graph)

    def set_weights(self, weights: Weights) -> None:
        with self._device.working(lambda: "an update of the weights"):
            self._plan.weights.write(weights)

    def close(self) -> None:
        self.store.close()

    def _send(self, step: PackedStep) -> None:
        """Bring the step's inputs to where its graphs find them."""
        # All that may find no room comes before the first copy, whose source the next step would write over.
        self.store.grow(step.pages)
        for name, array in step.growing.items():
            self._plan.growing[name].reserve(array)
        for name, array in step.growing.items():
            self._plan.growing[name].send(array)
        self._plan.stage(step.packed, step.spans)
        for span in step.loose:
            self._plan.send(span, self._device.stream)

    def _send_captured(self, graph: Graph, stream: Any) -> None:
        """Copy the inputs to the device, as forward's graphs do."""
        name, key = graph
        if name == "forward":
            self._plan.send(Span(0, self._plan.layouts[key].captured), stream)

    def _place_results(self, rows: int) -> dict[Graph, Results]:
        """Of every graph whose function has some; those of one function share memory."""
        memory = {
            name: self._device.pinned(results_bytes(results, rows), "the results of a step")
            for name, results in RESULTS.items()
            if results
        }
        return {
            (name, key): Results(RESULTS[name], self._plan.outputs(name), key.rows, memory[name])
            for name, key in self._plan.graphs
            if name in memory
        }

    def _captured(self, graph: Graph) -> Any:
        launches = self._plan.launches(graph)
        self._launches += len(launches)

        def enqueue(stream: Any) -> None:
            self._send_captured(graph, stream)
            for launch in launches:
                launch.enqueue(stream)
            if graph in self._results:
                self._results[graph].enqueue(stream)

        return capture(self._device, enqueue)

    def _timed(self, graph: Graph) -> np.ndarray:
        """Run a graph's launches one by one: seconds of each of the function's."""
        self._send_captured(graph, self._device.stream)
        seconds = self._stopwatch.run(self._plan.launches(graph), len(self.functions[graph[0]].launches))
        if graph in self._results:
            self._results[graph].enqueue(self._device.stream)
        return seconds

    def _described(self, step: PackedStep) -> str:
        """What ran, for the error of a device that failed."""
        parts = []
        for graph in step.graphs:
            launches = self.functions[graph[0]].launches
            origins = [launches[launch.index].origin for launch in self._plan.launches(graph)]
            kernels = f"{len(origins)} kernels from {origins[0]} to {origins[-1]}" if origins else "no kernel"
            parts.append(f"{graph[0]} ({kernels})")
        tokens, sequences, rows, *_ = step.sizes
        return f"{' and '.join(parts)} in a step of T={tokens} S={sequences} R={rows}"


def _read(arrived: Sequence[tuple[Results, np.ndarray]], rows: int) -> dict[str, np.ndarray]:
    return {field: values for results, copy in arrived for field, values in results.read_all(copy, rows).items()}
