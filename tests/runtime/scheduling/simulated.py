"""A scheduler with its memory, and an executor that computes from a step's arrays what kernels would.

The value of a position stands for all tokens up to it; it is found by reading the value before it from the pages that
the block tables name. So a wrong page, a lost transfer or a token too late changes values, and with them tokens.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from xllmc.runtime.artifact.schema import StateGroup
from xllmc.runtime.loop.outputs import step_deliveries
from xllmc.runtime.options import SchedulingOptions
from xllmc.runtime.plan import Capacities
from xllmc.runtime.requests import Chunk, RequestOptions
from xllmc.runtime.sampling import SamplingParams
from xllmc.runtime.scheduling.budget import Load, TokenBudget
from xllmc.runtime.scheduling.scheduler import Decision, Scheduler
from xllmc.runtime.scheduling.sequence import Item, Request, Sequence
from xllmc.runtime.scheduling.step_plan import StepPlan, plan_step
from xllmc.runtime.states.memory import StateMemory
from xllmc.runtime.states.paged import PagedGroup, pages_needed
from xllmc.runtime.states.transfer import CopyPage, LoadPage, StorePage, Transfer
from xllmc.runtime.step import StepOutput
from xllmc.runtime.text import IncrementalText, StopStrings

PAGE, WINDOW, CONTEXT, VOCAB = 4, 5, 64, 50


def value_after(before: int, token: int) -> int:
    """Stands for a prefix, given the value of the one before."""
    return (before * 1_000_003 + token * 7919 + 12345) % (1 << 31)


def token_after(value: int, sample_index: int) -> int:
    """What is sampled there."""
    return (value >> 7) * (sample_index + 1) % VOCAB


def score_of(value: int, target: int) -> float:
    """What the log-probability of a prompt's token is."""
    return -float((value + target) % 1024)


@dataclass(frozen=True)
class Sizes:
    """What a simulated engine has."""

    tokens: int
    rows: int
    sequences: int
    pages: tuple[int, int]
    host: int


class FreeBudget(TokenBudget):
    """Gives what there is, or what it was told."""

    def __init__(self, tokens: int | None, recompute: float) -> None:
        self.most = tokens
        self.recompute = recompute

    def tokens(self, load: Load) -> int:
        return load.prefill_tokens if self.most is None else min(self.most, load.prefill_tokens)

    def recompute_seconds(self, tokens: int) -> float:
        return self.recompute


@dataclass(eq=False)
class Got:
    """What a request was given, by sample."""

    items: dict[int, list[Item]] = field(default_factory=dict)

    def deliver(self, sample_index: int, item: Item) -> None:
        self.items.setdefault(sample_index, []).append(item)

    def tokens(self, sample_index: int) -> list[int]:
        items = self.items.get(sample_index, [])
        return [item.token_id for item in items if isinstance(item, Chunk) and item.token_id is not None]


