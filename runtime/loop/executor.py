"""Runs steps one after the other, in a thread of its own, so that none waits for Python to choose it."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import NamedTuple

import numpy as np

from ..artifact.errors import XllmcError
from ..backend import PreparedStep, Ran
from ..observe import KernelTimes
from ..runner import Runner
from ..scheduling.step_plan import StepPlan
from ..step import StepOutput

_SWITCH_SECONDS = 1e-4
"""How long a thread may keep the interpreter from the executor's, which needs it a few times a step. Python's own 5 ms
are more than a step of a small model takes."""


class Standing(NamedTuple):
    """How many sequences there were when a step was chosen."""

    running: int
    waiting: int


@dataclass(frozen=True)
class Job:
    """A step that was scheduled and prepared."""

    plan: StepPlan
    step: PreparedStep
    timed: bool
    """Whether to time every kernel."""
    standing: Standing
    schedule_began: float
    schedule_ended: float


@dataclass(frozen=True)
class Outcome:
    """What became of a job. ``output`` is the caller's own: logits that nobody wanted are left out."""

    job: Job
    output: StepOutput | BaseException
    kernels: tuple[KernelTimes, ...]
    began: float
    ended: float
    launched: float = 0.0
    """When all of it had been given to the machine; 0 of a step that failed."""


class _Ended(NamedTuple):
    """A step that ran and is to be told of."""

    job: Job
    ran: Ran
    began: float
    launched: float
    ended: float


class Executor:
    """Steps follow each other without a pause as long as the next one is there; tokens that a step needs of the one
    before are put in between. A step that fails is the last: those after it would go on from what it did not compute.
    """

    def __init__(self, runner: Runner, done: Callable[[Outcome], None]) -> None:
        """``done``: called in the executor's thread when a step has ended; the next one, if it was there, has begun."""
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        self._runner = runner
        self._done = done
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._tokens = np.zeros(0, np.int32)
        self._ended: _Ended | None = None
        self._thread = threading.Thread(target=self._work, name="xllmc-executor", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Run it after those submitted before."""
        self._jobs.put(job)

    def close(self) -> None:
        """End after what was submitted."""
        self._jobs.put(None)

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def _work(self) -> None:
        self._runner.adopt_thread()
        while (job := self._next()) is not None:
            began = time.perf_counter()
            try:
                with self._runner.lock:
                    begun = self._begin(job)
                    launched = time.perf_counter()
                    # Only now, for a device should not wait for it.
                    self._tell()
                    ran = self._finish(job, begun)
            except XllmcError as problem:
                self._tell()
                self._done(Outcome(job, problem, (), began, time.perf_counter()))
                return
            except BaseException as problem:
                # Those who wait must hear of it, whatever it is.
                self._tell()
                self._done(Outcome(job, problem, (), began, time.perf_counter()))
                raise
            else:
                self._ended = _Ended(job, ran, began, launched, time.perf_counter())
        self._tell()

    def _next(self) -> Job | None:
        """The job to run now; where none waits, the end of the one before is told of first."""
        with suppress(Empty):
            return self._jobs.get_nowait()
        self._tell()
        return self._jobs.get()

    def _tell(self) -> None:
        """Tell of the step that ended, if there is one that nobody was told of."""
        if self._ended is not None:
            (job, ran, began, launched, ended), self._ended = self._ended, None
            output, kernels = self._runner.output(ran)
            self._done(Outcome(job, output, kernels, began, ended, launched))

    def _begin(self, job: Job) -> Callable[[], Ran]:
        plan, step = job.plan, job.step
        if len(plan.late_ids.places):
            step.token_ids[plan.late_ids.places] = self._tokens[plan.late_ids.rows]
        if len(plan.late_history.places):
            step.history[plan.late_history.places] = self._tokens[plan.late_history.rows]
        self._runner.store.carry_out(plan.transfers)
        return self._runner.begin(step, job.timed, plan.keeps_logits)

    def _finish(self, job: Job, begun: Callable[[], Ran]) -> Ran:
        ran = self._runner.finish(begun)
        # A row without a token (a negative one) fails; what its sequence's next step computes is thrown away.
        self._tokens = np.maximum(ran.tokens, 0)
        return ran._replace(logits=ran.logits.copy() if job.plan.keeps_logits else ran.logits[:0])
