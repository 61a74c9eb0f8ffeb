"""Paged attention on the interpreter: what a query sees, in every kind of step.

All memory that no token of a step may read is not a number (``attending.py``), and all pages that are gone are -1.
"""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.codegen.triton.attending import Heads, Part, attention_program, check, step

BOUNDS = {"f32": 1e-5}
"""What the op allows; weights of 16-bit dtypes are rounded once more, within their own bounds."""

DECODING = [Part(70, 1), Part(0, 1, 1), Part(31, 1, 2)]
VERIFYING = [Part(40, 5), Part(0, 3, 1)]
MIXED = [Part(100, 1), Part(3, 40, 1), Part(64, 2, 2), Part(0, 1, 3)]


def run(parts: list[Part], heads: Heads, work: Path, capture: int = 0, **options) -> None:
    """``capture``: by how much captured sizes exceed the step's."""
    invariant = options.pop("invariant", False)
    made = attention_program(heads, **options)
    one = step(parts, heads, options.get("window", 0))
    larger = {name: one.sizes[name] + capture for name in "TSQ"}
    check(made, one, work, capture=larger, invariant=invariant, bounds=BOUNDS)


@pytest.mark.parametrize("parts", [DECODING, VERIFYING, MIXED], ids=["decoding", "verifying", "mixed"])
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_steps(dtype: str, parts: list[Part], tmp_path: Path):
    run(parts, Heads(dtype=dtype), tmp_path, capture=2, context=256)


@pytest.mark.parametrize("parts", [DECODING, MIXED], ids=["decoding", "mixed"])
@pytest.mark.parametrize("invariant", [False, True])
def test_windows_and_caps(invariant: bool, parts: list[Part], tmp_path: Path):
    run(parts, Heads(4, 1), tmp_path, window=33, softcap=2.0, scale=1.0, context=256, invariant=invariant)


@pytest.mark.parametrize(
    "heads",
    [
        Heads(2, 1, 80, 80),
        Heads(2, 1, 96, 24, "f16"),
        Heads(1, 1, 200, 200, "bf16"),
        Heads(2, 2, 8, 8),
        Heads(7, 1, 16, 40),
        Heads(71, 1, 16, 16, "bf16"),
        Heads(24, 1, 16, 16),
    ],
    ids=str,
)
def test_geometries(heads: Heads, tmp_path: Path):
    run([Part(35, 1), Part(3, 20, 1)], heads, tmp_path, context=64)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_89"])
def test_tiles_of_other_architectures(architecture: str, tmp_path: Path):
    heads = Heads(2, 1, 256, 256, "bf16")
    check(attention_program(heads, context=128), step(MIXED[:2], heads), tmp_path, architecture=architecture)


def test_one_long_context_is_shared_by_programs(tmp_path: Path):
    """Among them some whose share is empty, and the last one's ends within a block."""
    heads = Heads(2, 1)
    for start in (0, 62, 64, 321):
        run([Part(start, 1)], heads, tmp_path, context=1024)


def test_a_short_prompt_on_a_long_context_is_shared_by_programs(tmp_path: Path):
    run([Part(150, 70)], Heads(4, 2, dtype="bf16"), tmp_path, context=512, window=100)


CHUNK = st.integers(1, 24)
STEPS = st.lists(
    st.builds(Part, st.integers(0, 100), st.one_of(st.just(1), CHUNK), st.integers(0, 3)), min_size=1, max_size=4
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=STEPS,
    window=st.sampled_from([0, 0, 1, 17, 32, 64]),
    softcap=st.sampled_from([0.0, 1.5]),
    heads=st.sampled_from([Heads(2, 1), Heads(4, 2, 16, 24, "bf16"), Heads(3, 1, 24, 16, "f16")]),
    capture=st.integers(0, 3),
    invariant=st.booleans(),
)
def test_any_step(tmp_path: Path, parts, window, softcap, heads, capture, invariant):
    run(parts, heads, tmp_path, capture, window=window, softcap=softcap, invariant=invariant, context=128)


@st.composite
def trees(draw) -> tuple[list[Part], torch.Tensor]:
    """Sequences whose tokens are trees, with words for 64 nodes."""
    parts = draw(
        st.lists(st.builds(Part, st.integers(0, 70), st.integers(1, 36), st.integers(0, 3)), min_size=1, max_size=2)
    )
    rows = []
    for part in parts:
        seen: list[int] = []
        depths: list[int] = []
        for node in range(part.tokens):
            parent = draw(st.integers(max(0, node - 3), node - 1)) if node else None
            seen.append(1 << node | (seen[parent] if parent is not None else 0))
            depths.append(depths[parent] + 1 if parent is not None else 0)
            words = (seen[node] & 0xFFFFFFFF, seen[node] >> 32)
            rows.append([depths[node], *(word - (word >> 31 << 32) for word in words)])
    return parts, torch.tensor(rows, dtype=torch.int32)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=trees(), window=st.sampled_from([0, 20, 64]), invariant=st.booleans(), capture=st.integers(0, 2))
def test_any_tree(tmp_path: Path, drawn, window, invariant, capture):
    parts, tree = drawn
    heads = Heads(2, 1, dtype="bf16")
    made = attention_program(heads, words=2, window=window, context=128)
    one = step(parts, heads, window, tree=tree)
    larger = {name: one.sizes[name] + capture for name in "TSQ"}
    check(made, one, tmp_path, capture=larger, invariant=invariant)


def test_queries_of_another_dtype_are_refused():
    from xllmc.codegen.triton.architecture import ARCHITECTURES
    from xllmc.codegen.triton.lower import lower
    from xllmc.runtime.artifact.errors import XllmcError

    made = attention_program(Heads())
    next(n for n in made.forward.inputs if n.target == "q").meta["type"] = (
        made.forward.calls[0].meta["type"].with_dtype("bf16")
    )
    with pytest.raises(XllmcError, match="queries of the cache's dtype f32, got bf16"):
        lower(made, ARCHITECTURES["sm_90"])
