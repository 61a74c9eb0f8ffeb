"""The CPU behind an engine: kernels from a library, run by a pool of threads on memory that the system gives."""

import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from .artifact.isa import choose_library
from .artifact.schema import FunctionPlan
from .artifact.writer import WEIGHTS
from .backend import NO_TOKENS, RESULTS, FunctionTimes, PreparedStep, Ran, StepSizes
from .library import Kernels, closed
from .memory import available_bytes
from .opening import Opening
from .plan import BoundPlan
from .states.paged_store import PagedStore
from .weights import Weights, open_weights

_KV_SHARE = 0.5
"""Of the available memory, what the key-value pool may come to take unless ``kv_tokens`` says otherwise."""


def open_cpu(opening: Opening, isa: str | None, huge_pages: bool) -> tuple["CpuBackend", Weights]:
    """``isa``, ``huge_pages``: see ``Engine.load``. Raises ArtifactError, OptionError."""
    manifest = opening.manifest
    kernels = Kernels(opening.root, choose_library(manifest.kernels, isa))
    weights = open_weights(opening.root / WEIGHTS, manifest, huge_pages)
    return CpuBackend(opening, kernels, weights), weights


class CpuBackend:
    """A plan bound to weights and states in this process's memory."""

    capture = None

    def __init__(self, opening: Opening, kernels: Kernels, weights: Weights) -> None:
        manifest, threads = opening.manifest, int(opening.options.threads)
        self.isa = kernels.isa
        self.threads = threads
        self.pages = opening.pages(available_bytes() * _KV_SHARE)
        self.store = PagedStore(manifest.states, self.pages, opening.host_pages, opening.page_tokens)
        self._vocab_size = manifest.model.vocab_size
        self._pool = kernels.create_pool(threads)
        states = [state.name for state in manifest.states]
        self._plan = BoundPlan(opening.plan, kernels, self._pool, opening.capacities, weights.offsets, states)
        self._plan.set_weights(weights.memory)
        for name, memory in self.store.memory.items():
            self._plan.set_state(name, memory)
        self.functions: Mapping[str, FunctionPlan] = {name: f.plan for name, f in self._plan.functions.items()}

    def check_open(self) -> None:
        if self._pool.closed:
            raise closed()

    def adopt_thread(self) -> None:
        """Any thread will do."""

    def prepare(self, sizes: StepSizes, values: Mapping[str, Mapping[str, np.ndarray]]) -> PreparedStep:
        inputs = {
            function: {name: self._plan.converted(function, name, array) for name, array in arrays.items()}
            for function, arrays in values.items()
        }
        return PreparedStep(sizes, inputs)

    def begin(self, step: PreparedStep, logits: bool, timed: bool) -> Callable[[], Ran]:
        # The thread that waits is one of those that compute.
        return partial(self._run, step, timed)

    def _run(self, step: PreparedStep, timed: bool) -> Ran:
        sizes = step.sizes
        self._plan.set_sizes(sizes.tokens, sizes.sequences, sizes.rows, sizes.table_columns)
        results: dict[str, np.ndarray] = {}
        times: list[FunctionTimes] = []
        for function, arrays in step.inputs.items():
            for name, values in arrays.items():
                self._plan.give(function, name, values)
            if timed:
                began = time.perf_counter()
                times.append(FunctionTimes(function, began, self.time(step, function)))
            else:
                self._plan.run(function)
            for field, output, columns, dtype in RESULTS[function]:
                results[field] = self._plan.output(function, output, (sizes.rows, *columns), dtype).copy()
        # They cost nothing here, wanted or not.
        found = self._plan.output("forward", "logits", (sizes.rows, self._vocab_size), "f32")
        return Ran(results.get("tokens", NO_TOKENS), lambda: results, found, tuple(times))

    def time(self, step: PreparedStep, function: str) -> np.ndarray:
        seconds = np.zeros(len(self.functions[function].launches))
        self._plan.run(function, seconds)
        return seconds

    def set_weights(self, weights: Weights) -> None:
        self._plan.set_weights(weights.memory)

    def close(self) -> None:
        self._pool.close()
