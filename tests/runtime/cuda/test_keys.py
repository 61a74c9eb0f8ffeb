"""Keys: a closed set that holds every step the door lets in, and a choice that is the cheapest."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from xllmc.runtime.artifact.schema import FunctionPlan, InputEntry
from xllmc.runtime.backend import StepSizes
from xllmc.runtime.cuda.keys import Key, choose, choose_rows, counts, forward_keys
from xllmc.runtime.cuda.layout import Span, fixed_layout, key_layout, merged
from xllmc.runtime.plan import Capacities

CAPACITIES = st.builds(Capacities, st.integers(1, 5000), st.integers(1, 700), st.integers(1, 700), st.integers(1, 1000))


@st.composite
def steps(draw: st.DrawFn) -> tuple[Capacities, StepSizes]:
    """Capacities, and a step that they hold."""
    most = draw(CAPACITIES)
    sequences = draw(st.integers(1, min(most.sequences, most.tokens)))
    decodes = draw(st.booleans())
    longest = 1 if decodes else draw(st.integers(1, most.tokens - sequences + 1))
    tokens = sequences if longest == 1 else draw(st.integers(sequences + longest - 1, most.tokens))
    # No more than all sequences at the longest.
    tokens = min(tokens, sequences * longest)
    return most, StepSizes(tokens, sequences, draw(st.integers(0, most.rows)), 1, longest)


@given(steps())
@settings(max_examples=300)
def test_every_step_has_a_key_and_gets_the_cheapest(step: tuple[Capacities, StepSizes]) -> None:
    capacities, sizes = step
    keys = forward_keys(capacities)
    key = choose(keys, sizes)
    assert key.holds(sizes)
    assert not [other for other in keys if other.holds(sizes) and other < key]
    assert key.tokens <= capacities.tokens and key.sequences <= capacities.sequences and key.rows <= capacities.rows


@given(steps())
@settings(max_examples=300)
def test_decoding_pads_little(step: tuple[Capacities, StepSizes]) -> None:
    capacities, sizes = step
    key = choose(forward_keys(capacities), sizes)
    if sizes.most_tokens == 1 and sizes.rows <= sizes.sequences:
        assert key.most_tokens == 1 and key.tokens <= max(2 * sizes.tokens, sizes.tokens + 32)
    elif sizes.rows <= sizes.tokens:
        assert key.tokens <= max(2 * sizes.tokens, 16)


@given(CAPACITIES)
def test_there_are_few_keys(capacities: Capacities) -> None:
    keys = forward_keys(capacities)
    assert len(set(keys)) == len(keys) <= 75
    assert keys == tuple(sorted(keys))
    assert keys[-1].tokens == capacities.tokens, "arenas and inputs are laid out for it"
    assert {key.rows for key in keys} <= {*range(capacities.rows + 1)}


@given(st.integers(1, 700), st.data())
def test_rows_have_keys_of_their_own(limit: int, data: st.DataObject) -> None:
    keys = [Key(n, n, n, 1) for n in counts(limit)]
    rows = data.draw(st.integers(1, limit))
    chosen = choose_rows(keys, rows)
    assert rows <= chosen.rows <= max(2 * rows, rows + 32, 1) and chosen.rows <= limit


def test_usual_capacities() -> None:
    assert counts(64) == (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)
    assert counts(1) == (1,)
    assert counts(8) == (1, 2, 4, 8)
    assert counts(330)[-4:] == (256, 288, 320, 330)
    keys = forward_keys(Capacities(512, 64, 64, 128))
    assert [k for k in keys if k.most_tokens > 1] == [
        *((16, 16, 16, 16), (32, 32, 32, 32), (64, 64, 64, 64)),
        *((128, 64, 64, 128), (256, 64, 64, 256), (512, 64, 64, 512)),
    ]
    assert choose(keys, StepSizes(16, 16, 16, 1, 1)) == (16, 16, 16, 1), "decoding, where both would hold it"
    assert choose(keys, StepSizes(3, 3, 30, 1, 1)) == (32, 32, 32, 1), "rows that are asked for twice"


def test_large_tables_are_not_in_what_graphs_copy() -> None:
    tokens = InputEntry(name="token_ids", dtype="i32", shape=("T",))
    table = InputEntry(name="block_table.0", dtype="i32", shape=("S", "B"))
    rows = InputEntry(name="rows", dtype="u8", shape=("R", 80))
    forward = FunctionPlan(name="forward", inputs=(table, tokens), outputs={}, launches=())
    sample = FunctionPlan(name="sample", inputs=(rows,), outputs={}, launches=())
    key = Key(64, 64, 64, 1)
    for columns, whole in ((128, True), (1024, False)):
        fixed = fixed_layout([sample], key, columns)
        layout = key_layout(fixed, forward, key, columns)
        assert layout.spans["sample", "rows"] == fixed.spans["sample", "rows"] == (0, 64 * 80)
        start, stop = layout.spans["forward", "block_table.0"]
        assert stop - start == 64 * columns * 4 and layout.spans["forward", "token_ids"].stop <= start
        assert layout.captured == (layout.size if whole else start)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 20))), st.integers(1, 30))
def test_merged_spans_cover_the_same_and_lie_apart(pieces: list[tuple[int, int]], gap: int) -> None:
    spans = [Span(start, start + size) for start, size in pieces]
    found = merged(spans, gap)
    covered = {byte for span in found for byte in range(*span)}
    assert covered >= {byte for span in spans for byte in range(*span)}
    assert all(later.start - earlier.stop >= gap for earlier, later in pairwise(found))
    assert all(span.start < span.stop for span in found)
