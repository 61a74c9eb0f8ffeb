"""From a scheduler's decision to the arrays of a step, with places for tokens that the step before still computes."""

from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ..sampling import RowRequest, SamplingParams, sampling_input
from ..states.memory import StateMemory
from ..states.transfer import Transfer
from ..step import StepInput
from .scheduler import Decision, Part
from .sequence import Pending, Sequence


class Row(NamedTuple):
    """What a row of logits is for."""

    sequence: Sequence
    position: int
    kind: Literal["sample", "score", "logits"]


class Late(NamedTuple):
    """Tokens that are known only when the step before has run: ``array[places] = its tokens[rows]``."""

    places: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class StepPlan:
    """A step, ready to run after the one before it."""

    decision: Decision
    rows: tuple[Row, ...]
    input: StepInput
    transfers: tuple[Transfer, ...]
    """To be carried out before."""
    late_ids: Late
    """Of the input's token ids."""
    late_history: Late
    """Of its sampling's history."""

    @property
    def prompt_tokens(self) -> int:
        """Those that the step takes beside one of each decoding sequence."""
        return len(self.input.token_ids) - self.decision.load.decoding

    @property
    def keeps_logits(self) -> bool:
        """Whether somebody wants the logits themselves."""
        return any(row.kind == "logits" for row in self.rows)


def plan_step(decision: Decision, memory: StateMemory, vocab_size: int) -> StepPlan:
    """The step's arrays. Its sequences remember from which rows their next tokens come, and that rows of their prompts
    are no longer wanted.
    """
    parts = decision.parts
    lengths = [part.stop - part.start for part in parts]
    starts = np.cumsum([0, *lengths], dtype=np.int32)
    firsts = np.array([part.start for part in parts], np.int32)
    late = [(int(end) - 1, part.sequence.pending) for part, end in zip(parts, starts[1:], strict=True)]
    rows, logit_rows = _rows(parts, starts)
    sampling, late_history = None, _late([])
    if any(row.kind == "sample" or row.sequence.request.params.prompt_logprobs for row in rows):
        sampling = sampling_input([_row_request(row) for row in rows], vocab_size)
        stops = sampling.rows["history_stop"].tolist()
        late_history = _late(
            [
                (stop - 1, row.sequence.pending)
                for stop, row in zip(stops, rows, strict=True)
                if row.sequence.request.params.penalises
            ]
        )
    targets = None
    if any(row.kind == "score" for row in rows):
        targets = np.array([r.sequence.tokens[r.position + 1] if r.kind == "score" else 0 for r in rows], np.int32)
    step = StepInput(
        token_ids=_token_ids(parts),
        positions=(np.arange(starts[-1], dtype=np.int32) + np.repeat(firsts - starts[:-1], lengths))[None],
        query_starts=starts,
        block_tables=memory.tables([part.sequence.states for part in parts if part.sequence.states is not None]),
        logit_rows=np.array(logit_rows, np.int32),
        sampling=sampling,
        targets=targets,
    )
    plan = StepPlan(decision, tuple(rows), step, memory.take_transfers(), _late(late), late_history)
    for part in parts:
        part.sequence.pending = None
        part.sequence.wanted_from = max(part.sequence.wanted_from, part.wanted.stop)
    for i, row in enumerate(rows):
        if row.kind == "sample":
            row.sequence.pending = Pending(i, row.position)
    return plan


def _token_ids(parts: List[Part]) -> np.ndarray:
    """i32 [T], zeros in the places of tokens that are not known yet."""
    ids: list[int] = []
    for part in parts:
        known = part.sequence.tokens[part.start : part.stop]
        ids += known if len(known) == part.stop - part.start else [*known, 0]
    return np.array(ids, np.int32)


def _late(places: List[tuple[int, Pending | None]]) -> Late:
    found = [(place, pending.row) for place, pending in places if pending is not None]
    array = np.array(found, np.int64).reshape(-1, 2)
    return Late(array[:, 0], array[:, 1])


def _rows(parts: List[Part], starts: np.ndarray) -> tuple[list[Row], list[int]]:
    """The rows, and which of the step's tokens each comes from."""
    rows: list[Row] = []
    tokens: list[int] = []
    for part, first in zip(parts, starts.tolist(), strict=False):
        for position in part.wanted:
            rows.append(Row(part.sequence, position, "logits" if part.sequence.request.wants_logits else "score"))
            tokens.append(first + position - part.start)
        if part.samples:
            rows.append(Row(part.sequence, part.stop - 1, "sample"))
            tokens.append(first + part.stop - part.start - 1)
    return rows, tokens


def _row_request(row: Row) -> RowRequest:
    sequence, request = row.sequence, row.sequence.request
    if row.kind == "sample":
        pending = int(sequence.pending is not None)
        prompt = len(request.prompt)
        return RowRequest(request.params, request.seed, sequence.sample_index, sequence.tokens, prompt, pending)
    # Only the likeliest tokens are looked at.
    return RowRequest(SamplingParams(temperature=0, logprobs=request.params.prompt_logprobs), 0, 0, [0], 1)
