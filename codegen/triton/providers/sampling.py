"""Choosing tokens and scoring given ones: a launch over rows and parts of the vocabulary, then one over rows.

``sample``: ``sample_parts`` reads the logits once. It adjusts them, takes sums and maxima, and draws, so that greedy
rows and rows of temperature alone are done but for putting parts together. Of rows with min_p, top_k or top_p it lists
the best candidates of each part, without a sort: those not below a middling one of the maxima of the part's columns.
``sample_finish`` searches the cut among these. Where they do not hold all that stays (thousands of tokens, or as many
that are equal), it searches all logits: as right, and slower.

Sums are float32's, so log-probabilities differ from the CPU's by some 1e-6, and noise by its last bits. Cuts compare
counts, and masses as whole numbers of 2^-40, to which what lies outside the lists adds a float's sum. All of a row is
computed from that row alone, in an order that nothing else changes.
"""

import struct
from typing import Any

from ....compiler.ir.dims import symbol
from ....compiler.ops.sampling import TOP_LOGPROBS
from ....runtime.artifact.schema import Axis
from ..kernel import Config, TritonCall, axis, power_of_two, width
from ..registering import provides

WORDS = {
    "seed": 0,
    "sample_index": 2,
    "position": 4,
    "temperature": 6,
    "top_p": 7,
    "min_p": 8,
    "repetition_penalty": 9,
    "presence_penalty": 10,
    "frequency_penalty": 11,
    "top_k": 12,
    "history_start": 13,
    "history_prompt": 14,
    "history_stop": 15,
    "bias_start": 16,
    "bias_stop": 17,
    "mask_row": 18,
    "top_logprobs": 19,
}
"""Where a row's settings lie, in words of four bytes: struct xllmc_sampling_row."""

FIELDS = ("raw_top", "raw_mass", "warm_mass", "top", "mass", "noisy", "drawn", "bound")
"""What is known of a part: the largest logit; sums of exp(logit - largest), and with the temperature; the largest
adjusted logit; the same sum of those with the temperature, of what is not listed where there is a list; the largest
with noise, and that one without; the value down to which candidates are listed.
"""
ID_FIELDS = ("top", "noisy")
"""Tokens of these."""

NO_ID = 2**31 - 1
NO_ORDER = 1 - 2**63
"""Below every candidate: a float's order in the upper half, an id in the lower."""
NOT_A_NUMBER, NONE_ALLOWED = -1, -2
"""Tokens that say why there is none (sampler.h)."""

BLOCK_IDS = 64
"""Ids whose random words come from sixteen counters."""
_BLOCKS = 32
"""Of a part: 2048 ids, so that a vocabulary of 150,000 makes 75 programs a row, and a few rows fill a GPU."""
_PARTS = {
    "BLOCKS": _BLOCKS,
    "RANK": 40,  # of 64 columns' maxima: 61 tokens on average of whatever distribution, and 85 at most of 3000 drawn
    "SLOTS": 128,
    "HISTORY": 64,
    "BIASES": 32,
}
_TILE = 1024
"""Candidates that a search takes at once: their weights at eight places are 16 sums of 64 bits a thread."""
_SCORE_PART = 4096


@provides("sample")
def sample(call: TritonCall) -> None:
    logits, rows, history, bias_ids, bias_values, bitmask = call.node.args
    vocabulary, row = width(logits), symbol("R")
    parts = -(-vocabulary // (BLOCK_IDS * _BLOCKS))
    slots = parts * _PARTS["SLOTS"]
    settings = {"logits": call.value(logits), "rows": call.value(rows, "i32")}
    found = {
        "adjusted": call.scratch("adjusted", "f32", (row, parts * BLOCK_IDS * _BLOCKS)),
        "listed": call.scratch("listed", "f32", (row, slots)),
        "listed_ids": call.scratch("listed_ids", "i32", (row, slots)),
        "heads": call.scratch("heads", "i64", (row, TOP_LOGPROBS, parts)),
        "values": call.scratch("values", "f32", (row, len(FIELDS), parts)),
        "ids": call.scratch("ids", "i32", (row, len(ID_FIELDS), parts)),
    }
    constants: dict[str, Any] = {
        "rows_count": call.count(call.rows(logits)),
        "vocabulary": vocabulary,
        "parts": parts,
        "slots": slots,
        "word": WORDS,
        "row_words": len(WORDS) + 3,  # three settings have two words
        "fields": {name: place for place, name in enumerate(FIELDS)},
        "id_fields": {name: place for place, name in enumerate(ID_FIELDS)},
        "no_id": NO_ID,
        "no_order": NO_ORDER,
        "top_logprobs": TOP_LOGPROBS,
    }
    lists = {
        "history": call.value(history),
        "bias_ids": call.value(bias_ids),
        "bias_values": call.value(bias_values),
        "bitmask": call.value(bitmask),
    }
    grid: tuple[Axis, ...] = (axis(parts), axis(call.rows(logits)))
    call.launch(
        "sample_parts",
        "sample_parts.py.j2",
        settings | lists | found,
        grid,
        Config(_PARTS, warps=8, stages=1),
        part="parts",
        **constants,
    )
    results = {name: call.result(i) for i, name in enumerate(("tokens", "logprobs", "top_ids", "top_values"))}
    call.launch(
        "sample_finish",
        "sample_finish.py.j2",
        settings | found | results,
        (axis(call.rows(logits)),),
        Config(_finish_tiles(parts), warps=16, stages=1),
        part="finish",
        **constants,
        tiles=-(-vocabulary // _TILE),
        list_tiles=-(-slots // _TILE),
        not_a_number=NOT_A_NUMBER,
        none_allowed=NONE_ALLOWED,
        least_key=key_of(float("-inf")),
        id_keys=-key_of(-float(vocabulary)),
    )


@provides("token_logprob")
def token_logprob(call: TritonCall) -> None:
    logits, targets = call.node.args
    vocabulary, row = width(logits), symbol("R")
    part = min(_SCORE_PART, power_of_two(vocabulary))
    parts = -(-vocabulary // part)
    read = {"logits": call.value(logits)}
    sums = {
        "tops": call.scratch("tops", "f32", (row, parts)),
        "masses": call.scratch("masses", "f32", (row, parts)),
    }
    rows = call.rows(logits)
    constants: dict[str, Any] = {"rows_count": call.count(rows), "vocabulary": vocabulary, "parts": parts}
    call.launch(
        "score_parts",
        "score_parts.py.j2",
        read | sums,
        (axis(parts), axis(rows)),
        Config({"PART": part}, warps=4, stages=1),
        part="parts",
        **constants,
    )
    call.launch(
        "score_finish",
        "score_finish.py.j2",
        read | {"targets": call.value(targets)} | sums | {"out": call.result()},
        (axis(rows),),
        Config({"PARTS": power_of_two(parts)}, warps=1, stages=1),
        part="finish",
        **constants,
    )


def _finish_tiles(parts: int) -> dict[str, int]:
    heads = power_of_two(parts * TOP_LOGPROBS)
    ranks = power_of_two(TOP_LOGPROBS)
    return _PARTS | {"TILE": _TILE, "PARTS": power_of_two(parts), "HEADS": heads, "RANKS": ranks}


def key_of(value: float) -> int:
    """A whole number in the order of floats, as the kernels have it."""
    bits = int.from_bytes(struct.pack("<f", value), "little", signed=True)
    return -(bits & 0x7FFFFFFF) if bits < 0 else bits
