"""What crosses the engine's door at each step, and the checks at that door."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .artifact.errors import ArtifactError, OptionError
from .artifact.schema import Manifest, Plan
from .plan import Capacities

_INPUTS = {
    "forward": {"token_ids", "positions", "query_starts", "logit_rows"},
    "sample": {"rows", "history", "bias_ids", "bias_values", "bitmask"},
    "score": {"targets"},
}
"""What the engine fills, by function; beside these, ``slots.g`` and ``block_table.g`` of each state group g."""


@dataclass(frozen=True)
class SamplingInput:
    """How to choose a token for each logit row (``xllmc/sampler.h``); made by ``sampling.sampling_input``."""

    rows: np.ndarray
    """SAMPLING_ROW [R]."""
    history: np.ndarray
    """i32: the tokens that penalties look at, of all rows, one after the other."""
    bias_ids: np.ndarray
    """i32."""
    bias_values: np.ndarray
    """f32, one per bias id."""
    bitmask: np.ndarray
    """u32 [masks, ceil(V / 32)]: allowed tokens, for rows whose ``mask_row`` is not -1."""


@dataclass(frozen=True)
class StepInput:
    """T tokens of S sequences, R of whose positions want logits. All arrays are of int32.

    Each sequence's tokens stand together and at consecutive positions; how many there are decides nothing else, so
    prefill, decode and mixed batches are one thing.
    """

    token_ids: np.ndarray
    """[T]"""
    positions: np.ndarray
    """[P, T]; P is 1 for rotary embeddings of one axis."""
    query_starts: np.ndarray
    """[S + 1]: where each sequence's tokens start; the last is T."""
    block_tables: tuple[np.ndarray, ...]
    """Per state group, [S, B]: the page of each ``page_tokens`` positions, or -1 where none is needed any more."""
    logit_rows: np.ndarray
    """[R]: indices into the tokens."""
    sampling: SamplingInput | None = None
    targets: np.ndarray | None = None
    """[R]: tokens to score at the logit rows."""
    embeddings: np.ndarray | None = None
    """[E, H] input embeddings that override tokens."""
    ancestors: np.ndarray | None = None
    """Bitmask of the tokens that each token of a tree descends from."""
    taps: tuple[str, ...] = ()
    """Names of hidden states to return."""


@dataclass(frozen=True)
class StepOutput:
    """Results by logit row. ``logits`` is a view, valid until the engine's next step; all else is the caller's own."""

    version: int
    """Of the weights that computed it."""
    logits: np.ndarray
    """f32 [R, V]"""
    tokens: np.ndarray | None = None
    """i32 [R]"""
    logprobs: np.ndarray | None = None
    """f32 [R, 3] of the tokens: of the model, after temperature, of the distribution sampled."""
    top_ids: np.ndarray | None = None
    """i32 [R, 20], likeliest first."""
    top_logprobs: np.ndarray | None = None
    """f32 [R, 20], of the model."""
    target_logprobs: np.ndarray | None = None
    """f32 [R]"""


def check_inputs(plan: Plan, groups: int) -> None:
    """Refuse a plan that lacks a function, or asks for an input that the engine does not fill (ArtifactError)."""
    of_groups = {f"{name}.{group}" for name in ("slots", "block_table") for group in range(groups)}
    functions = {function.name: function for function in plan.functions}
    for name, inputs in _INPUTS.items():
        if name not in functions:
            have = ", ".join(functions) or "none"
            raise ArtifactError(f"an engine needs a plan for {name}, got {have}; compile it again")
        known = inputs | of_groups if name == "forward" else inputs
        if unknown := sorted({entry.name for entry in functions[name].inputs} - known):
            raise ArtifactError(
                f"the engine's plan for {name} asks for an input {unknown[0]}, which this runtime does not fill; "
                "install the xllmc that compiled it"
            )


def check_step(step: StepInput, manifest: Manifest, capacities: Capacities, pages: Sequence[int]) -> np.ndarray:
    """Refuse a step that would read or write outside of what the plan has; returns the sequence of each token, i32[T].

    ``pages``: how many each state group has. Raises OptionError.
    """
    for given, name in ((step.embeddings is not None, "embeddings"), (step.ancestors is not None, "ancestors")):
        _require(not given, f"this engine's plan takes no {name}; leave them out")
    _require(not step.taps, "this engine's plan has no hidden-state taps; leave them out")
    tokens, sequences, rows = step.token_ids.size, step.query_starts.size - 1, step.logit_rows.size
    for count, limit, name in (
        (tokens, capacities.tokens, "max_tokens"),
        (sequences, capacities.sequences, "max_sequences"),
        (rows, capacities.rows, "max_rows"),
    ):
        _require(count <= limit, f"a step holds at most {name} = {limit}, got {count}; split it or load with more")
    _require(tokens > 0, "a step needs at least one token, got none")
    _require(step.positions.shape == (1, tokens), f"positions must be [1, {tokens}], got {list(step.positions.shape)}")
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
        _check_sampling(step.sampling, rows)
    owner = np.repeat(np.arange(sequences, dtype=np.int32), lengths)
    first = step.positions[0, step.query_starts[:-1]]
    offsets = np.arange(tokens) - step.query_starts[:-1][owner]
    _require(
        bool((step.positions[0] == first[owner] + offsets).all()),
        "positions of a sequence must be consecutive in a step",
    )
    _check_tables(step, manifest, pages, first, first + lengths - 1)
    return owner


def _check_sampling(sampling: SamplingInput, rows: int) -> None:
    records = sampling.rows
    _require(records.shape == (rows,), f"sampling needs {rows} rows, got {len(records)}")
    _require(
        sampling.bias_ids.shape == sampling.bias_values.shape,
        f"bias_ids and bias_values must be of one length, got {sampling.bias_ids.size} and {sampling.bias_values.size}",
    )
    starts = np.stack([records["history_start"], records["history_prompt"], records["bias_start"]])
    stops = np.stack([records["history_prompt"], records["history_stop"], records["bias_stop"]])
    most = np.array([[sampling.history.size], [sampling.history.size], [sampling.bias_ids.size]])
    _require(
        bool(((starts >= 0) & (starts <= stops) & (stops <= most)).all()),
        "rows of sampling must name ranges of the history and the biases that are there",
    )
    masks = records["mask_row"]
    _require(
        bool(((masks >= -1) & (masks < len(sampling.bitmask))).all()),
        f"mask_row must be -1 or one of the {len(sampling.bitmask)} rows of the bitmask, got {masks.tolist()}",
    )


def _check_tables(
    step: StepInput, manifest: Manifest, pages: Sequence[int], first: np.ndarray, last: np.ndarray
) -> None:
    groups = manifest.groups
    _require(len(step.block_tables) == len(groups), f"a step needs {len(groups)} block tables, one per state group")
    shapes = {table.shape for table in step.block_tables}
    _require(len(shapes) <= 1, f"block tables must have one shape, got {sorted(shapes)}")
    for group, table, count in zip(groups, step.block_tables, pages, strict=True):
        _require(len(table) == len(first), f"a block table needs {len(first)} rows, got {len(table)}")
        oldest = np.zeros_like(first) if group.window is None else np.maximum(first - group.window + 1, 0)
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
