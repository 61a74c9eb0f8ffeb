"""Requests in, chunks out: one thread schedules and hands out what steps gave, while steps run in another."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as List
from concurrent.futures import Future
from typing import Literal, TypeVar

from ..artifact.errors import DeadlineError, DrainingError, OptionError, XllmcError
from ..library import closed
from ..observe import EngineStats, Observer
from ..requests import Chunk
from ..runner import Runner
from ..scheduling.budget import TokenBudget
from ..scheduling.scheduler import Scheduler
from ..scheduling.sequence import Request, Sequence
from ..scheduling.step_plan import plan_step
from ..states.memory import StateMemory
from .deadlines import Deadlines
from .executor import Executor, Job, Outcome, Standing
from .limits import QueueLimits
from .outputs import step_deliveries
from .pacing import Pacing
from .records import Ending, request_record, step_record

_AHEAD = 2
"""Steps that are scheduled and not yet handed out: one runs, one waits for it."""
_LINGER_SECONDS = 1.0
"""How long the threads of an idle engine stay."""
_BLOCKED_SECONDS = 0.002
"""Between two looks at memory that something other than a request holds."""
_LONGEST_SECONDS = 3600.0
_RETRY_SECONDS = 5.0
"""After which a client may find another engine in the place of one that drains."""

Command = Callable[[], None]
Result = TypeVar("Result")


class Loop:
    """Owns the scheduler and the memory of states: all else reaches them by commands, which are carried out at once,
    or by calls, which are carried out while no step runs.

    A sequence that an end token or a stop string ends may already be one token further in the step that runs; that
    token is thrown away.
    """

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        memory: StateMemory,
        budget: TokenBudget,
        limits: QueueLimits,
        vocab_size: int,
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._memory = memory
        self._budget = budget
        self._limits = limits
        self._vocab_size = vocab_size
        self._changed = threading.Condition()
        self._process = os.getpid()
        self._state: Literal["open", "draining", "closed"] = "open"
        self._thread: threading.Thread | None = None
        self._commands: deque[Command] = deque()
        self._calls: deque[Command] = deque()
        self._outcomes: deque[Outcome] = deque()
        self._observers: tuple[Observer, ...] = ()
        # From here on, what only the loop's thread touches.
        self._executor: Executor | None = None
        self._ahead = 0
        self._pacing = Pacing()
        self._may_schedule = True
        """Whether anything has changed since there was nothing to schedule."""
        self._requests: set[Request] = set()
        self._deadlines = Deadlines()
        self._steps = 0
        self._output_tokens = 0
        self._ended = 0

    def submit(self, requests: List[Request]) -> None:
        """Queue requests, all or none. Raises QueueFullError, DrainingError, OptionError (closed)."""

        def add() -> None:
            for request in requests:
                self._requests.add(request)
                self._deadlines.add(request)
                self._scheduler.add(request)

        with self._changed:
            self.check_open()
            if self._state == "draining":
                raise DrainingError("the engine takes no more requests, as it is about to close", _RETRY_SECONDS)
            self._limits.admit(requests, time.perf_counter())
            self._post(self._commands, add)

    def cancel(self, request: Request) -> None:
        """End a request of which nobody wants more; what it holds is free before the next step is chosen."""
        with self._changed:
            if not request.cancelled and self._state != "closed":
                request.cancelled = True
                self._post(self._commands, lambda: self._end_request(request, None))

    def call(self, function: Callable[[], Result]) -> Result:
        """The result of a function that is called while no step runs. Raises OptionError after ``close``."""
        with self._changed:
            self.check_open()
            future = self._post_call(function)
        return future.result()

    def check_open(self) -> None:
        """Raise OptionError after ``close``, and in a process that was forked since: threads do not come with it."""
        if self._state == "closed":
            raise closed()
        if os.getpid() != self._process:
            raise OptionError("this engine was loaded before the process was forked; load it in this one")

    def drain(self) -> None:
        """Take no more requests; those that were accepted go on."""
        with self._changed:
            if self._state == "open":
                self._state = "draining"

    def close(self) -> None:
        """Fail all requests, and wait for the steps that were chosen."""
        with self._changed:
            self._state = "closed"
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    def observe(self, observer: Observer) -> None:
        """Tell ``observer`` of every step and of every sample's end."""
        with self._changed:
            self._observers = (*self._observers, observer)

    def unobserve(self, observer: Observer) -> None:
        """Tell it no more, once it knows of all that has ended. Not to be called by an observer."""

        def remove() -> None:
            with self._changed:
                self._observers = tuple(one for one in self._observers if one is not observer)

        with self._changed:
            future = None if self._thread is None or self._state == "closed" else self._post_call(remove)
        if future is None:
            remove()
        else:
            future.result()

    def stats(self) -> EngineStats:
        """Read without stopping the loop: figures may be of two neighbouring moments."""
        scheduler = self._scheduler
        return EngineStats(
            version=self._memory.version,
            running=scheduler.running,
            waiting=scheduler.waiting,
            waiting_tokens=scheduler.waiting_tokens,
            groups=self._memory.pages,
            swapped_pages=self._memory.stored_pages,
            steps=self._steps,
            prompt_tokens=scheduler.prompt_tokens,
            cached_tokens=scheduler.cached_tokens,
            computed_tokens=scheduler.computed_tokens,
            output_tokens=self._output_tokens,
            preemptions=scheduler.preemptions,
            requests=self._ended,
        )

    def _post_call(self, function: Callable[[], Result]) -> Future[Result]:
        """Under the lock: leave a call."""
        future: Future[Result] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except XllmcError as problem:
                future.set_exception(problem)
            except BaseException as problem:
                future.set_exception(problem)
                raise

        self._post(self._calls, run)
        return future

    def _post(self, inbox: deque[Command], command: Command) -> None:
        """Under the lock: leave a command, and see that there is a thread to carry it out."""
        inbox.append(command)
        if self._thread is None:
            self._start()
        self._changed.notify_all()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="xllmc-loop", daemon=True)
        self._thread.start()

    def _finished(self, outcome: Outcome) -> None:
        with self._changed:
            self._outcomes.append(outcome)
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            while self._await_news():
                self._turn()
                if self._state == "closed":
                    self._stop()
                    return
        except BaseException as problem:
            # The thread ends here; those who wait must hear why. It may have been an observer: none is told of this.
            self._observers = ()
            self._fail(problem)
            with self._changed:
                self._thread = None
                if self._commands or self._calls:
                    self._start()
            raise

    def _await_news(self) -> bool:
        """Wait until there is something to do; False when this thread is to end: then another may be started."""
        with self._changed:
            while not self._has_news:
                # What came just as the time was up is news too.
                if self._changed.wait(self._patience()) or self._has_news:
                    continue
                if not (self._scheduler.busy or self._ahead or self._calls):
                    self._close_executor()
                    self._thread = None
                    return False
                # A deadline has passed, or memory that something else held may be free.
                self._may_schedule = True
                return True
            return True

    @property
    def _has_news(self) -> bool:
        if self._commands or self._outcomes or self._state == "closed":
            return True
        if self._calls:
            return not self._ahead
        return self._schedules_now and self._scheduler.busy

    @property
    def _schedules_now(self) -> bool:
        if self._state == "closed" or self._calls or self._ahead == _AHEAD or not self._may_schedule:
            return False
        return not self._ahead or time.perf_counter() >= self._pacing.choose_at

    def _patience(self) -> float | None:
        """Seconds to wait for news."""
        deadline = self._deadlines.next
        now = time.perf_counter()
        waits = [] if deadline is None else [max(deadline - now, 0.0)]
        if self._ahead == 1 and self._may_schedule and not self._calls and self._scheduler.busy:
            waits.append(max(self._pacing.choose_at - now, 0.0))
        if not self._ahead and not self._calls:
            waits.append(_BLOCKED_SECONDS if self._scheduler.busy else _LINGER_SECONDS)
        # What a lock can wait for is bounded; a deadline need not be.
        return min(*waits, _LONGEST_SECONDS) if waits else None

    def _turn(self) -> None:
        """Do what there is to do."""
        with self._changed:
            commands, outcomes = tuple(self._commands), tuple(self._outcomes)
            self._commands.clear()
            self._outcomes.clear()
        for command in commands:
            command()
        for outcome in outcomes:
            self._hand_out(outcome)
        now = time.perf_counter()
        for request in self._deadlines.passed(now):
            self._end_request(request, _late(request, now))
        self._may_schedule |= bool(commands or outcomes)
        while self._calls and not self._ahead:
            self._calls.popleft()()
        if self._schedules_now:
            self._schedule()

    def _schedule(self) -> None:
        """Choose and prepare a step, and leave it to the executor."""
        began = time.perf_counter()
        decision = self._scheduler.schedule(began)
        if decision is None:
            self._may_schedule = False
            return
        plan = plan_step(decision, self._memory, self._vocab_size)
        step = self._runner.prepare(plan.input)
        for part in decision.parts:
            self._limits.settle(part.sequence.request)
        if self._executor is None:
            self._executor = Executor(self._runner, self._finished)
        timed = any(observer.kernel_times for observer in self._observers)
        standing = Standing(self._scheduler.running, self._scheduler.waiting)
        now = time.perf_counter()
        self._executor.submit(Job(plan, step, timed, standing, began, now))
        self._ahead += 1
        self._pacing.submitted(self._budget.seconds(decision.load, plan.prompt_tokens), now)

    def _hand_out(self, outcome: Outcome) -> None:
        """Give every sequence what the step computed for it."""
        self._ahead -= 1
        self._pacing.ended(outcome.ended)
        if isinstance(outcome.output, BaseException):
            self._fail(outcome.output)
            return
        began = time.perf_counter()
        plan = outcome.job.plan
        for sequence, item, ends in step_deliveries(plan, outcome.output, outcome.ended):
            self._output_tokens += isinstance(item, Chunk) and item.token_id is not None
            if isinstance(item, BaseException):
                self._end_request(sequence.request, item)
                continue
            try:
                if ends:
                    reason = item.finish_reason if isinstance(item, Chunk) else None
                    self._end(sequence, Ending(reason or "length"))
            finally:
                sequence.request.deliver(sequence.sample_index, item)
        ended = time.perf_counter()
        self._budget.observe(plan.decision.load, plan.prompt_tokens, outcome.ended - outcome.began)
        self._pacing.worked(ended - began + outcome.job.schedule_ended - outcome.job.schedule_began)
        self._steps += 1
        if self._observers:
            record = step_record(self._steps - 1, outcome, began, ended)
            for observer in self._observers:
                observer.step(record)

    def _end(self, sequence: Sequence, ending: Ending) -> None:
        """Take a sequence out, and tell the observers."""
        if sequence.status == "ended":
            return
        self._scheduler.end(sequence)
        self._ended += 1
        request = sequence.request
        if request.ended:
            self._limits.settle(request)
            self._requests.discard(request)
        if self._observers:
            record = request_record(sequence, ending, time.perf_counter())
            for observer in self._observers:
                observer.request(record)

    def _end_request(self, request: Request, problem: BaseException | None) -> None:
        """End all of a request's samples; ``problem``: why, unless it was cancelled."""
        if request.ended:
            return
        ending = Ending("cancelled") if problem is None else Ending("error", str(problem))
        try:
            for sequence in request.sequences:
                self._end(sequence, ending)
        finally:
            if problem is not None:
                request.deliver(0, problem)

    def _fail(self, problem: BaseException) -> None:
        """End all requests, after a step that failed: steps after it have nothing to go on from."""
        executor = self._executor
        self._close_executor()
        if executor is not None:
            # A step that still runs writes to pages that others get next.
            executor.join()
        with self._changed:
            self._outcomes.clear()
        self._ahead = 0
        self._pacing.reset()
        for request in tuple(self._requests):
            self._end_request(request, problem)
        self._memory.take_transfers()
        self._memory.forget_cache()

    def _stop(self) -> None:
        """End all that is left, because the engine closes."""
        with self._changed:
            executor = self._executor
            self._close_executor()
        if executor is not None:
            executor.join()
        self._turn()
        self._fail(closed())
        while self._calls:
            self._calls.popleft()()

    def _close_executor(self) -> None:
        if self._executor is not None:
            self._executor.close()
            self._executor = None


def _late(request: Request, now: float) -> DeadlineError:
    return DeadlineError(
        f"a request must end by its deadline, and this one was not done after {now - request.arrived:.1f} s; "
        "give it longer, or ask for less"
    )
