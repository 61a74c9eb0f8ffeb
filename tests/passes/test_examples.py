"""Every installed pass does to its examples what they say, and their results stay what they were."""

import pytest
from xllmc.compiler.check.samples import Samples
from xllmc.compiler.pipeline.listing import pass_list
from xllmc.compiler.pipeline.run import run_pass
from xllmc.passes.api import Example, Pass, Rewrite

from tests.passes.interpreted import difference

PASSES = tuple({one.name: one for one in pass_list().passes}.values())
CASES = [
    pytest.param(one, shown, id=f"{one.name}-{number}") for one in PASSES for number, shown in enumerate(one.examples)
]


@pytest.mark.parametrize(("one", "shown"), CASES)
def test_an_example_is_as_declared_and_keeps_its_results(one: Pass, shown: Example):
    before = shown.program()
    changed, report = run_pass(before, one)
    assert report.matches == shown.matches, report.near_misses
    assert shown.rejects in "; ".join(report.near_misses)
    for samples in (Samples(0), Samples(1)):
        assert difference(before, changed, samples) <= 1


@pytest.mark.parametrize(("one", "shown"), CASES)
def test_an_example_done_in_part_is_right_too(one: Pass, shown: Example):
    """Bisection stops a pass after any number of sites."""
    before = shown.program()
    for limit in range(shown.matches + 1):
        changed, report = run_pass(before, one, limit=limit)
        assert report.matches == limit
        assert difference(before, changed, Samples(0)) <= 1


@pytest.mark.parametrize("one", PASSES, ids=lambda one: one.name)
def test_a_pass_shows_what_it_changes_and_what_it_leaves(one: Pass):
    assert any(e.matches for e in one.examples)
    assert any(not e.matches for e in one.examples)


def test_there_are_rewrites_and_graph_passes():
    assert {isinstance(one, Rewrite) for one in PASSES} == {True, False}


@pytest.mark.parametrize("one", [p for p in PASSES if isinstance(p, Rewrite)], ids=lambda one: one.name)
def test_a_rewrite_leaves_what_it_made_alone(one: Pass):
    """Run again on its own result, it finds nothing: a canonical form, not a seesaw."""
    for shown in one.examples:
        once, _ = run_pass(shown.program(), one)
        _, report = run_pass(once, one)
        assert report.matches == 0
