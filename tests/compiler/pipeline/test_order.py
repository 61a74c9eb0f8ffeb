"""The order of passes: stages, then before and after, then as given; contradictions are refused by name."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.compiler.pipeline.order import in_order
from xllmc.passes.api import STAGES, Pass, graph_pass
from xllmc.runtime.artifact.errors import OptionError


def made(name: str, stage: Any = "fused", **declared: Any) -> Pass:
    @graph_pass(stage=stage, name=name, **declared)
    def one(rewriter) -> None:
        """Does nothing."""

    return one()


def names(*passes: Pass) -> list[str]:
    return [one.name for one in in_order(passes)]


def test_stages_come_in_order_and_else_passes_as_given():
    given_ = [made("d", "lowered"), made("b"), made("c"), made("a", "canonical"), made("r", "recognised")]
    assert names(*given_) == ["a", "r", "b", "c", "d"]


def test_before_and_after_hold():
    assert names(made("a", after="c"), made("b"), made("c")) == ["b", "c", "a"]
    assert names(made("a"), made("b"), made("c", before="a")) == ["b", "c", "a"]
    assert names(made("a", after=("b", "c")), made("b", after="c"), made("c")) == ["c", "b", "a"]


def test_what_another_stage_settles_may_be_said():
    assert names(made("a", after="b"), made("b", "canonical", before="a")) == ["b", "a"]


def test_a_pass_of_each_stage_begins_its_own_and_every_later_one():
    clean = made("clean", "recognised", each_stage=True)
    order = names(made("x"), made("y", "lowered"), made("z", "canonical"), clean, made("r", "recognised"))
    assert order == ["z", "clean", "r", "clean", "x", "clean", "y"]


@pytest.mark.parametrize(
    ("passes", "reason"),
    [
        (
            (made("a", after="b"), made("b", after="a")),
            r"passes of stage fused run after each other in a circle: (a < b < a|b < a < b)$",
        ),
        ((made("a", after="a"),), r"in a circle: a < a$"),
        (
            (made("a", before="b"), made("b", before="c"), made("c", before="a")),
            r"in a circle: (a < b < c < a|b < c < a < b|c < a < b < c)$",
        ),
        (
            (made("a", after="z"), made("b")),
            r"pass a \(.*test_order\) is to run after z, but there is no such pass; known: a, b$",
        ),
        ((made("a", before="z"),), r"pass a \(.*\) is to run before z, but there is no such pass"),
        (
            (made("a", "fused", before="b"), made("b", "recognised")),
            "pass a of stage fused cannot run before b, which is of the earlier stage recognised",
        ),
        (
            (made("a", "canonical", after="b"), made("b", "lowered")),
            "pass b of stage lowered cannot run before a, which is of the earlier stage canonical",
        ),
        (
            (made("a"), made("b"), made("a", "lowered")),
            r"two passes are named a, of .*test_order and .*test_order",
        ),
    ],
)
def test_contradictions_are_refused(passes, reason):
    with pytest.raises(OptionError, match=reason):
        in_order(passes)


def test_nothing_runs_before_what_begins_its_stage():
    clean = made("clean", "recognised", each_stage=True)
    assert names(made("a", "canonical", before="clean"), clean)[:2] == ["a", "clean"]
    assert "a" in names(made("a", "recognised", after="clean"), clean)
    with pytest.raises(OptionError, match="pass a of stage recognised cannot run before clean, which begins that"):
        names(made("a", "recognised", before="clean"), clean)
    with pytest.raises(OptionError, match="pass clean of stage recognised cannot run before a, which is of the ear"):
        names(made("a", "canonical", after="clean"), clean)


@st.composite
def ordered(draw: Any) -> tuple[list[Pass], set[tuple[str, str]]]:
    """Passes in any order, and the pairs of them that one of the two says, never in a circle."""
    count = draw(st.integers(1, 8))
    labels = [f"p{i}" for i in range(count)]
    pairs = {(a, b) for i, a in enumerate(labels) for b in labels[i + 1 :] if draw(st.integers(0, 3)) == 0}
    said = {pair: draw(st.booleans()) for pair in sorted(pairs)}
    stages = sorted((draw(st.sampled_from(STAGES[1:])) for _ in labels), key=STAGES.index)
    passes = [
        made(
            name,
            stage,
            before=tuple(b for (a, b), first in said.items() if a == name and first),
            after=tuple(a for (a, b), first in said.items() if b == name and not first),
        )
        for name, stage in zip(labels, stages, strict=True)
    ]
    return draw(st.permutations(passes)), pairs


@given(ordered())
def test_any_order_without_circles_is_kept_and_the_given_one_breaks_ties(case):
    passes, pairs = case
    order = names(*passes)
    assert sorted(order) == sorted(p.name for p in passes)
    assert all(order.index(a) < order.index(b) for a, b in pairs)
    stage = {p.name: STAGES.index(p.stage) for p in passes}
    assert order == sorted(order, key=stage.__getitem__)
    place = {p.name: i for i, p in enumerate(passes)}
    for number, name in enumerate(order):
        ready = [n for n in order[number:] if stage[n] == stage[name] and not pairs & {(m, n) for m in order[number:]}]
        assert name == min(ready, key=place.__getitem__)


@given(ordered(), st.data())
def test_a_circle_is_refused_and_named(case, data):
    passes, pairs = case
    stage = {p.name: p.stage for p in passes}
    own = sorted((a, b) for a, b in pairs if stage[a] == stage[b])
    if not own:
        return
    first, last = data.draw(st.sampled_from(own))
    spoilt = [p if p.name != last else made(last, p.stage, before=(*p.before, first), after=p.after) for p in passes]
    with pytest.raises(OptionError, match="in a circle: ") as caught:
        in_order(spoilt)
    circle = str(caught.value).partition("circle: ")[2].split(" < ")
    assert circle[0] == circle[-1]
    assert all(pair in pairs | {(last, first)} for pair in pairwise(circle))
