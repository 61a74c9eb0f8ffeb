"""Capture and replay of the generated module, on a double of ``torch.npu``: no NPU has run it."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from xllmc.runtime.artifact.errors import ArtifactError, OptionError
from xllmc.runtime.ascend.graph_executor import GraphExecutor, load_model, npu
from xllmc.runtime.ascend.padding import Sizes, filled, padding_alone, sizes_of

from tests.codegen.ascend.graph.conftest import Case, MakeCase
from tests.codegen.ascend.graph.models import BOUNDS, largest_difference, load_text, steps
from tests.codegen.ascend.graph.recording import RecordingNpu

DECODE, MIXED, LARGEST = Sizes(4, 4, 4, 1), Sizes(64, 5, 64, 32), Sizes(256, 4, 256, 256)
KEYS = (LARGEST, DECODE, MIXED)
PAGES = 6

Open = Callable[..., GraphExecutor]


@pytest.fixture
def device() -> RecordingNpu:
    return RecordingNpu()


@pytest.fixture
def opened(device: RecordingNpu, tmp_path: Path) -> Open:
    def make(made: Case, keys: tuple[Sizes, ...] = KEYS, text: str | None = None) -> GraphExecutor:
        module = load_text(text or made.graph.text, tmp_path)
        pages = [PAGES] * len(made.model.program.groups)
        return GraphExecutor(module, made.model.weights, pages, 2, keys, "cpu", device)

    return make


def run(executor: GraphExecutor, made: Case) -> list[torch.Tensor]:
    return [executor.run(step.inputs).clone() for step in steps(made.model.program, 128)]


@pytest.mark.parametrize(("family", "dtype"), [("qwen3", "bf16"), ("gemma2", "bf16"), ("gpt2", "fp32")])
def test_replayed_steps_are_the_models(family: str, dtype: str, case: MakeCase, opened: Open):
    made = case(family, dtype)
    assert largest_difference(run(opened(made), made), made.expected) < BOUNDS[dtype]


def test_graphs_are_captured_once_from_one_pool_and_told_lengths_before_each_replay(
    case: MakeCase, opened: Open, device: RecordingNpu
):
    made = case("qwen3", "bf16")
    executor = opened(made)
    assert device.log == ["pool", *["synchronize", "capture", "captured"] * 3]
    device.log.clear()
    run(executor, made)
    assert device.log == ["update", "replay"] * 4
    device.log.clear()
    executor.close()
    assert device.log == ["reset"] * 3


def test_all_graphs_read_the_same_buffers(case: MakeCase, opened: Open, device: RecordingNpu):
    """Of inputs, weights and caches; only what they compute lies elsewhere, in the pool."""
    executor = opened(case("qwen3", "bf16"))
    caches = [part for pages in executor._caches.values() for part in pages]
    fixed = {t.data_ptr() for t in (*executor._buffers.values(), *executor._weights.values(), *caches)}
    unread = {executor._buffers["query_starts"].data_ptr()}  # attention's operator has the lengths from the host
    for graph in device.graphs:
        assert fixed - unread <= graph.operands()


def test_a_step_that_no_graph_holds_runs_uncaptured(case: MakeCase, opened: Open, device: RecordingNpu):
    made = case("qwen3", "bf16")
    executor = opened(made, (DECODE,))
    device.log.clear()
    assert largest_difference(run(executor, made), made.expected) < BOUNDS["bf16"]
    assert device.log == ["update", "replay"]  # only the second step decodes alone


def test_a_graph_that_is_not_told_the_lengths_is_noticed(case: MakeCase, opened: Open, monkeypatch: pytest.MonkeyPatch):
    made = case("qwen3", "bf16")
    executor = opened(made)
    monkeypatch.setattr("tests.codegen.ascend.graph.recording.NPUGraph.update", lambda self, cpu_update_input: None)
    assert largest_difference(run(executor, made), made.expected) > 2 * BOUNDS["bf16"]


def test_an_input_that_is_made_once_is_noticed(case: MakeCase, opened: Open):
    """Values that a capture copies from the host are those of the capture for ever."""
    made = case("qwen3", "bf16")
    right, wrong = "step.inputs['positions']", "torch.tensor(step.inputs['positions'].tolist(), dtype=torch.int32)"
    assert right in made.graph.text
    executor = opened(made, KEYS, made.graph.text.replace(right, wrong))
    assert largest_difference(run(executor, made), made.expected) > 2 * BOUNDS["bf16"]


def test_updated_weights_are_those_that_graphs_read(case: MakeCase, opened: Open):
    made = case("qwen3", "bf16")
    executor = opened(made)
    executor.update_weights({name: torch.zeros_like(weight) for name, weight in made.model.weights.items()})
    first, *_ = steps(made.model.program, 128)
    assert not executor.run(first.inputs).any()
    executor.update_weights(made.model.weights)
    assert largest_difference(run(executor, made), made.expected) < BOUNDS["bf16"]


@pytest.mark.parametrize("key", [Sizes(9, 2, 1, 4), Sizes(1, 1, 0, 1), Sizes(4, 1, 1, 300)])
def test_a_graph_without_room_is_refused(key: Sizes, case: MakeCase, opened: Open):
    with pytest.raises(OptionError, match="too few sequences"):
        opened(case("qwen3", "bf16"), (key,))


def test_a_cache_beyond_what_the_operator_counts_is_refused(case: MakeCase, tmp_path: Path, device: RecordingNpu):
    made = case("qwen3", "bf16")
    module = load_text(made.graph.text, tmp_path)
    with pytest.raises(OptionError, match=r"2\*\*31 - 1"):
        GraphExecutor(module, made.model.weights, [2**20], 2, (), "cpu", device)


def test_a_module_is_loaded_from_its_file(case: MakeCase, tmp_path: Path):
    file = tmp_path / "model.py"
    file.write_text(case("qwen3", "bf16").graph.text)
    assert isinstance(load_model(file), ModuleType)
    file.write_text("def forward(:")
    with pytest.raises(ArtifactError, match="compile it again"):
        load_model(file)
    with pytest.raises(ArtifactError, match="compile it again"):
        load_model(tmp_path / "none.py")


def test_without_torch_npu_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    with pytest.raises(OptionError, match="requires torch_npu"):
        npu()


@st.composite
def keys_and_steps(draw: st.DrawFn) -> tuple[Sizes, dict[str, np.ndarray]]:
    counts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    done = [draw(st.integers(0, 200)) for _ in counts]
    starts = np.cumsum([0, *counts])
    rows = draw(st.integers(1, int(starts[-1])))
    most = draw(st.integers(max(counts), 12))
    spare = draw(st.integers(0, 4))
    missing = draw(st.integers(0, spare * most))
    step = {
        "token_ids": np.arange(starts[-1]),
        "positions": np.concatenate([d + np.arange(c) for d, c in zip(done, counts, strict=True)]),
        "query_starts": starts,
        "logit_rows": np.arange(rows),
        "slots.0": np.arange(starts[-1]),
        "block_table.0": np.arange(2 * len(counts)).reshape(-1, 2),
    }
    return Sizes(int(starts[-1]) + missing, len(counts) + spare, rows + draw(st.integers(0, 3)), most), step


@given(keys_and_steps())
def test_padding_keeps_a_step_and_fills_a_graph(made: tuple[Sizes, dict[str, np.ndarray]]):
    key, step = made
    real = sizes_of(step)
    assert key.holds(real)
    full = filled(step, key, 3, 128, {"0": 77})
    assert sizes_of(full.arrays)[:3] == key[:3]
    assert sizes_of(full.arrays).most <= key.most
    for name, values in step.items():
        there = full.arrays[name][: len(values)]
        assert (there[:, :2] if name.startswith("block_table") else there).tolist() == values.tolist(), name
    ends, lengths = np.array(full.query_ends), np.array(full.kv_lengths)
    assert len(ends) == len(lengths) == key.sequences and ends[-1] == key.tokens
    assert (np.diff(ends) >= 0).all() and (lengths >= np.diff([0, *ends])).all() and lengths.min() >= 1
    assert lengths[: real.sequences].tolist() == (step["positions"][step["query_starts"][1:] - 1] + 1).tolist()
    assert (full.arrays["slots.0"][real.tokens :] // 128 == 77).all()
    assert (full.arrays["block_table.0"][real.sequences :] == 77).all()


@given(st.integers(1, 6), st.integers(1, 9), st.data())
def test_what_is_captured_is_padding_alone(sequences: int, most: int, data: st.DataObject):
    key = Sizes(data.draw(st.integers(1, sequences * most)), sequences, 3, most)
    full = padding_alone(key, 2, 128, {"0": 5, "1": 6})
    assert sizes_of(full.arrays)[:3] == key[:3]
    assert (full.arrays["block_table.1"] == 6).all() and full.arrays["block_table.1"].shape == (sequences, 2)
    assert full.query_ends[-1] == key.tokens


def test_tokens_that_are_missing_need_sequences_to_be_in():
    assert not Sizes(5, 2, 2, 4).holds(Sizes(4, 2, 2, 2))
    assert Sizes(5, 3, 2, 4).holds(Sizes(4, 2, 2, 2))
    assert not Sizes(9, 3, 2, 4).holds(Sizes(4, 2, 2, 2))
    assert not Sizes(5, 3, 2, 4).holds(Sizes(5, 2, 2, 5))
    assert not Sizes(5, 3, 2, 4).holds(Sizes(5, 2, 3, 1))


@pytest.mark.parametrize("words", [1, 2])
def test_padding_of_trees_lets_every_token_see_one_node(words: int):
    """Of itself or before: attention to nothing is not a number, and the next layer would read it."""
    full = padding_alone(Sizes(70, 2, 1, 50), 2, 128, {"0": 5}, words)
    places, named = full.arrays["positions"], full.arrays["ancestors"].view(np.uint32)
    nodes = [[n for n in range(32 * words) if row[n // 32] >> (n % 32) & 1] for row in named]
    assert all(len(seen) == 1 and seen[0] <= place for seen, place in zip(nodes, places, strict=True))
    tree = {**full.arrays, "ancestors": np.full((70, words), -1, np.int32)}
    again = filled(tree, Sizes(75, 3, 1, 50), 2, 128, {"0": 5})
    assert (again.arrays["ancestors"][:70] == -1).all() and again.arrays["ancestors"].shape == (75, words)
