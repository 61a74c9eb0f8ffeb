"""What crosses the engine's door at each step; ``door`` checks it."""

from dataclasses import dataclass

import numpy as np

from .artifact.dtypes import ITEM_BYTES
from .artifact.errors import ArtifactError
from .artifact.safetensors_file import ALIGNMENT
from .artifact.schema import ModelFacts, Plan

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
    """T tokens of S sequences, R of whose positions want logits. All arrays are of int32, or other integers.

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


def check_plan(plan: Plan, model: ModelFacts, groups: int) -> None:
    """Refuse a plan that lacks a function, asks for an input that the engine does not fill, or gives logits of another
    vocabulary than the manifest's (ArtifactError).
    """
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
    buffers = {buffer.name: buffer for buffer in plan.buffers}
    logits = buffers.get(functions["forward"].outputs.get("logits", ""))
    needed = model.vocab_size * ITEM_BYTES["f32"]
    if logits is None or not needed <= logits.bytes < needed + ALIGNMENT:
        got = f"a row of {logits.bytes} bytes" if logits is not None else "none"
        raise ArtifactError(
            f"the engine's plan must give float32 logits of the manifest's {model.vocab_size} tokens, "
            f"got {got}; compile it again"
        )
