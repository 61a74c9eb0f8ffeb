"""Which tokens the next step computes. No threads and no clock of its own: the loop calls, and tells the time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..options import SchedulingOptions
from ..plan import Capacities
from ..states.memory import SequenceStates, StateMemory
from .budget import Load, TokenBudget
from .queue import FairQueue
from .sequence import Request, Sequence

_SWAP_SECONDS_PER_BYTE = 2 / 10e9
"""Out and in again, at the rate of a memory copy: 10 GB/s is what one core copies."""
_LEAST_CHUNK = 32
"""Tokens of a prompt that are worth a place in a step, unless it has fewer left."""


class Part(NamedTuple):
    """What a step computes of one sequence: tokens from ``start`` up to ``stop``."""

    sequence: Sequence
    start: int
    stop: int
    wanted: range
    """Positions of the prompt whose own logits are wanted."""
    samples: bool
    """Whether its last token gives another."""

    @property
    def rows(self) -> int:
        """Rows of logits that it wants."""
        return len(self.wanted) + self.samples


def part_of(sequence: Sequence, start: int, stop: int) -> Part:
    """What computing these tokens comes to."""
    wanted = range(max(start, sequence.wanted_from), min(stop, sequence.wanted_until))
    return Part(sequence, start, stop, wanted, sequence.samples and stop == sequence.length)


@dataclass(frozen=True)
class Decision:
    """The next step: sequences that take one token first (``load.decoding`` of them), then parts of prompts."""

    parts: tuple[Part, ...]
    budget: int
    """Tokens that it might have had."""
    load: Load


class Scheduler:
    """Continuous batching with chunked prefill: every step takes one token of each sequence that is writing, and fills
    up with prompts as far as the budget goes.

    Who ranks higher (by priority, then arrival) takes the pages of who ranks lower. That one is preempted, its states
    dropped or stored away, and goes on later with the same bits. The first in rank can always go on, so all end.
    """

    def __init__(
        self,
        memory: StateMemory,
        capacities: Capacities,
        budget: TokenBudget,
        options: SchedulingOptions,
        position_bytes: float,
    ) -> None:
        """``position_bytes``: of all states, for one position."""
        self._memory = memory
        self._capacities = capacities
        self._budget = budget
        self._options = options
        self._position_bytes = position_bytes
        self._most_running = min(capacities.sequences, capacities.rows, capacities.tokens)
        self._running: list[Sequence] = []
        self._waiting = FairQueue()
        self._sharing: dict[Request, set[Sequence]] = {}
        """Requests whose prompt's states are kept, for samples that have not started yet."""
        self.preemptions = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.computed_tokens = 0

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether any sequence has not ended."""
        return bool(self._running) or len(self._waiting) > 0

    @property
    def waiting_tokens(self) -> int:
        """Tokens that the waiting sequences want computed."""
        return self._waiting.tokens

    def add(self, request: Request) -> None:
        """Queue a request: its first sample, which computes the prompt for all."""
        self._waiting.add(request.sequences[0])

    def end(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is; what it held is free at once."""
        if sequence.status == "running":
            self._running.remove(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)
        sequence.status = "ended"
        sequence.request.ended_samples += 1
        if sequence.states is not None:
            self._memory.keep(sequence.states, sequence.tokens)
            self._memory.release(sequence.states)
            sequence.states = None
        self._started(sequence)

    def schedule(self, now: float) -> Decision | None:
        """The next step, None where nothing can be computed. ``now``: seconds of ``time.perf_counter``."""
        for sequence in self._running:
            assert sequence.states is not None
            self._memory.keep(sequence.states, sequence.tokens)
        step = _Step(self._capacities.tokens, self._capacities.rows, self._capacities.sequences)
        first = self._waiting.first()
        lowest = min((s.request.options.priority for s in self._running), default=None)
        if first is not None and lowest is not None and lowest < first.request.options.priority:
            # Now, as who has a part of this step is not preempted in it.
            self._admit(step, now)
        preemptions = self.preemptions
        self._running.sort(key=lambda sequence: sequence.rank)
        missing = [(sequence, sequence.missing) for sequence in self._running]
        for sequence in [s for s, tokens in missing if tokens == 1]:
            # An earlier one in rank may have preempted it meanwhile.
            if sequence.status == "running" and step.room > 0:
                self._take(step, sequence, 1)
        load = self._load(step, now)
        step.room = min(step.room, self._budget.tokens(load))
        budget = load.decoding + step.room
        for sequence, tokens in missing:
            if tokens > 1 and sequence.status == "running" and step.room > 0:
                self._take(step, sequence, tokens)
        if self.preemptions == preemptions:
            while step.room > 0 and (admitted := self._admit(step, now)) is not None:
                self._take(step, admitted, admitted.missing)
        for part in step.parts:
            self._waiting.charge(part.sequence.request.options.key, part.stop - part.start)
            self.computed_tokens += part.stop - part.start
        self._share_prompts(step)
        return Decision(tuple(step.parts), budget, load) if step.parts else None

    def _admit(self, step: "_Step", now: float) -> Sequence | None:
        """Let the next one of those that wait run; None where there is no room for it."""
        sequence = self._waiting.first()
        # Where one is pending, its next token is still being computed.
        if sequence is None or sequence.pending is not None:
            return None
        if len(self._running) >= self._most_running and not self._preempt_below(sequence, step):
            return None
        states = self._states(sequence, step)
        if states is None:
            return None
        sequence.states = states
        self._waiting.remove(sequence)
        sequence.status = "running"
        self._running.append(sequence)
        if sequence.reused is None:
            sequence.reused = states.reused
            sequence.scheduled_at = now
            self._started(sequence)
            if sequence is sequence.request.sequences[0]:
                self.prompt_tokens += len(sequence.request.prompt)
                self.cached_tokens += states.reused
        return sequence

    def _states(self, sequence: Sequence, step: "_Step") -> SequenceStates | None:
        """States for a waiting sequence, with room for all it wants computed now; None where there is none."""
        stored = sequence.states
        if stored is not None:

            def load() -> bool:
                return self._memory.load(stored, self._spare + bool(self._running))

            return stored if self._with_room(sequence, step, load) else None
        states = self._opened(sequence)
        if self._with_room(sequence, step, lambda: self._has_room(states, sequence.goal)):
            return states
        self._memory.release(states)
        return None

    def _opened(self, sequence: Sequence) -> SequenceStates:
        request = sequence.request
        if request.prompt_states is not None and len(sequence.tokens) == len(request.prompt):
            return self._memory.fork(request.prompt_states, len(request.prompt) - 1)
        known = sequence.tokens
        if sequence.wanted_from < sequence.wanted_until:
            # Positions whose logits are wanted must be computed.
            known = known[: sequence.wanted_from + 1]
        return self._memory.open(known, request.options.cache_salt)

    def _has_room(self, states: SequenceStates, stop: int) -> bool:
        return self._memory.room_in_steps(states, states.length, stop) >= self._spare

    @property
    def _spare(self) -> int:
        """Pages that those that run need for their next token: who is taken in must not preempt them at once."""
        return sum(sequence.computed % self._memory.page_tokens == 0 for sequence in self._running)

    def _with_room(self, sequence: Sequence, step: "_Step", attempt: Callable[[], bool]) -> bool:
        """Whether ``attempt`` succeeds, if need be after those of lower priority gave up what they hold."""
        while not attempt():
            if not self._drop_shared_prompt(sequence.request) and not self._preempt_below(sequence, step):
                return False
        return True

    def _preempt_below(self, sequence: Sequence, step: "_Step") -> bool:
        """Preempt the last in rank, if its priority is lower than that of a waiting ``sequence``."""
        last = max((s for s in self._running if s not in step.taken), key=lambda s: s.rank, default=None)
        if last is None or last.request.options.priority >= sequence.request.options.priority:
            return False
        self._preempt(last)
        return True

    def _take(self, step: "_Step", sequence: Sequence, tokens: int) -> None:
        """Add to the step as many of the sequence's next ``tokens`` as there is room for."""
        start = sequence.computed
        part = step.largest(sequence, start, tokens)
        while part is not None:
            if self._extend(part, step):
                step.add(part)
                return
            if sequence.status != "running" or part.stop - start <= _LEAST_CHUNK:
                return
            part = step.largest(sequence, start, (part.stop - start) // 2)

    def _extend(self, part: Part, step: "_Step") -> bool:
        """Make room for the part, by preempting who ranks lower and has no part yet."""
        sequence = part.sequence
        assert sequence.states is not None
        while not self._memory.extend(sequence.states, part.start, part.stop):
            if self._drop_shared_prompt(sequence.request):
                continue
            last = max((s for s in self._running if s not in step.taken), key=lambda s: s.rank)
            if last.rank <= sequence.rank:
                return False
            self._preempt(last)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        assert sequence.states is not None
        self._memory.keep(sequence.states, sequence.tokens)
        if not (self._prefers_swap(sequence) and self._memory.store(sequence.states)):
            self._memory.release(sequence.states)
            sequence.states = None
        self._running.remove(sequence)
        sequence.status = "waiting"
        sequence.preemptions += 1
        self.preemptions += 1
        self._waiting.add(sequence)

    def _prefers_swap(self, sequence: Sequence) -> bool:
        if self._options.preemption == "auto" and self._options.swap_tokens:
            moved = sequence.computed * self._position_bytes * _SWAP_SECONDS_PER_BYTE
            return moved < self._budget.recompute_seconds(sequence.computed)
        return self._options.preemption == "swap"

    def _share_prompts(self, step: "_Step") -> None:
        """Queue the other samples of a prompt that this step completes: the next step may go on from its states."""
        for part in step.parts:
            request, prompt = part.sequence.request, len(part.sequence.request.prompt)
            if part.sequence is not request.sequences[0] or not part.start < prompt <= part.stop:
                continue
            others = [s for s in request.sequences[1:] if s.status == "waiting" and s not in self._waiting]
            if others and request.prompt_states is None and part.sequence.states is not None:
                request.prompt_states = self._memory.fork(part.sequence.states, prompt - 1)
                self._sharing[request] = set(others)
            for sequence in others:
                self._waiting.add(sequence)

    def _started(self, sequence: Sequence) -> None:
        """It has its states, or wants none any more: nothing need be kept for it."""
        waiting = self._sharing.get(sequence.request)
        if waiting is not None:
            waiting.discard(sequence)
            if not waiting:
                self._stop_sharing(sequence.request)

    def _drop_shared_prompt(self, last: Request) -> bool:
        """Give up a prompt that is kept for samples that wait: they will compute it anew, or find it in the cache.

        ``last``: its own only if there is no other.
        """
        if not self._sharing:
            return False
        self._stop_sharing(next((r for r in reversed(self._sharing) if r is not last), last))
        return True

    def _stop_sharing(self, request: Request) -> None:
        assert request.prompt_states is not None
        del self._sharing[request]
        self._memory.release(request.prompt_states)
        request.prompt_states = None

    def _load(self, step: "_Step", now: float) -> Load:
        prompts = [s for s in self._running if s.missing > 1]
        decoding = len(step.parts)
        waited = [s for s in (*prompts, self._waiting.oldest()) if s is not None and s.first_token_at is None]
        first = min(waited, key=lambda s: s.request.arrived, default=None)
        return Load(
            decoding=decoding,
            context=sum(part.stop for part in step.parts) / decoding if decoding else 0.0,
            prefill_tokens=sum(s.missing for s in prompts) + self.waiting_tokens,
            prefill_context=float(prompts[0].computed) if prompts else 0.0,
            oldest_left=first.missing if first is not None else 0,
            oldest_age=now - first.request.arrived if first is not None else 0.0,
        )


@dataclass(eq=False)
class _Step:
    """A step in the making, and what it has room for."""

    room: int
    """Tokens."""
    rows: int
    sequences: int
    parts: list[Part] = field(default_factory=list)
    taken: set[Sequence] = field(default_factory=set)

    def largest(self, sequence: Sequence, start: int, tokens: int) -> Part | None:
        """The largest part from ``start`` on, of at most so many tokens, that there is room for."""
        count = min(tokens, self.room) if self.sequences else 0
        while count > 0:
            part = part_of(sequence, start, start + count)
            if part.rows <= self.rows:
                return part
            count -= part.rows - self.rows
        return None

    def add(self, part: Part) -> None:
        self.parts.append(part)
        self.taken.add(part.sequence)
        self.room -= part.stop - part.start
        self.rows -= part.rows
        self.sequences -= 1
