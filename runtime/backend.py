"""What an engine needs of the machine that runs its plan: memory for states, and steps carried out in order.

``cpu`` has the CPU's; ``cuda.backend`` that of NVIDIA GPUs. Scheduler, loop and server know none of them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from .artifact.schema import FunctionPlan
from .sampling import TOP_LOGPROBS
from .states.transfer import Transfer
from .weights import Weights


class StepSizes(NamedTuple):
    """A step's real sizes: T, S, R, B and Q."""

    tokens: int
    sequences: int
    rows: int
    table_columns: int
    most_tokens: int
    """Of one sequence; 1 where all decode."""


@dataclass(frozen=True)
class PreparedStep:
    """A step that was checked: nothing is left to do but to run it."""

    sizes: StepSizes
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


class Result(NamedTuple):
    """What a function gives for each row of logits, beside the logits."""

    field: str
    """Of StepOutput."""
    output: str
    """Of the function's plan."""
    columns: tuple[int, ...]
    dtype: str


RESULTS: Mapping[str, tuple[Result, ...]] = {
    "forward": (),
    "sample": (
        Result("tokens", "token", (), "i32"),
        Result("logprobs", "logprobs", (3,), "f32"),
        Result("top_ids", "top_ids", (TOP_LOGPROBS,), "i32"),
        Result("top_logprobs", "top_values", (TOP_LOGPROBS,), "f32"),
    ),
    "score": (Result("target_logprobs", "logprob", (), "f32"),),
}
"""By function. A function's results are read before the next one's kernels run, for these may write over them."""


class FunctionTimes(NamedTuple):
    """One timed run of one of the plan's functions."""

    function: str
    began: float
    """Of ``time.perf_counter``."""
    seconds: np.ndarray
    """f64 [launches]; 0 for a launch that the step's sizes leave out."""


class Ran(NamedTuple):
    """What a step gave. The next one may wait for the tokens; all else can be read while it runs."""

    tokens: np.ndarray
    """i32 [R], or [0] where none were sampled."""
    results: Callable[[], Mapping[str, np.ndarray]]
    """By field of StepOutput: the caller's own. Valid whatever runs meanwhile."""
    logits: np.ndarray
    """f32 [R, V], a view that is valid until the next step; [0, V] where they were not wanted."""
    times: tuple[FunctionTimes, ...]


NO_TOKENS = np.zeros(0, np.int32)


class Capture(NamedTuple):
    """What a device recorded when the engine was loaded."""

    graphs: int
    launches: int
    """In all of them."""
    seconds: float


class Store(Protocol):
    """The memory behind paged states."""

    def carry_out(self, transfers: Iterable[Transfer]) -> None:
        """One after the other, in all states of each one's group, before the step that follows."""


class Backend(Protocol):
    """Runs the steps of one engine, one at a time: its user holds a lock, except while preparing."""

    @property
    def isa(self) -> str:
        """By which name machines like it keep their profiles."""

    @property
    def threads(self) -> int | None:
        """Of the kernels; None where it has as many as any such machine."""

    @property
    def capture(self) -> Capture | None:
        """None where steps are not captured."""

    @property
    def functions(self) -> Mapping[str, FunctionPlan]:
        """By name."""

    @property
    def pages(self) -> tuple[int, ...]:
        """Of each state group."""

    @property
    def store(self) -> Store:
        """Where states lie."""

    def check_open(self) -> None:
        """Raise OptionError after ``close``, and DeviceError after a device failed."""

    def adopt_thread(self) -> None:
        """Know that the calling thread is the engine's own, and runs steps."""

    def prepare(self, sizes: StepSizes, values: Mapping[str, Mapping[str, np.ndarray]]) -> PreparedStep:
        """``values``: by function that is to run, and input; they were checked. May be called while a step runs."""

    def begin(self, step: PreparedStep, logits: bool, timed: bool) -> Callable[[], Ran]:
        """Start the functions that ``step`` has inputs for. What is returned waits for their end, and is to be called
        before anything else. ``logits``: whether they are wanted themselves.
        """

    def time(self, step: PreparedStep, function: str) -> np.ndarray:
        """Run a function of the step that ran last once more: seconds of each launch, f64 [launches]."""

    def set_weights(self, weights: Weights) -> None:
        """Use these from the next step on."""

    def close(self) -> None:
        """Give back all that it has; to be called once or more."""
