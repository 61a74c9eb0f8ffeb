"""The checks at the engine's door: what a step is given can neither read nor write outside of what is there."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .artifact.errors import OptionError
from .artifact.schema import Manifest
from .checks import INT32_MAX
from .plan import Capacities
from .sampling import (
    GREEDY_BELOW,
    PENALTY_LIMIT,
    REPETITION_LIMITS,
    SAMPLING_ROW,
    TEMPERATURE_LIMIT,
    TOP_LOGPROBS,
)
from .step import SamplingInput, StepInput

_ROW_RANGES: dict[str, tuple[float, float]] = {
    "sample_index": (0, math.inf),
    "position": (0, math.inf),
    "temperature": (0, TEMPERATURE_LIMIT),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repetition_penalty": REPETITION_LIMITS,
    "presence_penalty": (-PENALTY_LIMIT, PENALTY_LIMIT),
    "frequency_penalty": (-PENALTY_LIMIT, PENALTY_LIMIT),
    "top_k": (0, INT32_MAX),
    "top_logprobs": (0, TOP_LOGPROBS),
}
"""The fields of SAMPLING_ROW that point nowhere. NaN is in no range."""


def checked_arrays(step: StepInput) -> StepInput:
    """``step`` with its integer arrays as int32 or int64, each of its rank. Raises OptionError for anything else."""
    _require(isinstance(step, StepInput), f"a step must be a StepInput, got {type(step).__name__}")
    tables = step.block_tables
    _require(isinstance(tables, tuple | list), f"block_tables must be a tuple of arrays, got {type(tables).__name__}")
    return replace(
        step,
        token_ids=_integers(step.token_ids, "token_ids", ("T",)),
        positions=_integers(step.positions, "positions", ("1", "T")),
        query_starts=_integers(step.query_starts, "query_starts", ("S+1",)),
        block_tables=tuple(_integers(table, f"block table {g}", ("S", "B")) for g, table in enumerate(tables)),
        logit_rows=_integers(step.logit_rows, "logit_rows", ("R",)),
        targets=None if step.targets is None else _integers(step.targets, "targets", ("R",)),
    )


def check_step(step: StepInput, manifest: Manifest, capacities: Capacities, pages: Sequence[int]) -> np.ndarray:
    """Refuse a step (of ``checked_arrays``) that would read or write outside of what the plan has.

    ``pages``: how many each state group has. Returns the sequence of each token, i32[T]. Raises OptionError.
    """
    for given, name in ((step.embeddings is not None, "embeddings"), (step.ancestors is not None, "ancestors")):
        _require(not given, f"this engine's plan takes no {name}; leave them out")
    _require(not step.taps, "this engine's plan has no hidden-state taps; leave them out")
    _require(step.query_starts.size > 0, "query_starts must be [S + 1], got [0]")
    tokens, sequences, rows = step.token_ids.size, step.query_starts.size - 1, step.logit_rows.size
    for count, limit, name in (
        (tokens, capacities.tokens, "max_tokens"),
        (sequences, capacities.sequences, "max_sequences"),
        (rows, capacities.rows, "max_rows"),
    ):
        _require(count <= limit, f"a step holds at most {name} = {limit}, got {count}; split it or load with more")
    _require(tokens > 0, "a step needs at least one token, got none")
    _require(step.positions.shape == (1, tokens), f"positions must be [1, {tokens}], got {list(step.positions.shape)}")
    _within(step.query_starts, tokens + 1, "query_starts")
    lengths = np.diff(step.query_starts)
    _require(
        step.query_starts[0] == 0 and step.query_starts[-1] == tokens and bool((lengths > 0).all()),
        f"query_starts must rise from 0 to {tokens}, got {step.query_starts.tolist()}",
    )
    _within(step.token_ids, manifest.model.vocab_size, "token_ids")
    _within(step.positions, manifest.model.max_context, "positions")
    _within(step.logit_rows, tokens, "logit_rows")
    if step.targets is not None:
        _require(step.targets.shape == (rows,), f"targets must be [{rows}], got {list(step.targets.shape)}")
        _within(step.targets, manifest.model.vocab_size, "targets")
    if step.sampling is not None:
        check_sampling(step.sampling, rows, manifest.model.vocab_size)
    owner = np.repeat(np.arange(sequences, dtype=np.int32), lengths)
    first = step.positions[0, step.query_starts[:-1]]
    offsets = np.arange(tokens) - step.query_starts[:-1][owner]
    _require(
        bool((step.positions[0] == first[owner] + offsets).all()),
        "positions of a sequence must be consecutive in a step",
    )
    _check_tables(step, manifest, capacities, pages, first, first + lengths - 1)
    return owner


def check_sampling(sampling: SamplingInput, rows: int, vocab_size: int) -> None:
    """Refuse (OptionError) what ``rows`` rows of logits cannot be sampled by."""
    _require(isinstance(sampling, SamplingInput), f"sampling must be a SamplingInput, got {type(sampling).__name__}")
    records = sampling.rows
    _require(
        isinstance(records, np.ndarray) and records.dtype == SAMPLING_ROW and records.ndim == 1,
        "rows of sampling must be an array [R] of SAMPLING_ROW; sampling.sampling_input makes one",
    )
    _require(records.shape == (rows,), f"sampling needs {rows} rows, got {len(records)}")
    for name, (least, most) in _ROW_RANGES.items():
        values = records[name]
        if not ((values >= least) & (values <= most)).all():
            raise OptionError(f"{name} of a row must be from {least:g} to {most:g}, got {values.tolist()}")
    temperatures = records["temperature"]
    _require(
        bool(((temperatures == 0) | (temperatures >= GREEDY_BELOW)).all()),
        f"temperature of a row must be 0 or at least {GREEDY_BELOW:g}, got {temperatures.tolist()}",
    )
    _within(_integers(sampling.history, "history", ("H",)), vocab_size, "history")
    _check_biases(sampling, vocab_size)
    _check_bitmask(sampling, vocab_size)
    _check_ranges(sampling)


def _check_biases(sampling: SamplingInput, vocab_size: int) -> None:
    ids, values = _integers(sampling.bias_ids, "bias_ids", ("N",)), sampling.bias_values
    _within(ids, vocab_size, "bias_ids")
    _require(
        isinstance(values, np.ndarray) and values.dtype.kind == "f",
        "bias_values must be a numpy array of float32",
    )
    _require(
        ids.shape == values.shape,
        f"bias_ids and bias_values must be of one length, got {ids.size} and {values.size}",
    )
    _require(
        bool((np.isneginf(values) | (np.abs(values) <= PENALTY_LIMIT)).all()),
        f"bias_values must be from {-PENALTY_LIMIT:g} to {PENALTY_LIMIT:g}, or -inf",
    )


def _check_bitmask(sampling: SamplingInput, vocab_size: int) -> None:
    bitmask, words = sampling.bitmask, -(-vocab_size // 32)
    _require(
        isinstance(bitmask, np.ndarray) and bitmask.dtype == np.uint32 and bitmask.shape[1:] == (words,),
        f"bitmask must be a numpy array of uint32 [masks, {words}], got {_described(bitmask)}",
    )
    masks = sampling.rows["mask_row"]
    _require(
        bool(((masks >= -1) & (masks < len(bitmask))).all()),
        f"mask_row must be -1 or one of the {len(bitmask)} rows of the bitmask, got {masks.tolist()}",
    )


def _check_ranges(sampling: SamplingInput) -> None:
    records = sampling.rows
    starts = np.stack([records["history_start"], records["history_prompt"], records["bias_start"]])
    stops = np.stack([records["history_prompt"], records["history_stop"], records["bias_stop"]])
    most = np.array([[sampling.history.size], [sampling.history.size], [sampling.bias_ids.size]])
    _require(
        bool(((starts >= 0) & (starts <= stops) & (stops <= most)).all()),
        "rows of sampling must name ranges of the history and the biases that are there",
    )


def _check_tables(
    step: StepInput,
    manifest: Manifest,
    capacities: Capacities,
    pages: Sequence[int],
    first: np.ndarray,
    last: np.ndarray,
) -> None:
    groups = manifest.groups
    _require(len(step.block_tables) == len(groups), f"a step needs {len(groups)} block tables, one per state group")
    shapes = {table.shape for table in step.block_tables}
    _require(len(shapes) <= 1, f"block tables must have one shape, got {sorted(shapes)}")
    for group, table, count in zip(groups, step.block_tables, pages, strict=True):
        _require(len(table) == len(first), f"a block table needs {len(first)} rows, got {len(table)}")
        oldest = np.zeros_like(first) if group.window is None else np.maximum(first - group.window + 1, 0)
        _require(
            table.shape[1] <= capacities.table_columns,
            f"a block table has at most {capacities.table_columns} columns, got {table.shape[1]}",
        )
        columns = np.arange(table.shape[1])
        needed = (columns >= oldest[:, None] // group.page_tokens) & (columns <= last[:, None] // group.page_tokens)
        _require(
            bool((last // group.page_tokens < table.shape[1]).all()),
            f"block tables of {table.shape[1]} columns x {group.page_tokens} tokens end before position {last.max()}",
        )
        _require(
            not bool((needed & ((table < 0) | (table >= count))).any()),
            f"block table {group.index} lacks a page, or names one that is not among the {count} there are",
        )


def _within(values: np.ndarray, limit: int, name: str) -> None:
    if values.size and (values.min() < 0 or values.max() >= limit):
        bad = values.reshape(-1)[(values.reshape(-1) < 0) | (values.reshape(-1) >= limit)][0]
        raise OptionError(f"{name} must be from 0 to {limit - 1}, got {bad}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise OptionError(message)


def _integers(values: Any, name: str, shape: tuple[str, ...]) -> np.ndarray:
    """``values`` as int32 or, where another integer type could wrap, int64."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iu" or values.ndim != len(shape):
        raise OptionError(f"{name} must be a numpy array of int32 [{', '.join(shape)}], got {_described(values)}")
    return values if values.dtype == np.int32 else values.astype(np.int64)


def _described(values: Any) -> str:
    return f"{values.dtype}{list(values.shape)}" if isinstance(values, np.ndarray) else type(values).__name__
