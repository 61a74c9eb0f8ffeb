"""Any order of what can happen to states: what every sequence must hold is kept beside, and compared after each event.

Steps run late, as they do in the loop: transfers are carried out, in order, only when the step after them runs.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from xllmc.runtime.artifact.schema import StateGroup
from xllmc.runtime.states.digests import extend_chain, root_digest
from xllmc.runtime.states.memory import SequenceStates, StateMemory
from xllmc.runtime.states.paged import PagedGroup
from xllmc.runtime.states.paged_store import PagedStore
from xllmc.runtime.states.transfer import CopyPage, LoadPage, MoveTokens, StorePage, Transfer

from tests.runtime.states.layout import TokenView, state_entry

PAGE, WINDOW, STEP, COLUMNS = 4, 5, 7, 12
PAGES, HOST = (18, 14), (9, 7)
GROUPS = (
    StateGroup(index=0, window=None, page_tokens=PAGE, names=("all",)),
    StateGroup(index=1, window=WINDOW, page_tokens=PAGE, names=("near",)),
)
STATES = (state_entry("all", 0, PAGE, "f32", 2, 2, 3), state_entry("near", 1, PAGE, "bf16", 1, 4, 2))


@dataclass(eq=False)
class Held:
    """What a sequence should hold: the value of each of its positions."""

    states: SequenceStates
    salt: str
    tokens: list[int]
    """Those without states yet included."""
    values: list[int]
    versions: list[int] = field(default_factory=list)
    """Of the weights that computed each."""
    drafted: bool = False
    """Whether it has tokens that nobody kept: its blocks have no names."""


class Place(NamedTuple):
    group: int
    slot: int
    value: int


class Step(NamedTuple):
    """To be run later."""

    transfers: tuple[Transfer, ...]
    written: list[Place]
    read: list[Place]


class Simulated:
    """Pages by group, position by position, where everything happens at once."""

    def __init__(self) -> None:
        self.pages = [[-1] * (PAGE * count) for count in PAGES]
        self.host = [[-1] * (PAGE * count) for count in HOST]

    def carry_out(self, transfers: tuple[Transfer, ...]) -> None:
        for transfer in transfers:
            pages, host = self.pages[transfer.group], self.host[transfer.group]
            match transfer:
                case CopyPage(source=source, target=target):
                    pages[target * PAGE : (target + 1) * PAGE] = pages[source * PAGE : (source + 1) * PAGE]
                case StorePage(page=page, slot=slot):
                    host[slot * PAGE : (slot + 1) * PAGE] = pages[page * PAGE : (page + 1) * PAGE]
                case LoadPage(slot=slot, page=page):
                    pages[page * PAGE : (page + 1) * PAGE] = host[slot * PAGE : (slot + 1) * PAGE]
                case MoveTokens(sources=sources, targets=targets):
                    for target, value in zip(targets, [pages[source] for source in sources], strict=True):
                        pages[target] = value


class States(RuleBasedStateMachine):
    """All rules take any drawn numbers: they are wrapped around what there is."""

    @initialize(cached=st.booleans())
    def start(self, cached: bool) -> None:
        self.groups = [PagedGroup(g, PAGES[i], COLUMNS, STEP, HOST[i]) for i, g in enumerate(GROUPS)]
        self.memory = StateMemory(self.groups, prefix_cache=cached)
        self.store = PagedStore(STATES, PAGES, HOST, PAGE)
        self.views = [TokenView(self.store.memory, state, PAGE) for state in STATES]
        self.simulated = Simulated()
        self.cached = cached
        self.held: list[Held] = []
        self.steps: list[Step] = []
        self.transfers: tuple[Transfer, ...] = ()
        self.numbers: dict[tuple[int, ...] | tuple[int, int, int, str], int] = {}
        self.named: dict[bytes, list[int]] = {}

    # What can happen.

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=30), salt=st.sampled_from(("", "", "salt")))
    def open(self, tokens: list[int], salt: str) -> None:
        if len(self.held) == 6:
            return
        states = self.memory.open(tokens, salt)
        held = Held(states, salt, tokens, [])
        self._compute(held, states.length)
        assert states.length == states.reused < len(tokens) and (self.cached or not states.length)
        self.held.append(held)
        self._collect()

    @rule(i=st.integers(0, 9), count=st.integers(2, 4))
    def open_alike(self, i: int, count: int) -> None:
        """As one that is there begins, so that prefixes are found."""
        if self.held:
            like = self.held[i % len(self.held)]
            self.open([*like.tokens[: count * PAGE], *[1] * (i % 3)] or [0], like.salt)

    @rule(
        chosen=st.lists(st.tuples(st.integers(0, 9), st.integers(1, STEP)), min_size=1, max_size=3),
        added=st.lists(st.integers(0, 1), min_size=STEP, max_size=STEP),
        fork=st.integers(0, 20),
    )
    def step(self, chosen: list[tuple[int, int]], added: list[int], fork: int) -> None:
        taken: list[tuple[Held, int]] = []
        for i, count in chosen:
            held = self._present(i)
            if held is None or any(held is other for other, _ in taken):
                continue
            start = held.states.length
            stop = min(start + count, COLUMNS * PAGE)
            if stop > start and self._extended(held, start, stop):
                held.tokens += added[: max(stop - len(held.tokens), 0)]
                self._compute(held, stop)
                taken.append((held, start))
        if taken and fork < len(taken) and len(self.held) < 6:
            # As a prompt is shared in the step that completes it.
            held, start = taken[fork]
            self._fork(held, held.states.length - 1)
        self._run_later(taken)

    @rule(i=st.integers(0, 9), length=st.integers(0, COLUMNS * PAGE))
    def fork(self, i: int, length: int) -> None:
        held = self._present(i)
        if held is not None and len(self.held) < 6:
            length = held.states.length - length % (held.states.length + 1)
            if self._reaches_back(held, length):
                self._fork(held, length)
            else:
                before = self._accounts()
                with pytest.raises(ValueError, match="fell out of the window"):
                    self.memory.fork(held.states, length)
                assert self._accounts() == before
            self._collect()

    @rule(i=st.integers(0, 9), less=st.integers(0, 12))
    def roll_back(self, i: int, less: int) -> None:
        held = self._present(i)
        if held is None:
            return
        length = held.states.length - less % (held.states.length + 1)
        if self._reaches_back(held, length):
            self.memory.roll_back(held.states, length)
            del held.values[length:], held.versions[length:], held.tokens[length:]
        else:
            before = self._accounts()
            with pytest.raises(ValueError, match="fell out of the window"):
                self.memory.roll_back(held.states, length)
            assert self._accounts() == before
        self._collect()

    @rule(i=st.integers(0, 9), kept=st.sets(st.integers(0, STEP - 1), max_size=STEP), fork=st.booleans())
    def verify_draft(self, i: int, kept: set[int], fork: bool) -> None:
        """A tree of drafted tokens, of which one path is kept."""
        held = self._present(i)
        if held is None:
            return
        start = held.states.length
        path = sorted(kept)
        stop = start + STEP
        if stop > COLUMNS * PAGE or not self._extended(held, start, stop):
            return
        del held.tokens[start:]
        held.tokens += [1] * len(path)
        self._compute(held, start + len(path))
        values = held.values[start:]
        held.values[start:] = [self._number((-1, start + offset)) for offset in range(STEP)]
        for offset, value in zip(path, values, strict=True):
            held.values[start + offset] = value
        self._run_later([(held, start)])
        pages = -(-stop // PAGE) - start // PAGE
        if fork and len(self.held) < 6 and all(group.pool.available >= pages for group in self.groups):
            self._fork(held, start + STEP // 2).drafted = True
        self.memory.compact(held.states, start, path)
        held.values[start:] = values
        assert held.states.length == start + len(path)
        self._collect()

    @rule(i=st.integers(0, 9))
    def store_away(self, i: int) -> None:
        held = self._present(i)
        if held is not None:
            before, room = self._accounts(), [len(group._slots) for group in self.groups]
            needed = [part.blocks - part.first for part in held.states.parts]
            assert self.memory.store(held.states) == all(n <= r for n, r in zip(needed, room, strict=True))
            assert held.states.stored or self._accounts() == before
            self._collect()

    @rule(i=st.integers(0, 9))
    def load(self, i: int) -> None:
        stored = [held for held in self.held if held.states.stored]
        if stored:
            held, before = stored[i % len(stored)], self._accounts()
            fits = all(len(p.slots) <= g.pool.available for g, p in zip(self.groups, held.states.parts, strict=True))
            assert self.memory.load(held.states) == fits
            assert fits or self._accounts() == before
            self._collect()

    @rule(i=st.integers(0, 9), unknown=st.integers(0, 1))
    def keep(self, i: int, unknown: int) -> None:
        if self.held:
            held = self.held[i % len(self.held)]
            if held.drafted:
                return
            self.memory.keep(held.states, held.tokens[: max(held.states.length - unknown, 0)])
            self._collect()

    @rule(i=st.integers(0, 9))
    def release(self, i: int) -> None:
        if self.held:
            self.memory.release(self.held.pop(i % len(self.held)).states)
            self._collect()

    @rule()
    def update_weights(self) -> None:
        self.memory.set_version(self.memory.version + 1)
        assert all(not group.pool.cached for group in self.groups)

    @rule()
    def forget_cache(self) -> None:
        self.memory.forget_cache()

    @precondition(lambda self: self.steps)
    @rule()
    def run_a_step(self) -> None:
        step = self.steps.pop(0)
        self.store.carry_out(step.transfers)
        for group, slot, value in step.written:
            self.views[group].write(slot, value)
        for group, slot, value in step.read:
            assert self.views[group].holds(slot, value), "a step reads what is not its sequence's"

    # What must always hold.

    @invariant()
    def every_page_is_accounted_for(self) -> None:
        for g, group in enumerate(self.groups):
            pool = group.pool
            present = [held.states.parts[g] for held in self.held if not held.states.stored]
            uses = Counter(page for part in present for page in part.table.tolist() if page >= 0)
            assert [pool.uses(page) for page in range(pool.pages)] == [uses[page] for page in range(pool.pages)]
            assert sorted([*pool._free, *pool._idle, *uses]) == list(range(pool.pages))
            assert (pool.in_use, pool.cached) == (len(uses), len(pool._idle))
            assert {page: name for name, page in pool._page_of.items()} == pool._content
            assert set(pool._idle) <= set(pool._content) and not set(pool._free) & set(pool._content)
            slots = [slot for held in self.held for slot in held.states.parts[g].slots]
            assert group.stored == len(slots) and sorted([*slots, *group._slots]) == list(range(HOST[g]))

    @invariant()
    def remembered_pages_hold_what_their_names_say(self) -> None:
        for g, group in enumerate(self.groups):
            for page, name in group.pool._content.items():
                assert self.simulated.pages[g][page * PAGE : (page + 1) * PAGE] == self.named[name]

    @invariant()
    def every_sequence_has_what_its_next_token_looks_at(self) -> None:
        for held in self.held:
            assert held.states.length == len(held.values)
            for g, part in enumerate(held.states.parts):
                oldest = 0 if GROUPS[g].window is None else max(held.states.length - WINDOW + 1, 0)
                assert part.blocks == -(-held.states.length // PAGE) and part.first <= oldest // PAGE
                there = range(part.first, part.blocks)
                assert held.states.stored or [b for b in range(COLUMNS) if part.table[b] >= 0] == list(there)
                assert len(there) <= self.groups[g].needs(held.states.length)
                for place in self._places(held, g, part.first * PAGE, held.states.length):
                    memory = self.simulated.host if held.states.stored else self.simulated.pages
                    assert memory[g][place.slot] == place.value

    def teardown(self) -> None:
        if not hasattr(self, "memory"):
            return
        while self.held:
            self.memory.release(self.held.pop().states)
        self.every_page_is_accounted_for()
        self._run_later([])
        while self.steps:
            self.run_a_step()
        assert not any(pages.in_use for pages in self.memory.pages) and not self.memory.stored_pages

    # How it is kept beside.

    def _present(self, i: int) -> Held | None:
        present = [held for held in self.held if not held.states.stored]
        return present[i % len(present)] if present else None

    def _extended(self, held: Held, start: int, stop: int) -> bool:
        before, room = self._accounts(), self.memory.room(held.states, start, stop)
        changes = stop > held.states.own_until
        assert self.memory.room_in_steps(held.states, start, stop) >= room
        done = self.memory.extend(held.states, start, stop)
        assert done == (room >= 0 or not changes) and ((done and changes) or self._accounts() == before)
        if done and changes:
            assert min(group.pool.available for group in self.groups) == room
        self._collect()
        return done

    def _fork(self, held: Held, length: int) -> Held:
        forked = self.memory.fork(held.states, length)
        assert forked.length == length
        values, versions = held.values[:length], held.versions[:length]
        tokens = (held.tokens + [0] * length)[:length]
        self.held.append(Held(forked, held.salt, tokens, values, versions, held.drafted))
        return self.held[-1]

    def _reaches_back(self, held: Held, length: int) -> bool:
        return max(length - WINDOW + 1, 0) // PAGE >= held.states.parts[1].first

    def _number(self, key: tuple[int, ...] | tuple[int, int, int, str]) -> int:
        return self.numbers.setdefault(key, len(self.numbers))

    def _compute(self, held: Held, stop: int) -> None:
        """The values of further positions; a value stands for all that went into it."""
        for position in range(len(held.values), stop):
            before = held.values[-1] if held.values else -1
            version = self.memory.version
            held.values.append(self._number((before, held.tokens[position], version, held.salt)))
            held.versions.append(version)
        chain: list[bytes] = []
        if len({*held.versions}) == 1 and not held.drafted:
            root = root_digest(held.versions[0], held.salt)
            extend_chain(chain, root, held.tokens, PAGE, stop // PAGE)
            for block, name in enumerate(chain):
                self.named[name] = held.values[block * PAGE : (block + 1) * PAGE]

    def _places(self, held: Held, group: int, start: int, stop: int) -> list[Place]:
        part = held.states.parts[group]
        pages = part.table.tolist()
        if held.states.stored:
            pages[part.first : part.blocks] = part.slots
        return [Place(group, pages[p // PAGE] * PAGE + p % PAGE, held.values[p]) for p in range(start, stop)]

    def _run_later(self, taken: list[tuple[Held, int]]) -> None:
        written, read = [], []
        for held, start in taken:
            for g, group in enumerate(GROUPS):
                oldest = 0 if group.window is None else max(start - WINDOW + 1, 0)
                written += self._places(held, g, start, held.states.length)
                read += self._places(held, g, oldest, held.states.length)
        for place in written:
            self.simulated.pages[place.group][place.slot] = place.value
        self.steps.append(Step(self.transfers, written, read))
        self.transfers = ()
        while len(self.steps) > 2:
            self.run_a_step()

    def _collect(self) -> None:
        transfers = self.memory.take_transfers()
        self.simulated.carry_out(transfers)
        self.transfers += transfers

    def _accounts(self) -> list[tuple[int, int, int]]:
        return [(group.pool.available, group.pool.in_use, group.stored) for group in self.groups]


def test_no_order_of_events_mixes_up_states() -> None:
    run_state_machine_as_test(States, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))


@pytest.mark.slow
def test_no_order_of_many_events_mixes_up_states() -> None:
    run_state_machine_as_test(States, settings=settings(max_examples=2000, stateful_step_count=80, deadline=None))


@pytest.mark.parametrize("seed", range(64))
def test_a_busy_day_mixes_up_no_states(seed: int) -> None:
    """Long walks with likely events: drawn ones seldom fill the pools."""
    walk(seed, 250)


@pytest.mark.slow
def test_many_busy_days_mix_up_no_states() -> None:
    for seed in range(100, 1500):
        walk(seed, 300)


def walk(seed: int, events: int) -> None:
    """Random events, as often as they are likely in an engine."""
    random, machine = Random(seed), States()
    machine.start(cached=seed % 5 > 0)

    def tokens(count: int) -> list[int]:
        return random.choices((0, 1), (9, 1), k=count)

    rules: dict[str, tuple[float, Callable[[], object]]] = {
        "open": (1, lambda: machine.open(tokens(random.randint(1, 30)), random.choice(("", "", "salt")))),
        "alike": (2, lambda: machine.open_alike(random.randrange(6), random.randint(1, 8))),
        "step": (
            8,
            lambda: machine.step(
                [(random.randrange(6), random.choice((1, 1, 4, STEP))) for _ in range(random.randint(1, 4))],
                tokens(STEP),
                random.randrange(12),
            ),
        ),
        "keep": (8, lambda: machine.keep(random.randrange(6), random.randrange(2))),
        "fork": (1, lambda: machine.fork(random.randrange(6), random.randrange(8))),
        "back": (1, lambda: machine.roll_back(random.randrange(6), random.randrange(8))),
        "draft": (1, lambda: machine.verify_draft(random.randrange(6), {*random.sample(range(STEP), 3)}, seed % 2 > 0)),
        "store": (0.7, lambda: machine.store_away(random.randrange(6))),
        "load": (0.7, lambda: machine.load(random.randrange(6))),
        "release": (2, lambda: machine.release(random.randrange(6))),
        "update": (0.1, machine.update_weights),
        "forget": (0.1, machine.forget_cache),
    }
    weights, calls = zip(*rules.values(), strict=True)
    for call in random.choices(calls, weights, k=events):
        call()
        machine.every_page_is_accounted_for()
        machine.remembered_pages_hold_what_their_names_say()
        machine.every_sequence_has_what_its_next_token_looks_at()
    machine.teardown()
