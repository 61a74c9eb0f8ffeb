import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.runtime.artifact.errors import OptionError
from xllmc.runtime.artifact.schema import StateGroup
from xllmc.runtime.pages import KvMemory, SequencePages

PAGE = 32
STEP = 50
WINDOW = 70
GROUPS = (
    StateGroup(index=0, window=None, page_tokens=PAGE, names=("a",)),
    StateGroup(index=1, window=WINDOW, page_tokens=PAGE, names=("b",)),
)


def taken(kv: KvMemory) -> list[int]:
    return [pool.taken for pool in kv.pools]


def held(sequences: list[SequencePages], group: int) -> list[int]:
    return [page for sequence in sequences for page in sequence.tables[group].tolist() if page >= 0]


@given(st.lists(st.tuples(st.integers(1, 400), st.lists(st.integers(1, STEP), max_size=30)), max_size=6), st.data())
def test_accounting_is_exact_after_every_event(plans: list[tuple[int, list[int]]], data: st.DataObject) -> None:
    kv = KvMemory(GROUPS, (26, 12), 13, STEP)
    running: list[tuple[SequencePages, int, int, list[int]]] = []
    for longest, steps in plans:
        pages = kv.reserve(longest)
        if pages is None:
            assert running
            done = running.pop(data.draw(st.integers(0, len(running) - 1)))
            kv.release(done[0])
            continue
        running.append((pages, 0, longest, list(steps)))
        for i, (sequence, length, most, left) in enumerate(running):
            if not left or length == most:
                continue
            stop = min(most, length + left.pop())
            kv.extend(sequence, length, stop)
            running[i] = (sequence, stop, most, left)
            for group in range(2):
                pages_held = held([entry[0] for entry in running], group)
                assert len(set(pages_held)) == len(pages_held) == kv.pools[group].taken <= kv.pools[group].reserved
            oldest = max(0, length - WINDOW + 1)
            for position in range(oldest, stop):
                assert sequence.tables[1][position // PAGE] >= 0
            assert (sequence.tables[1][: oldest // PAGE] == -1).all()
    for entry in running:
        kv.release(entry[0])
    assert taken(kv) == [pool.reserved for pool in kv.pools] == [0, 0]


def test_who_holds_a_reservation_never_waits() -> None:
    kv = KvMemory(GROUPS, (10, 10), 20, STEP)
    first = kv.reserve(200)
    assert first is not None
    assert kv.reserve(200) is None
    second = kv.reserve(96)
    assert second is not None
    kv.extend(second, 0, 96)
    for start in range(0, 200, 50):
        kv.extend(first, start, start + 50)
    assert taken(kv)[0] == 10


def test_what_can_never_fit_is_an_error() -> None:
    kv = KvMemory(GROUPS, (4, 10), 20, STEP)
    with pytest.raises(OptionError, match="129 tokens needs 160 tokens of key-value memory, got 128"):
        kv.reserve(129)
    assert [pool.reserved for pool in kv.pools] == [0, 0]
