"""Whatever a step is, and whatever it was captured for, each of its tokens is computed once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.codegen.triton.architecture import ARCHITECTURES
from xllmc.codegen.triton.attention_tiles import Geometry, shared_bytes, splits, tile
from xllmc.codegen.triton.attention_variants import MOST_SUMS, variants
from xllmc.runtime.artifact.sizes import holds

GEOMETRIES = [
    Geometry(32, 8, 128, 128, "bf16"),
    Geometry(16, 8, 128, 128, "bf16"),
    Geometry(8, 4, 256, 256, "bf16"),
    Geometry(71, 1, 64, 64, "f16"),
    Geometry(12, 12, 64, 64, "f32"),
    Geometry(28, 4, 200, 80, "f16"),
    Geometry(8, 4, 256, 256, "f32"),
    Geometry(32, 8, 128, 128, "bf16", trees=True),
]


@given(
    shape=st.sampled_from(GEOMETRIES),
    machine=st.sampled_from(list(ARCHITECTURES.values())),
    context=st.sampled_from([32, 512, 40_960]),
    invariant=st.booleans(),
    counts=st.lists(st.integers(1, 300), min_size=1, max_size=40),
    more=st.tuples(*[st.integers(0, 600)] * 3),
)
def test_each_token_is_computed_once(shape, machine, context, invariant, counts, more):
    sizes = {"T": sum(counts) + more[0], "S": len(counts) + more[1], "R": 1, "B": 1, "Q": max(counts) + more[2]}
    launched = [v for v in variants(shape, context, machine, invariant) if holds(v.when, sizes)]
    for count in set(counts):
        ways = [v for v in launched if (count <= v.short) == (v.which == "sequence")]
        assert len(ways) == 1
        assert ways[0].which == "tokens" or count <= ways[0].tile.tokens
    for variant in launched:
        if variant.slots:
            used = len(counts) * variant.short if variant.which == "sequence" else sum(counts)
            assert used <= variant.slots and variant.programs > 1
        else:
            assert variant.programs == 1 and variant.pieces in ("none", "serial")


@pytest.mark.parametrize("name", list(ARCHITECTURES))
@pytest.mark.parametrize("shape", GEOMETRIES, ids=str)
def test_sums_of_shared_contexts_take_little_memory(shape: Geometry, name: str):
    for invariant in (False, True):
        for variant in variants(shape, 40_960, ARCHITECTURES[name], invariant):
            pieces = 50 if invariant else variant.programs
            assert variant.slots * shape.heads * pieces * shape.value_dim * 4 <= MOST_SUMS, variant


@pytest.mark.parametrize("name", list(ARCHITECTURES))
@pytest.mark.parametrize("shape", GEOMETRIES, ids=str)
def test_tiles_fit(shape: Geometry, name: str):
    machine = ARCHITECTURES[name]
    for rows in (16, 64, 128):
        one = tile(shape, rows, machine)
        assert shared_bytes(shape, one.rows, one.block, machine) <= machine.shared_limit
        assert one.rows <= rows and one.fold * one.folds >= shape.group and one.tokens >= 1


def test_batch_invariant_mode_has_one_tile():
    for shape in GEOMETRIES:
        for machine in ARCHITECTURES.values():
            first, *others = (v.tile for v in variants(shape, 40_960, machine, True))
            assert all(other == first for other in others)


def test_pieces_fill_what_is_wanted():
    assert splits(8, 1000, 264) == 32 and splits(200, 1000, 264) == 1 and splits(300, 1000, 264) == 1
    assert splits(1, 1000, 264) == 64 and splits(8, 3, 264) == 4
