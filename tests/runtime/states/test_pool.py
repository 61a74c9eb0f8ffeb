"""Which pages are taken, what is found again, and what can never fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.runtime.artifact.errors import OptionError
from xllmc.runtime.artifact.schema import StateGroup
from xllmc.runtime.states.digests import extend_chain, root_digest
from xllmc.runtime.states.memory import StateMemory
from xllmc.runtime.states.paged import PagedGroup
from xllmc.runtime.states.pool import PagePool


def test_free_pages_are_taken_before_remembered_ones_and_these_by_last_use() -> None:
    pool = PagePool(4)
    pages = [pool.take() for _ in range(3)]
    for page in pages:
        pool.keep(page, bytes([page]))
    for page in (pages[1], pages[0], pages[2]):
        pool.drop(page)
    assert (pool.available, pool.in_use, pool.cached) == (4, 0, 3)
    # Used once more, so no longer the oldest.
    pool.share(pages[1])
    pool.drop(pages[1])
    free = pool.take()
    assert free not in pages
    assert [pool.take() for _ in range(3)] == [pages[0], pages[2], pages[1]]
    assert all(pool.find(bytes([page])) is None for page in pages)
    with pytest.raises(IndexError, match="no page is available"):
        pool.take()


def test_what_was_freed_last_is_taken_first() -> None:
    """So that memory that was never touched stays so."""
    pool = PagePool(100)
    pages = [pool.take() for _ in range(3)]
    for page in pages:
        pool.drop(page)
    assert pool.take() == pages[-1] and sorted(pages) == [0, 1, 2]


def test_the_first_page_with_a_content_stays_the_one_that_is_found() -> None:
    pool = PagePool(3)
    first, second = pool.take(), pool.take()
    pool.keep(first, b"content")
    pool.keep(second, b"content")
    pool.keep(first, b"other")
    assert pool.find(b"content") == first and pool.find(b"other") is None
    pool.drop(second)
    assert (pool.available, pool.cached) == (2, 0)
    pool.forget(first)
    pool.drop(first)
    assert pool.find(b"content") is None and pool.available == 3 and pool.cached == 0


def test_forgetting_all_frees_idle_pages_alone() -> None:
    pool = PagePool(2)
    used, idle = pool.take(), pool.take()
    pool.keep(used, b"a")
    pool.keep(idle, b"b")
    pool.drop(idle)
    pool.forget_all()
    assert (pool.find(b"a"), pool.find(b"b"), pool.cached, pool.in_use) == (None, None, 0, 1)
    assert pool.take() == idle
    pool.drop(used)
    assert pool.take() == used


TOKENS = st.lists(st.integers(0, 3), max_size=24)


@given(first=TOKENS, second=TOKENS, versions=st.tuples(st.integers(0, 1), st.integers(0, 1)))
def test_equal_names_mean_equal_prefixes(first: list[int], second: list[int], versions: tuple[int, int]) -> None:
    chains = []
    for tokens, version in zip((first, second), versions, strict=True):
        chain: list[bytes] = []
        extend_chain(chain, root_digest(version, ""), tokens, 4, len(tokens) // 4)
        chains.append(chain)
    for block, (one, other) in enumerate(zip(*chains, strict=False)):
        stop = (block + 1) * 4
        assert (one == other) == (versions[0] == versions[1] and first[:stop] == second[:stop])


def test_a_chain_goes_on_where_it_ended() -> None:
    tokens, root = list(range(20)), root_digest(3, "tenant")
    whole: list[bytes] = []
    extend_chain(whole, root, tokens, 4, 5)
    parts: list[bytes] = []
    for blocks in (0, 2, 2, 5):
        extend_chain(parts, root, tokens, 4, blocks)
    assert parts == whole and len(set(whole)) == 5


def test_roots_differ_by_version_and_salt() -> None:
    roots = [(0, ""), (1, ""), (0, "a"), (0, " "), (0, "\ud800"), (1, "0"), (10, "")]
    assert len({root_digest(*root) for root in roots}) == len(roots)


def test_what_can_never_fit_is_an_error() -> None:
    memory = StateMemory([PagedGroup(StateGroup(index=0, window=None, page_tokens=4, names=()), 18, 40, 7, 0)])
    memory.check_fits(72)
    with pytest.raises(OptionError, match="73 tokens needs 76 tokens of key-value memory, got 72"):
        memory.check_fits(73)
