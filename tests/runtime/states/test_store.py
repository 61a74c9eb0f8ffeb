"""What transfers do to pages that real kernels wrote."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.runtime.engine import Engine
from xllmc.runtime.states.memory import SequenceStates
from xllmc.runtime.states.paged_store import PagedStore
from xllmc.runtime.states.transfer import CopyPage, LoadPage, MoveTokens, StorePage
from xllmc.runtime.step import StepInput

from tests.conftest import LoadEngine
from tests.runtime.states.layout import TokenView, state_entry

PAGE, PAGES, HOST = 32, 5, 2
DIMENSIONS = [("f32", 2, 4, 6), ("bf16", 2, 4, 6), ("bf16", 3, 16, 16), ("f32", 1, 1, 0), ("f32", 1, 2, 5)]
MODELS = [("qwen3", "fp32"), ("gemma2", "bf16")]


@pytest.mark.parametrize(("dtype", "heads", "key_dim", "value_dim"), DIMENSIONS)
@given(
    moves=st.lists(
        st.tuples(st.integers(0, 159), st.integers(0, 159)), min_size=1, max_size=40, unique_by=lambda m: m[1]
    )
)
def test_tokens_move_as_the_cache_lays_them_out(
    dtype: str, heads: int, key_dim: int, value_dim: int, moves: list[tuple[int, int]]
) -> None:
    """All sources are read before any target is written; nothing else moves."""
    state, other = (state_entry(name, g, PAGE, dtype, heads, key_dim, value_dim) for g, name in enumerate("ab"))
    store = PagedStore((state, other), (PAGES, PAGES), (HOST, HOST), PAGE)
    views = [TokenView(store.memory, entry, PAGE) for entry in (state, other)]
    for view in views:
        for slot in range(PAGES * PAGE):
            view.write(slot, slot)
    sources, targets = [source for source, _ in moves], [target for _, target in moves]
    store.carry_out([MoveTokens(0, tuple(sources), tuple(targets))])
    now = dict(zip(targets, sources, strict=True))
    assert all(views[0].holds(slot, now.get(slot, slot)) for slot in range(PAGES * PAGE))
    assert all(views[1].holds(slot, slot) for slot in range(PAGES * PAGE))


def test_pages_are_copied_stored_and_loaded_in_order() -> None:
    states = [state_entry(name, g, PAGE, "bf16", 1, 2, 3) for name, g in (("a", 0), ("b", 0), ("c", 1))]
    store = PagedStore(states, (PAGES, PAGES), (HOST, HOST), PAGE)
    views = [TokenView(store.memory, state, PAGE) for state in states]
    for view in views:
        for slot in range(PAGES * PAGE):
            view.write(slot, slot)
    store.carry_out([StorePage(0, 0, 1), CopyPage(0, 1, 0), LoadPage(0, 1, 2), StorePage(0, 3, 1), LoadPage(0, 1, 4)])
    for view, pages in zip(views, ([1, 1, 0, 3, 3], [1, 1, 0, 3, 3], [0, 1, 2, 3, 4]), strict=True):
        for page, content in enumerate(pages):
            assert all(view.holds(page * PAGE + place, content * PAGE + place) for place in range(PAGE))


class Stepper:
    """Sequences of one engine, fed by hand."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.memory = engine.memory

    def feed(self, states: SequenceStates, tokens: Sequence[int]) -> np.ndarray:
        """Logits after each of further tokens."""
        start = states.length
        assert self.memory.extend(states, start, start + len(tokens))
        step = StepInput(
            token_ids=np.array(tokens, np.int32),
            positions=np.arange(start, start + len(tokens), dtype=np.int32)[None],
            query_starts=np.array([0, len(tokens)], np.int32),
            block_tables=self.memory.tables([states]),
            logit_rows=np.arange(len(tokens), dtype=np.int32),
        )
        return self.engine.step(step).logits.copy()

    def anew(self, tokens: Sequence[int]) -> np.ndarray:
        """The same from nothing."""
        states = self.memory.open()
        logits = self.feed(states, tokens)
        self.memory.release(states)
        return logits


@pytest.fixture(params=MODELS, ids=lambda which: "-".join(which))
def stepper(request: pytest.FixtureRequest, loaded: LoadEngine) -> Stepper:
    return Stepper(loaded(*request.param))


def tokens_of(seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 300, count).tolist()


@pytest.mark.parametrize("length", [1, 31, 32, 45, 64])
def test_forks_go_on_as_if_alone(stepper: Stepper, length: int) -> None:
    memory, prompt = stepper.memory, tokens_of(0, length)
    first = memory.open()
    stepper.feed(first, prompt)
    second = memory.fork(first, length)
    ways = [tokens_of(1, 9), tokens_of(2, 9)]
    got = [stepper.feed(states, way) for states, way in zip((first, second), ways, strict=True)]
    for logits, way in zip(got, ways, strict=True):
        assert np.array_equal(logits, stepper.anew([*prompt, *way])[length:])
    memory.release(first)
    assert np.array_equal(stepper.feed(second, [7]), stepper.anew([*prompt, *ways[1], 7])[-1:])
    memory.release(second)
    assert not any(group.in_use for group in memory.pages)


@pytest.mark.parametrize("length", [30, 32, 33, 40])
def test_what_is_rolled_back_leaves_no_trace(stepper: Stepper, length: int) -> None:
    memory, tokens = stepper.memory, tokens_of(3, 45)
    states = memory.open()
    stepper.feed(states, tokens[:30])
    stepper.feed(states, tokens[30:])
    memory.roll_back(states, length)
    way = tokens_of(4, 40)
    assert np.array_equal(stepper.feed(states, way), stepper.anew([*tokens[:length], *way])[length:])
    memory.release(states)
    assert not any(group.in_use for group in memory.pages)


def test_compacted_tokens_are_where_they_belong(stepper: Stepper) -> None:
    """Tokens that are kept of a draft move to where they would be alone, byte for byte; what they replace is gone."""
    memory, prompt = stepper.memory, tokens_of(5, 28)
    # At the door positions are consecutive, so a draft's tokens stand where they were fed: compare bytes.
    states = memory.open()
    stepper.feed(states, [*prompt, *tokens_of(6, 12)])
    kept = [0, 2, 3, 7, 11]
    groups = {state.name: state for state in stepper.engine.manifest.states}
    store = stepper.engine._runner.store
    before = {name: token_bytes(store, states, state, range(40)) for name, state in groups.items()}
    memory.compact(states, 28, kept)
    store.carry_out(memory.take_transfers())
    assert states.length == 33
    for name, state in groups.items():
        now = token_bytes(store, states, state, range(33))
        assert now[:28] == before[name][:28]
        assert now[28:] == [before[name][28 + offset] for offset in kept]
    memory.release(states)
    assert not any(group.in_use for group in memory.pages)


def token_bytes(store: PagedStore, states: SequenceStates, state: object, positions: Sequence[int]) -> list[bytes]:
    """All elements of one layer's tokens."""
    view = TokenView(store.memory, state, PAGE)  # type: ignore[arg-type]
    table = states.parts[state.group].table  # type: ignore[attr-defined]
    return [view.read(int(table[p // PAGE]) * PAGE + p % PAGE) for p in positions]


def test_a_page_holds_what_the_manifest_says(stepper: Stepper) -> None:
    for state in stepper.engine.manifest.states:
        alike = state_entry("", 0, PAGE, state.dtype, state.kv_heads, state.key_dim, state.value_dim)
        assert alike.page_bytes == state.page_bytes
