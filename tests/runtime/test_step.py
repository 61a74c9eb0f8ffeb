"""The door of Engine.step: what fits is computed, all else is refused before it can read or write out of bounds."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xllmc.runtime.artifact.errors import ArtifactError, NumericError, OptionError
from xllmc.runtime.artifact.schema import InputEntry
from xllmc.runtime.engine import Engine
from xllmc.runtime.sampling import RowRequest, SamplingParams, sampling_input
from xllmc.runtime.step import StepInput

from tests.runtime.toy import VOCAB, checkpoint, reference_logits, toy_manifest, toy_plan, write_toy


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.fixture
def step(engine: Engine) -> StepInput:
    """Two sequences, of 3 tokens and of 1."""
    tables = (np.array([[0], [1]], np.int32),) * 2
    return StepInput(ints(5, 6, 7, 8), ints(0, 1, 2, 0)[None], ints(0, 3, 4), tables, ints(2, 3))


def test_a_mixed_step_gives_each_row_its_logits(engine: Engine, step: StepInput) -> None:
    output = engine.step(step)
    assert np.array_equal(output.logits[0], reference_logits(checkpoint(0), [5, 6, 7])[-1])
    assert np.array_equal(output.logits[1], reference_logits(checkpoint(0), [8])[-1])
    assert output.tokens is None and output.target_logprobs is None
    assert not output.logits.flags.writeable


def test_sampling_and_scoring_follow_in_the_same_step(engine: Engine, step: StepInput) -> None:
    greedy = SamplingParams(temperature=0, logprobs=1)
    rows = [RowRequest(greedy, 1, 0, [5, 6, 7], 3), RowRequest(greedy, 1, 0, [8], 1)]
    output = engine.step(replace(step, sampling=sampling_input(rows, VOCAB), targets=ints(9, 10)))
    assert output.tokens is not None and output.top_ids is not None and output.logprobs is not None
    assert output.target_logprobs is not None
    assert output.tokens.tolist() == output.logits.argmax(-1).tolist() == output.top_ids[:, 0].tolist()
    expected = output.logits - np.logaddexp.reduce(output.logits.astype(np.float64), axis=-1)[:, None]
    assert np.allclose(output.target_logprobs, expected[[0, 1], [9, 10]], atol=1e-5)
    assert np.allclose(output.logprobs[:, 0], expected.max(-1), atol=1e-5)


def test_a_step_without_rows_only_fills_the_cache(engine: Engine, step: StepInput) -> None:
    assert engine.step(replace(step, logit_rows=ints())).logits.shape == (0, VOCAB)
    table = (np.array([[0]], np.int32),) * 2
    output = engine.step(StepInput(ints(9), ints(3)[None], ints(0, 1), table, ints(0)))
    assert np.array_equal(output.logits[0], reference_logits(checkpoint(0), [5, 6, 7, 9])[-1])


REFUSED: dict[str, tuple[Callable[[StepInput], dict[str, Any]], str]] = {
    "too many tokens": (
        lambda s: {"token_ids": np.zeros(25, np.int32), "positions": np.arange(25, dtype=np.int32)[None]},
        "max_tokens = 24, got 25",
    ),
    "too many rows": (lambda s: {"logit_rows": ints(*range(4), 0, 0, 0)}, "max_rows = 6, got 7"),
    "too many sequences": (lambda s: {"query_starts": ints(*range(8))}, "max_sequences = 6, got 7"),
    "no tokens": (lambda s: {"token_ids": ints(), "positions": ints()[None]}, "at least one token"),
    "positions of another length": (lambda s: {"positions": ints(0, 1, 2)[None]}, r"positions must be \[1, 4\]"),
    "three axes of positions": (lambda s: {"positions": np.zeros((3, 4), np.int32)}, r"got \[3, 4\]"),
    "query starts that do not rise": (lambda s: {"query_starts": ints(0, 4, 4)}, "query_starts must rise from 0 to 4"),
    "a token id too large": (lambda s: {"token_ids": ints(1, 2, 3, VOCAB)}, "token_ids must be from 0 to 259, got 260"),
    "a negative token id": (lambda s: {"token_ids": ints(1, 2, 3, -1)}, "got -1"),
    "a position past the context": (lambda s: {"positions": ints(0, 1, 2, 200)[None]}, "from 0 to 199, got 200"),
    "positions with a gap": (lambda s: {"positions": ints(0, 1, 3, 0)[None]}, "consecutive"),
    "a row past the tokens": (lambda s: {"logit_rows": ints(4)}, "logit_rows must be from 0 to 3, got 4"),
    "too few targets": (lambda s: {"targets": ints(1)}, r"targets must be \[2\], got \[1\]"),
    "a target too large": (lambda s: {"targets": ints(1, 300)}, "targets must be from 0"),
    "one block table": (lambda s: {"block_tables": s.block_tables[:1]}, "needs 2 block tables"),
    "tables of two shapes": (lambda s: {"block_tables": (s.block_tables[0], np.zeros((2, 2), np.int32))}, "one shape"),
    "a table of one row": (lambda s: {"block_tables": (np.zeros((1, 1), np.int32),) * 2}, "needs 2 rows"),
    "a missing page": (
        lambda s: {"block_tables": (s.block_tables[0], np.array([[0], [-1]], np.int32))},
        "lacks a page",
    ),
    "a page that is not there": (lambda s: {"block_tables": (np.array([[25], [0]], np.int32),) * 2}, "among the 25"),
    "a table too short": (lambda s: {"positions": ints(0, 1, 2, 32)[None]}, "end before position 32"),
    "a list": (lambda s: {"token_ids": [5, 6, 7, 8]}, r"token_ids must be a numpy array of int32 \[T\], got list"),
    "float tokens": (lambda s: {"token_ids": np.zeros(4)}, r"got float64\[4\]"),
    "bool rows": (lambda s: {"logit_rows": np.array([True])}, r"logit_rows .* got bool\[1\]"),
    "no rows": (lambda s: {"logit_rows": None}, "logit_rows .* got NoneType"),
    "tokens of two axes": (lambda s: {"token_ids": ints(5, 6, 7, 8)[None]}, r"got int32\[1, 4\]"),
    "tokens of 64 bits": (lambda s: {"token_ids": np.array([1 << 33, 1, 2, 3])}, "got 8589934592"),
    "half positions": (lambda s: {"positions": np.full((1, 4), 0.5)}, "positions must be a numpy array"),
    "positions of one axis": (lambda s: {"positions": ints(0, 1, 2, 0)}, "positions must be a numpy array"),
    "no query starts": (lambda s: {"query_starts": ints()}, "query_starts must be"),
    "query starts of two axes": (lambda s: {"query_starts": ints(0, 3, 4)[None]}, "query_starts must be"),
    "unsigned query starts that fall": (lambda s: {"query_starts": np.array([0, 5, 4], np.uint32)}, "query_starts"),
    "query starts that wrap": (lambda s: {"query_starts": ints(0, 2**31 - 1, -(2**31), -1, 4)}, "query_starts"),
    "a table of one axis": (lambda s: {"block_tables": (ints(0, 1),) * 2}, "block table 0 must be"),
    "a table of three axes": (lambda s: {"block_tables": (np.zeros((2, 1, 1), np.int32),) * 2}, "block table 0 must"),
    "a table of floats": (lambda s: {"block_tables": (np.full((2, 1), 0.9),) * 2}, "block table 0 must be"),
    "a table too wide": (lambda s: {"block_tables": (np.zeros((2, 1000), np.int32),) * 2}, "at most 7 columns"),
    "no tables": (lambda s: {"block_tables": None}, "block_tables must be a tuple"),
    "targets in a list": (lambda s: {"targets": [1, 2]}, "targets must be a numpy array"),
    "sampling of another kind": (lambda s: {"sampling": {}}, "sampling must be a SamplingInput, got dict"),
    "embeddings": (lambda s: {"embeddings": np.zeros((1, 1))}, "takes no embeddings"),
    "a tree": (lambda s: {"ancestors": np.zeros((4, 1))}, "takes no ancestors"),
    "taps": (lambda s: {"taps": ("layers.0",)}, "no hidden-state taps"),
}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mask_row", 0, "one of the 0 rows of the bitmask, got"),
        ("history_stop", 9, "ranges of the history"),
        ("bias_start", -1, "ranges of the history and the biases"),
        ("temperature", np.nan, "temperature of a row"),
        ("temperature", np.inf, "temperature of a row"),
        ("temperature", -1, "temperature of a row"),
        ("temperature", 1e-40, "temperature of a row"),
        ("top_k", -5, "top_k of a row"),
        ("top_p", np.nan, "top_p of a row"),
        ("min_p", 5, "min_p of a row"),
        ("repetition_penalty", 0, "repetition_penalty of a row"),
        ("frequency_penalty", np.inf, "frequency_penalty of a row"),
        ("top_logprobs", 99999, "top_logprobs of a row must be from 0 to 20"),
        ("position", -5, "position of a row"),
    ],
)
def test_sampling_rows_that_point_elsewhere_are_refused(
    engine: Engine, step: StepInput, field: str, value: int, message: str
) -> None:
    sampling = sampling_input([RowRequest(SamplingParams(), 1, 0, [1], 1)] * 2, VOCAB)
    sampling.rows[field][1] = value
    with pytest.raises(OptionError, match=message):
        engine.step(replace(step, sampling=sampling))


def test_arrays_of_sampling_that_do_not_fit_are_refused(engine: Engine, step: StepInput) -> None:
    biased = SamplingParams(logit_bias={5: 1.0})
    sampling = sampling_input([RowRequest(biased, 1, 0, [1], 1)] * 2, VOCAB)
    words = -(-VOCAB // 32)
    with pytest.raises(OptionError, match="sampling needs 2 rows, got 1"):
        engine.step(replace(step, sampling=replace(sampling, rows=sampling.rows[:1])))
    with pytest.raises(OptionError, match="one length, got 1 and 2"):
        engine.step(replace(step, sampling=replace(sampling, bias_ids=ints(1))))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"rows": np.zeros(2, [("seed", "u8"), ("mask_row", "i4")])}, "SAMPLING_ROW"),
        ({"rows": [1, 2]}, "SAMPLING_ROW"),
        ({"history": np.zeros(2)}, "history must be a numpy array of int32"),
        ({"history": ints(1 << 30)}, "history must be from 0 to 259"),
        ({"bias_ids": ints(5, -1000000)}, "bias_ids must be from 0 to 259"),
        ({"bias_values": [1.0, 1.0]}, "bias_values must be a numpy array"),
        ({"bias_values": np.array([np.nan, 1], np.float32)}, "bias_values must be from"),
        ({"bitmask": np.zeros((1, 2), np.uint32)}, rf"bitmask must be .*\[masks, {words}\], got uint32\[1, 2\]"),
        ({"bitmask": np.zeros(words, np.uint32)}, "bitmask must be"),
        ({"bitmask": np.zeros((1, words), np.int32)}, "bitmask must be"),
    ]
    for change, message in cases:
        with pytest.raises(OptionError, match=message):
            engine.step(replace(step, sampling=replace(sampling, **change)))


def test_other_layouts_of_the_same_integers_are_taken(engine: Engine, step: StepInput) -> None:
    expected = engine.step(step).logits.copy()
    greedy = [RowRequest(SamplingParams(temperature=0), 1, 0, [1], 1)] * 4
    sampling = sampling_input(greedy, VOCAB)
    for dtype in (np.int64, np.uint32, np.dtype(">i4")):
        tables = tuple(table.astype(dtype) for table in step.block_tables)
        ids = np.repeat(step.token_ids, 2).astype(dtype)[::2]
        starts = step.query_starts.astype(dtype)
        strided = replace(sampling, rows=sampling.rows[::2])
        changed = replace(step, token_ids=ids, query_starts=starts, block_tables=tables, sampling=strided)
        output = engine.step(changed)
        assert np.array_equal(output.logits, expected)
        assert output.tokens is not None and output.tokens.tolist() == expected.argmax(-1).tolist()


def test_what_is_no_step_is_refused(engine: Engine) -> None:
    with pytest.raises(OptionError, match="must be a StepInput, got list"):
        engine.step([1, 2])  # type: ignore[arg-type]


def test_a_bitmask_says_which_tokens_are_allowed(engine: Engine, step: StepInput) -> None:
    greedy = SamplingParams(temperature=0)
    sampling = sampling_input([RowRequest(greedy, 1, 0, [1], 1)] * 2, VOCAB)
    sampling.rows["mask_row"] = (1, -1)
    bitmask = np.zeros((2, -(-VOCAB // 32)), np.uint32)
    bitmask[1, 77 // 32] = 1 << 77 % 32
    output = engine.step(replace(step, sampling=replace(sampling, bitmask=bitmask)))
    assert output.tokens is not None
    assert output.tokens.tolist() == [77, int(output.logits[1].argmax())]


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(
    engine: Engine, step: StepInput, change: Callable[[StepInput], dict[str, Any]], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        engine.step(replace(step, **change(step)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(tokens=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=120))
def test_logits_and_scores_in_blocks_are_those_of_the_whole(engine: Engine, tokens: list[int]) -> None:
    expected = reference_logits(checkpoint(0), tokens)
    assert np.array_equal(engine.logits(tokens), expected)
    scores = engine.score(tokens)
    logprobs = expected - np.logaddexp.reduce(expected.astype(np.float64), axis=-1)[:, None]
    assert np.isnan(scores[0])
    assert np.allclose(scores[1:], logprobs[np.arange(len(tokens) - 1), tokens[1:]], atol=1e-4)
    assert [group.in_use for group in engine.stats().groups] == [0, 0]


def test_logits_refuse_what_does_not_fit(engine: Engine) -> None:
    with pytest.raises(OptionError, match="at most 200 tokens"):
        engine.logits([1] * 201)
    with pytest.raises(OptionError, match="token_ids must be from 0"):
        engine.logits([VOCAB])
    assert engine.logits([]).shape == (0, VOCAB)


def test_requests_wait_for_memory_that_is_held_by_hand(engine: Engine) -> None:
    held = [engine.memory.open() for _ in range(3)]
    assert all(engine.memory.extend(states, start, start + 24) for states in held for start in range(0, 200, 24))
    scores: list[np.ndarray] = []
    waiting = threading.Thread(target=lambda: scores.append(engine.score([1] * 200)))
    waiting.start()
    while not engine.stats().waiting:
        time.sleep(0.001)
    assert not scores
    for states in held:
        engine.memory.release(states)
    waiting.join()
    assert len(scores[0]) == 200


def test_each_kernel_is_timed(engine: Engine, step: StepInput) -> None:
    times = engine.profile(step)
    assert [time.kernel for time in times] == ["toy_store", "toy_store", "toy_logits", "toy_logits"]
    assert all(time.seconds > 0 for time in times)


@pytest.mark.parametrize("name", ["threads", "max_tokens", "max_rows", "max_sequences", "kv_tokens"])
def test_sizes_below_one_are_refused(toy_engine: Path, name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} must be at least 1, got -1"):
        Engine.load(toy_engine, **{name: -1})


def test_sizes_beyond_the_memory_are_refused(toy_engine: Path) -> None:
    for size in (10**13, 10**19):
        with pytest.raises(OptionError, match="more memory, which this system refuses"):
            Engine.load(toy_engine, max_rows=size, kv_tokens=64)


def test_a_closed_engine_says_so(toy_engine: Path, step: StepInput) -> None:
    with Engine.load(toy_engine, kv_tokens=64) as closed:
        pass
    uses: tuple[Callable[[], object], ...] = (
        lambda: closed.logits([1]),
        lambda: closed.logits([]),
        lambda: closed.score([1, 2]),
        lambda: closed.step(step),
        lambda: closed.profile(step),
        lambda: closed.generate("a"),
        lambda: next(closed.stream("a")),
        lambda: closed.update_weights(checkpoint(0)),
    )
    for use in uses:
        with pytest.raises(OptionError, match="the engine is closed; load it again"):
            use()
    closed.close()


@pytest.mark.parametrize("ids", ["abc", [1.5, 2], [[1, 2]], np.array([[1, 2]]), np.zeros(2), [True], None, iter([1])])
def test_token_ids_of_another_kind_are_refused(engine: Engine, ids: Any) -> None:
    for compute in (engine.logits, engine.score):
        with pytest.raises(OptionError, match="token_ids must be"):
            compute(ids)


def test_scores_that_are_not_numbers_are_refused(engine: Engine) -> None:
    engine.update_weights(checkpoint(0) | {"all.weight": np.full(VOCAB, np.nan, np.float32)})
    with pytest.raises(NumericError, match="must be finite"):
        engine.score([1, 2, 3])


@pytest.mark.parametrize("options", [{"threads": "2"}, {"threads": 1.5}, {"max_rows": True}], ids=str)
def test_sizes_that_are_no_whole_numbers_are_refused(toy_engine: Path, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="must be a whole number"):
        Engine.load(toy_engine, **options)
    with pytest.raises(OptionError, match="path of its directory, got NoneType"):
        Engine.load(None)  # type: ignore[arg-type]


def test_a_plan_for_another_vocabulary_is_refused(toy_library: Path, tmp_path: Path) -> None:
    manifest = toy_manifest()
    wider = manifest.model_copy(update={"model": manifest.model.model_copy(update={"vocab_size": 100000})})
    write_toy(tmp_path / "e", toy_library, manifest=wider)
    with pytest.raises(ArtifactError, match="logits of the manifest's 100000 tokens, got a row of 1040 bytes"):
        Engine.load(tmp_path / "e", kv_tokens=64)


def test_plans_of_another_runtime_are_refused(toy_library: Path, tmp_path: Path) -> None:
    plan = toy_plan()
    forward, *others = plan.functions
    futuristic = forward.model_copy(
        update={"inputs": (*forward.inputs, InputEntry(name="slots.9", dtype="i32", shape=()))}
    )
    missing = forward.launches[0].model_copy(update={"kernel": "no_such_kernel"})
    stray = forward.launches[0].model_copy(update={"operands": others[0].launches[0].operands})
    cases = {
        "asks for an input slots.9": (futuristic, *others),
        "needs a plan for score": (forward, others[0]),
        "lacks the kernel no_such_kernel": (forward.model_copy(update={"launches": (missing,)}), *others),
        "refers to the input rows": (forward.model_copy(update={"launches": (stray,)}), *others),
    }
    for message, functions in cases.items():
        write_toy(tmp_path / "e", toy_library, plan=plan.model_copy(update={"functions": functions}))
        with pytest.raises(ArtifactError, match=message):
            Engine.load(tmp_path / "e", kv_tokens=64)


def test_libraries_that_are_not_what_the_manifest_says_are_refused(toy_library: Path, tmp_path: Path) -> None:
    manifest = toy_manifest()
    library = manifest.kernels[0].model_copy(update={"isa": "x86-64-v4"})
    write_toy(tmp_path / "a", toy_library, manifest=manifest.model_copy(update={"kernels": (library,)}))
    with pytest.raises(ArtifactError, match="x86-64-v4"):
        Engine.load(tmp_path / "a")
    (tmp_path / "not.so").write_text("not a library")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        Engine.load(write_toy(tmp_path / "b", tmp_path / "not.so"))


def test_weights_that_are_not_what_the_manifest_says_are_refused(toy_library: Path, tmp_path: Path) -> None:
    manifest = toy_manifest()
    weights = (manifest.weights[0].model_copy(update={"shape": (1,)}), *manifest.weights[1:])
    write_toy(tmp_path / "e", toy_library, manifest=manifest.model_copy(update={"weights": weights}))
    with pytest.raises(ArtifactError, match=r"must hold all as f32\[1\], got f32\[260\]"):
        Engine.load(tmp_path / "e")
