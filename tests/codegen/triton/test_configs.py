"""Tiles of matrix products: what is offered, what is chosen, and choices that were measured."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from xllmc.codegen.triton import configs
from xllmc.codegen.triton.architecture import ARCHITECTURES
from xllmc.codegen.triton.configs import BOUNDS, candidates, choose, variants
from xllmc.codegen.triton.invariant import invariant_variants
from xllmc.codegen.triton.predict import Problem, predict, shared_bytes
from xllmc.codegen.triton.tuned import parse_choices
from xllmc.runtime.artifact.errors import XllmcError

problems = st.builds(
    Problem,
    st.sampled_from(["f32", "bf16", "f16"]),
    st.integers(1, 20000),
    st.integers(1, 20000),
    st.booleans(),
    st.sampled_from(BOUNDS),
)
machines = st.sampled_from(list(ARCHITECTURES.values()))


@examples(max_examples=60)
@given(problems, machines)
def test_every_problem_has_candidates_that_fit(problem, machine):
    found = candidates(problem, machine)
    assert found and found == candidates(problem, machine)
    for config in found:
        tiles = config.tiles
        assert shared_bytes(problem, config) <= machine.shared_limit
        assert tiles["SPLIT"] == 1 or (problem.rows and problem.inner % (tiles["SPLIT"] * tiles["BLOCK_K"]) == 0)
        assert tiles["BLOCK_M"] >= 16 or problem.rows == 1
        assert 0 < predict(problem, config, machine) < 10


@examples(max_examples=30)
@given(problems, machines)
def test_variants_meet_without_a_gap(problem, machine):
    for found in (variants(problem, machine), invariant_variants(problem, machine)):
        assert found[0].least == 1 and found[-1].most is None
        assert all(a.most == b.least - 1 for a, b in pairwise(found))


@examples(max_examples=60)
@given(problems, machines)
def test_invariant_variants_share_whatever_orders_a_sum(problem, machine):
    """K's pieces, which operand the weights are, and the width of the matrix instruction."""
    few, many = (v.config.tiles for v in invariant_variants(problem, machine))
    assert all(few[name] == many[name] for name in ("SPLIT", "SWAP", "BLOCK_N"))
    assert problem.inner % few["SPLIT"] == 0
    for tiles in (few, many):
        assert few["SPLIT"] == 1 or problem.inner // few["SPLIT"] % tiles["BLOCK_K"] == 0


def test_decoding_moves_the_weights_at_most_of_the_bandwidth_of_the_data_sheet():
    """Large products of one row and of sixteen: predicted above 70% of 4.8 TB/s, so that no choice is absurd."""
    machine = ARCHITECTURES["sm_90"]
    for rows in (1, 16):
        for columns, inner in [(6144, 4096), (4096, 12288), (151936, 1024)]:
            problem = Problem("bf16", columns, inner, rows=rows)
            seconds = predict(problem, choose(problem, machine), machine)
            assert columns * inner * 2 / seconds > 0.7 * 4.8e12


def choice(**changes: object) -> str:
    tiles = {"BLOCK_M": 16, "BLOCK_N": 64, "BLOCK_K": 128, "SPLIT": 2, "WALK": 0, "SWAP": 1, "GROUP": 1}
    known = {"dtype": "bf16", "columns": 4096, "inner": 1024, "rows": 16, "tiles": tiles, "warps": 4, "stages": 4}
    given_tiles = changes.pop("tiles", {})
    made = known | changes | {"tiles": tiles | dict(given_tiles)}  # type: ignore[call-overload]
    return json.dumps({"device": "a card", "choices": [made]})


def test_a_measured_choice_comes_before_the_predicted_one(monkeypatch: pytest.MonkeyPatch):
    machine = replace(ARCHITECTURES["sm_90"], name="sm_measured")
    problem = Problem("bf16", 4096, 1024, rows=16)
    known = parse_choices(choice(), "sm_measured.json")
    monkeypatch.setattr(configs, "measured", lambda name: known)
    config = choose(problem, machine)
    assert config.tiles["SPLIT"] == 2 and config.warps == 4 and config.stages == 4
    assert choose(replace(problem, rows=64), machine) in candidates(replace(problem, rows=64), machine)


def test_choices_are_of_one_kind_of_kernel():
    assert parse_choices(choice(kind="attention"), "f") == {}
    assert len(parse_choices(choice(kind="attention"), "f", "attention")) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"warps": "many"}, "choices.0.warps"),
        ({"speed": 3}, "choices.0.speed"),
        ({"tiles": {"BLOCK_N": 48}}, "powers of two"),
        ({"tiles": {"DEPTH": 1}}, "tiles must be BLOCK_M"),
        ({"tiles": {"BLOCK_M": 1}}, "one row"),
        ({"tiles": {"SPLIT": 16}}, "whole blocks"),
        ({"rows": None}, "bound of rows"),
    ],
)
def test_a_damaged_choice_is_refused_by_name(changes: dict, said: str):
    with pytest.raises(XllmcError, match=r"sm_90\.json") as problem:
        parse_choices(choice(**changes), "sm_90.json")
    assert said in str(problem.value)
