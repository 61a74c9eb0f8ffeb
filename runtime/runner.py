"""Runs steps: what was checked at the door, on a machine's backend. Steps are made ready before, not meanwhile."""

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .artifact.schema import Manifest, Work
from .backend import Backend, Capture, PreparedStep, Ran, StepSizes, Store
from .door import check_step, checked_arrays
from .observe import KernelTimes
from .plan import Capacities
from .step import StepInput, StepOutput
from .weights import Weights


class KernelTime(NamedTuple):
    origin: str
    kernel: str
    seconds: float
    """Median of the rounds; 0 for a launch that the step's sizes leave out."""
    function: str
    work: Work | None
    rounds: np.ndarray
    """Seconds of each."""


class Runner:
    """One step at a time, from any thread."""

    def __init__(self, manifest: Manifest, backend: Backend, capacities: Capacities, weights: Weights) -> None:
        self.weights = weights
        self.lock = threading.RLock()
        """Held while a step runs, or the memory of weights or states changes."""
        self._manifest = manifest
        self._backend = backend
        self._capacities = capacities
        launches = {name: function.launches for name, function in backend.functions.items()}
        self._origins = {name: tuple(launch.origin for launch in each) for name, each in launches.items()}
        self._kernels = {name: tuple(launch.kernel for launch in each) for name, each in launches.items()}
        self._inputs = {name: [i.name for i in function.inputs] for name, function in backend.functions.items()}

    @property
    def store(self) -> Store:
        """The memory of states."""
        return self._backend.store

    @property
    def capture(self) -> Capture | None:
        """What a device recorded at load."""
        return self._backend.capture

    def check_open(self) -> None:
        """Raise OptionError after ``close``, and DeviceError after a device failed."""
        self._backend.check_open()

    def close(self) -> None:
        """Give back the machine's memory and threads."""
        with self.lock:
            self._backend.close()

    def set_weights(self, weights: Weights) -> None:
        """Use these from the next step on."""
        with self.lock:
            self.check_open()
            self._backend.set_weights(weights)
            self.weights = weights

    def adopt_thread(self) -> None:
        """Know that the calling thread is the engine's own, and runs steps."""
        self._backend.adopt_thread()

    def prepare(self, step: StepInput) -> PreparedStep:
        """Check a step and bring its arrays into the kernels' form. Raises OptionError for one that does not fit."""
        step = checked_arrays(step)
        owner = check_step(step, self._manifest, self._capacities, self._backend.pages)
        rows = step.logit_rows.size
        values: dict[str, dict[str, np.ndarray]] = {"forward": {}}
        for name in self._inputs["forward"]:
            kind, _, group = name.partition(".")
            if kind == "slots":
                values["forward"][name] = self._slots(step, int(group), owner)
            elif kind == "block_table":
                values["forward"][name] = step.block_tables[int(group)]
            else:
                values["forward"][name] = getattr(step, name)
        if rows and step.sampling is not None:
            values["sample"] = {name: getattr(step.sampling, name) for name in self._inputs["sample"]}
        if rows and step.targets is not None:
            values["score"] = {"targets": step.targets}
        sizes = StepSizes(
            tokens=step.token_ids.size,
            sequences=step.query_starts.size - 1,
            rows=rows,
            table_columns=step.block_tables[0].shape[1] if step.block_tables else 0,
            most_tokens=int(np.diff(step.query_starts).max()),
        )
        return self._backend.prepare(sizes, values)

    def run(
        self, step: PreparedStep, timed: bool = False, logits: bool = True
    ) -> tuple[StepOutput, tuple[KernelTimes, ...]]:
        """The results, and how long each kernel took if that was asked for. Hold ``lock`` while using the logits;
        without ``logits``, they may be left where they were computed, and [0, V] is given.
        """
        with self.lock:
            return self.output(self.finish(self.begin(step, timed, logits)))

    def begin(self, step: PreparedStep, timed: bool = False, logits: bool = True) -> Callable[[], Ran]:
        """Start a step, as ``run`` takes it. Hold ``lock`` from here until ``finish`` has returned."""
        self.check_open()
        return self._backend.begin(step, logits, timed)

    def finish(self, begun: Callable[[], Ran]) -> Ran:
        """Wait for the end of the step that was begun."""
        return begun()

    def output(self, ran: Ran) -> tuple[StepOutput, tuple[KernelTimes, ...]]:
        """Of a step that ended, what ``run`` returns; the next one may have begun."""
        ran.logits.flags.writeable = False
        output = StepOutput(self.weights.version, ran.logits, **ran.results())
        times = (KernelTimes(f, began, self._origins[f], self._kernels[f], s) for f, began, s in ran.times)
        return output, tuple(times)

    def profile(self, step: StepInput, rounds: int) -> tuple[KernelTime, ...]:
        """Run a step, then each of its plans ``rounds`` times in direct succession, timing every kernel."""
        prepared = self.prepare(step)
        with self.lock:
            self.run(prepared)
            return tuple(time for function in prepared.inputs for time in self._profiled(prepared, function, rounds))

    def _profiled(self, step: PreparedStep, function: str, rounds: int) -> list[KernelTime]:
        launches = self._backend.functions[function].launches
        seconds = np.array([self._backend.time(step, function) for _ in range(rounds)]).reshape(rounds, len(launches))
        return [
            KernelTime(launch.origin, launch.kernel, float(np.median(times)), function, launch.work, times)
            for launch, times in zip(launches, seconds.T, strict=True)
        ]

    def _slots(self, step: StepInput, group: int, owner: np.ndarray) -> np.ndarray:
        """Where each token's key and value go: page * page_tokens + place in the page."""
        page_tokens = self._manifest.groups[group].page_tokens
        blocks, places = np.divmod(step.positions[0], page_tokens)
        return step.block_tables[group][owner, blocks] * page_tokens + places
