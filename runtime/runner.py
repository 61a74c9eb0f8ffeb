"""Runs steps: an engine's plan, bound to weights and states. Steps are checked and made ready before, not meanwhile."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .artifact.schema import Manifest, Plan, Work
from .door import check_step, checked_arrays
from .library import Kernels, closed
from .observe import KernelTimes
from .plan import BoundPlan, Capacities
from .sampling import TOP_LOGPROBS
from .states.paged_store import PagedStore
from .step import StepInput, StepOutput
from .weights import Weights


class KernelTime(NamedTuple):
    origin: str
    kernel: str
    seconds: float
    """Median of the rounds."""
    function: str
    work: Work | None
    rounds: np.ndarray
    """Seconds of each."""


@dataclass(frozen=True)
class PreparedStep:
    """A step that was checked: nothing is left to do but to run it."""

    sizes: tuple[int, int, int, int]
    """Tokens, sequences, rows, columns of the block tables."""
    inputs: Mapping[str, Mapping[str, np.ndarray]]
    """By function that is to run, and name: arrays as the kernels take them. Their values may change until they run."""

    @property
    def token_ids(self) -> np.ndarray:
        """i32 [T]"""
        return self.inputs["forward"]["token_ids"]

    @property
    def history(self) -> np.ndarray:
        """i32: the tokens that penalties of the sampling plan look at."""
        return self.inputs["sample"]["history"]


class Runner:
    """One step at a time, from any thread."""

    def __init__(
        self,
        manifest: Manifest,
        plan: Plan,
        kernels: Kernels,
        capacities: Capacities,
        store: PagedStore,
        weights: Weights,
        threads: int,
        pages: list[int],
    ) -> None:
        """``pages``: of each state group."""
        self.weights = weights
        self.store = store
        self.lock = threading.RLock()
        """Held while a step runs, or the memory of weights or states changes."""
        self._manifest = manifest
        self._capacities = capacities
        self._pages = pages
        self._pool = kernels.create_pool(threads)
        states = [state.name for state in manifest.states]
        self._plan = BoundPlan(plan, kernels, self._pool, capacities, weights.offsets, states)
        self._plan.set_weights(weights.memory)
        for name, memory in store.memory.items():
            self._plan.set_state(name, memory)
        launches = {name: function.plan.launches for name, function in self._plan.functions.items()}
        self._origins = {name: tuple(launch.origin for launch in each) for name, each in launches.items()}
        self._kernels = {name: tuple(launch.kernel for launch in each) for name, each in launches.items()}

    def check_open(self) -> None:
        """Raise OptionError after ``close``."""
        if self._pool.closed:
            raise closed()

    def close(self) -> None:
        """End the kernels' threads."""
        with self.lock:
            self._pool.close()

    def set_weights(self, weights: Weights) -> None:
        """Use these from the next step on."""
        with self.lock:
            self.check_open()
            self.weights = weights
            self._plan.set_weights(weights.memory)

    def prepare(self, step: StepInput) -> PreparedStep:
        """Check a step and bring its arrays into the kernels' form. Raises OptionError for one that does not fit."""
        step = checked_arrays(step)
        owner = check_step(step, self._manifest, self._capacities, self._pages)
        columns = step.block_tables[0].shape[1] if step.block_tables else 0
        rows = step.logit_rows.size
        values: dict[str, dict[str, np.ndarray]] = {"forward": {}}
        for name in self._plan.functions["forward"].inputs:
            kind, _, group = name.partition(".")
            if kind == "slots":
                values["forward"][name] = self._slots(step, int(group), owner)
            elif kind == "block_table":
                values["forward"][name] = step.block_tables[int(group)]
            else:
                values["forward"][name] = getattr(step, name)
        if rows and step.sampling is not None:
            values["sample"] = {n: getattr(step.sampling, n) for n in self._plan.functions["sample"].inputs}
        if rows and step.targets is not None:
            values["score"] = {"targets": step.targets}
        inputs = {
            function: {name: self._plan.converted(function, name, array) for name, array in arrays.items()}
            for function, arrays in values.items()
        }
        return PreparedStep((step.token_ids.size, step.query_starts.size - 1, rows, columns), inputs)

    def run(self, step: PreparedStep, timed: bool = False) -> tuple[StepOutput, tuple[KernelTimes, ...]]:
        """The results, and how long each kernel took if that was asked for. Hold ``lock`` while using the logits."""
        with self.lock:
            self.check_open()
            self._plan.set_sizes(*step.sizes)
            times: list[KernelTimes] = []
            found: dict[str, np.ndarray] = {}
            for function, arrays in step.inputs.items():
                for name, values in arrays.items():
                    self._plan.give(function, name, values)
                if timed:
                    times.append(self._run_timed(function))
                else:
                    self._plan.run(function)
                # At once: the next function's buffers may lie where this one's results are.
                found |= self._results(function, step.sizes[2])
            logits = self._plan.output("forward", "logits", (step.sizes[2], self._manifest.model.vocab_size), "f32")
            logits.flags.writeable = False
            return StepOutput(self.weights.version, logits, **found), tuple(times)

    def profile(self, step: StepInput, rounds: int) -> tuple[KernelTime, ...]:
        """Run a step, then each of its plans ``rounds`` times in direct succession, timing every kernel."""
        prepared = self.prepare(step)
        with self.lock:
            self.run(prepared)
            return tuple(time for function in prepared.inputs for time in self._profiled(function, rounds))

    def _profiled(self, function: str, rounds: int) -> list[KernelTime]:
        launches = self._plan.functions[function].plan.launches
        seconds = np.zeros((rounds, len(launches)))
        for times in seconds:
            self._plan.run(function, times)
        return [
            KernelTime(launch.origin, launch.kernel, float(np.median(times)), function, launch.work, times)
            for launch, times in zip(launches, seconds.T, strict=True)
        ]

    def _run_timed(self, function: str) -> KernelTimes:
        seconds = np.zeros(len(self._origins[function]))
        began = time.perf_counter()
        self._plan.run(function, seconds)
        return KernelTimes(function, began, self._origins[function], self._kernels[function], seconds)

    def _slots(self, step: StepInput, group: int, owner: np.ndarray) -> np.ndarray:
        """Where each token's key and value go: page * page_tokens + place in the page."""
        page_tokens = self._manifest.groups[group].page_tokens
        blocks, places = np.divmod(step.positions[0], page_tokens)
        return step.block_tables[group][owner, blocks] * page_tokens + places

    def _results(self, function: str, rows: int) -> dict[str, np.ndarray]:
        """What a function gave beside the logits, copied."""
        if function == "sample":
            return {
                "tokens": self._plan.output("sample", "token", (rows,), "i32").copy(),
                "logprobs": self._plan.output("sample", "logprobs", (rows, 3), "f32").copy(),
                "top_ids": self._plan.output("sample", "top_ids", (rows, TOP_LOGPROBS), "i32").copy(),
                "top_logprobs": self._plan.output("sample", "top_values", (rows, TOP_LOGPROBS), "f32").copy(),
            }
        if function == "score":
            return {"target_logprobs": self._plan.output("score", "logprob", (rows,), "f32").copy()}
        return {}