class Simulation:
    """Pipelined as the loop is: a step may be chosen before the outcome of the one before is known."""

    def __init__(
        self, sizes: Sizes, options: SchedulingOptions, budget: int | None = None, recompute: float = 1
    ) -> None:
        self.sizes = sizes
        windows = (None, WINDOW)
        self.state_groups = [StateGroup(index=g, window=w, page_tokens=PAGE, names=()) for g, w in enumerate(windows)]
        self.groups = [
            PagedGroup(group, pages, CONTEXT // PAGE, sizes.tokens, sizes.host)
            for group, pages in zip(self.state_groups, sizes.pages, strict=True)
        ]
        self.memory = StateMemory(self.groups, prefix_cache=options.prefix_cache)
        capacities = Capacities(sizes.tokens, sizes.sequences, sizes.rows, CONTEXT // PAGE)
        self.scheduler = Scheduler(self.memory, capacities, FreeBudget(budget, recompute), options, 1.0)
        self.pages = [np.full(count * PAGE, -1, np.int64) for count in sizes.pages]
        self.host = [np.full(sizes.host * PAGE, -1, np.int64) for _ in sizes.pages]
        self.requests: list[Request] = []
        self.got: list[Got] = []
        self.chosen: deque[StepPlan] = deque()
        self.run: deque[tuple[StepPlan, StepOutput]] = deque()
        self.before = np.zeros(0, np.int32)
        self.now = 0.0
        self.preempted: list[Sequence] = []

    @property
    def ahead(self) -> int:
        return len(self.chosen) + len(self.run)

    def submit(self, prompt: list[int], params: SamplingParams, options: RequestOptions) -> Request:
        """Queue a request. Raises OptionError for one that can never fit."""
        got = Got()
        most = min(params.max_tokens, CONTEXT - len(prompt))
        self.memory.check_fits(len(prompt) + max(most - 1, 0))
        request = Request(
            tuple(prompt), params, options, 0, most, frozenset(params.stop_token_ids), self.now, None, got.deliver
        )
        number = sum(len(one.sequences) for one in self.requests)
        request.sequences += [
            Sequence(request, i, number + i, IncrementalText(lambda _: ""), StopStrings(()), list(prompt))
            for i in range(params.n)
        ]
        self.requests.append(request)
        self.got.append(got)
        self.scheduler.add(request)
        return request

    def cancel(self, request: Request) -> None:
        for sequence in request.sequences:
            if sequence.status != "ended":
                self.scheduler.end(sequence)

    def choose(self) -> Decision | None:
        """Schedule a step, and see that it may be so."""
        running = [s for request in self.requests for s in request.sequences if s.status == "running"]
        self.now += 1
        decision = self.scheduler.schedule(self.now)
        lost = [s for s in running if s.status == "waiting"]
        self.preempted += lost
        taken = [part.sequence for part in decision.parts] if decision else []
        waiting = [s for s in self.sequences("waiting") if s not in lost]
        for sequence in lost:
            assert any(other.rank < sequence.rank for other in [*taken, *waiting, *self.sequences("running")])
            assert sequence not in taken
        if decision is None:
            assert self.ahead or not self.scheduler.busy, "nothing can go on, though nothing is under way"
            return None
        plan = plan_step(decision, self.memory, VOCAB)
        tokens, rows = len(plan.input.token_ids), len(plan.rows)
        assert 0 < tokens <= self.sizes.tokens and rows <= self.sizes.rows and len(taken) <= self.sizes.sequences
        assert len(set(taken)) == len(taken) and len(self.sequences("running")) <= self.sizes.sequences
        assert all(part.stop - part.start == 1 for part in decision.parts[: decision.load.decoding])
        self.chosen.append(plan)
        return decision

    def execute(self) -> None:
        """Run the step that was chosen first."""
        plan = self.chosen.popleft()
        for transfer in plan.transfers:
            self._carry_out(transfer)
        step = plan.input
        ids = step.token_ids.copy()
        ids[plan.late_ids.places] = self.before[plan.late_ids.rows]
        starts = step.query_starts.tolist()
        values = np.zeros(len(ids), np.int64)
        for s, (start, stop) in enumerate(pairwise(starts)):
            tables = [table[s] for table in step.block_tables]
            for t in range(start, stop):
                position = int(step.positions[0, t])
                slots = [int(table[position // PAGE]) * PAGE + position % PAGE for table in tables]
                before = int(self._read(0, tables[0], position - 1)) if position else 0
                values[t] = value_after(before, int(ids[t]))
                for pages, slot in zip(self.pages, slots, strict=True):
                    pages[slot] = values[t]
                for near in range(max(position - WINDOW + 1, 0), position):
                    assert self._read(1, tables[1], near) == self._read(0, tables[0], near)
        sampled = [
            token_after(int(values[t]), row.sequence.sample_index)
            for row, t in zip(plan.rows, step.logit_rows, strict=True)
        ]
        self.before = np.array(sampled, np.int32)
        scores = None
        if step.targets is not None:
            pairs = zip(step.logit_rows.tolist(), step.targets.tolist(), strict=True)
            scores = np.array([score_of(int(values[t]), target) for t, target in pairs], np.float32)
        self.run.append((plan, StepOutput(0, np.zeros((0, VOCAB)), self.before, target_logprobs=scores)))

    def hand_out(self) -> None:
        """What the step that ran first gave, to its sequences."""
        plan, output = self.run.popleft()
        for sequence, item, ends in step_deliveries(plan, output, self.now):
            if ends:
                self.scheduler.end(sequence)
            sequence.request.deliver(sequence.sample_index, item)

    def sequences(self, status: str) -> list[Sequence]:
        return [s for request in self.requests for s in request.sequences if s.status == status]

    def check_accounts(self) -> None:
        """Every page is somebody's, remembered, or free."""
        held = [s.states for s in [*self.sequences("running"), *self.sequences("waiting")] if s.states is not None]
        held += [request.prompt_states for request in self.requests if request.prompt_states is not None]
        for g, group in enumerate(self.groups):
            tables = [states.parts[g].table.tolist() for states in held if not states.stored]
            used = {page for table in tables for page in table if page >= 0}
            assert group.pool.in_use == len(used)
            assert group.stored == sum(len(states.parts[g].slots) for states in held)
        assert not any(s.states is not None for s in self.sequences("ended"))
        assert all(s.states is not None and not s.states.stored for s in self.sequences("running"))

    def finish(self, most: int = 20_000) -> None:
        """Go on until all have ended."""
        for _ in range(most):
            if self.ahead < 2 and self.scheduler.busy:
                self.choose()
            if self.chosen:
                self.execute()
            if self.run:
                self.hand_out()
            if not self.ahead and not self.scheduler.busy:
                return
        raise AssertionError(f"still busy after {most} steps")

    def check_answers(self, cancelled: set[int]) -> None:
        """Every request got what it would get alone."""
        for i, (request, got) in enumerate(zip(self.requests, self.got, strict=True)):
            assert request.ended and request.prompt_states is None
            values = [0]
            for token in request.prompt:
                values.append(value_after(values[-1], token))
            for sequence in request.sequences:
                value, expected = values[-1], []
                while len(expected) < request.max_tokens and not (expected and expected[-1] in request.stop_ids):
                    expected.append(token_after(value, sequence.sample_index))
                    value = value_after(value, expected[-1])
                tokens = got.tokens(sequence.sample_index)
                assert tokens == expected[: len(tokens)]
                if i not in cancelled:
                    assert tokens == expected
                    last = got.items[sequence.sample_index][-1]
                    assert isinstance(last, Chunk) and last.finish_reason is not None
            first = got.items.get(0, [None])[0]
            if isinstance(first, Chunk) and request.scores_prompt:
                scores = [score_of(v, t) for v, t in zip(values[1:-1], request.prompt[1:], strict=True)]
                assert first.prompt_logprobs is not None
                assert [one.model for one in first.prompt_logprobs[1:] if one is not None] == scores

    def _read(self, group: int, table: np.ndarray, position: int) -> int:
        page = int(table[position // PAGE])
        assert page >= 0
        return int(self.pages[group][page * PAGE + position % PAGE])

    def _carry_out(self, transfer: Transfer) -> None:
        def part(index: int) -> slice:
            return slice(index * PAGE, (index + 1) * PAGE)

        pages, host = self.pages[transfer.group], self.host[transfer.group]
        match transfer:
            case CopyPage(source=source, target=target):
                pages[part(target)] = pages[part(source)]
            case StorePage(page=page, slot=slot):
                host[part(slot)] = pages[part(page)]
            case LoadPage(slot=slot, page=page):
                pages[part(page)] = host[part(slot)]


def smallest_pages(tokens: int, step: int) -> tuple[int, int]:
    """Pools in which a sequence of ``tokens`` just fits."""
    full = StateGroup(index=0, window=None, page_tokens=PAGE, names=())
    near = StateGroup(index=1, window=WINDOW, page_tokens=PAGE, names=())
    return pages_needed(full, tokens, step), pages_needed(near, tokens, step)
