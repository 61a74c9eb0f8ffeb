"""What a step's rows say to each sequence: tokens and their text, log-probabilities, and whether it ends."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..artifact.errors import NumericError, OptionError, XllmcError
from ..requests import Chunk, FinishReason, PromptLogprob, TokenLogprobs, Usage
from ..scheduling.sequence import Item, Sequence
from ..scheduling.step_plan import StepPlan
from ..step import StepOutput

_NONE_ALLOWED = -2
"""token_none_allowed of ``xllmc/sampler.h``."""


class Delivery(NamedTuple):
    """For one sequence."""

    sequence: Sequence
    item: Item
    ends: bool


def step_deliveries(plan: StepPlan, output: StepOutput, now: float) -> Iterator[Delivery]:
    """What each sequence gets of a step, in the order of its rows; sequences take in their tokens as it is made.

    ``now``: seconds of ``time.perf_counter``. Those that ended since the step was planned get nothing.
    """
    results = _Results(output)
    logits: dict[Sequence, list[int]] = {}
    for i, row in enumerate(plan.rows):
        sequence = row.sequence
        if sequence.status == "ended":
            continue
        if row.kind == "logits":
            logits.setdefault(sequence, []).append(i)
        elif row.kind == "score":
            scored = results.prompt_logprob(i, sequence.request.params.prompt_logprobs or 0)
            if not np.isfinite(scored.model):
                yield Delivery(sequence, not_finite(), True)
            sequence.prompt_logprobs.append(scored)
        else:
            if sequence.pending is not None and sequence.pending.position == row.position:
                sequence.pending = None
            yield _sampled(sequence, i, results, now)
    for part in plan.decision.parts:
        sequence = part.sequence
        if sequence.status == "ended" or sequence.samples:
            continue
        ends = part.stop >= sequence.goal
        if sequence in logits:
            yield Delivery(sequence, output.logits[logits[sequence]], ends)
        elif ends:
            yield Delivery(sequence, _chunk(sequence, None, "", None, output.version, "length", now), True)


def not_finite() -> NumericError:
    """What a NaN among the logits ends in."""
    return NumericError(
        "the model's logits must be finite, got NaN or infinity; check its weights, or compile with fp32"
    )


class _Results:
    """A step's output as Python numbers, made as far as they are asked for."""

    def __init__(self, output: StepOutput) -> None:
        self.output = output
        self.tokens: list[int] = output.tokens.tolist() if output.tokens is not None else []

    def logprobs(self, row: int, top: int) -> TokenLogprobs:
        assert self.output.logprobs is not None
        model, temperature, sampled = self.output.logprobs[row].tolist()
        return TokenLogprobs(model, temperature, sampled, self._top(row, top))

    def prompt_logprob(self, row: int, top: int) -> PromptLogprob:
        assert self.output.target_logprobs is not None
        return PromptLogprob(float(self.output.target_logprobs[row]), self._top(row, top) if top else ())

    def _top(self, row: int, top: int) -> tuple[tuple[int, float], ...]:
        assert self.output.top_ids is not None and self.output.top_logprobs is not None
        ids, values = self.output.top_ids[row, :top].tolist(), self.output.top_logprobs[row, :top].tolist()
        # A vocabulary smaller than `top` leaves ids of -1.
        return tuple(pair for pair in zip(ids, values, strict=True) if pair[0] >= 0)


def _sampled(sequence: Sequence, row: int, results: _Results, now: float) -> Delivery:
    token = results.tokens[row]
    if token < 0:
        return Delivery(sequence, _unsampled(token), True)
    sequence.tokens.append(token)
    if sequence.first_token_at is None:
        sequence.first_token_at = now
    text, reason = _advance(sequence, token)
    params = sequence.request.params
    logprobs = None if params.logprobs is None else results.logprobs(row, params.logprobs)
    chunk = _chunk(sequence, token, text, logprobs, results.output.version, reason, now)
    return Delivery(sequence, chunk, reason is not None)


def _chunk(
    sequence: Sequence,
    token: int | None,
    text: str,
    logprobs: TokenLogprobs | None,
    version: int,
    reason: FinishReason | None,
    now: float,
) -> Chunk:
    request, first = sequence.request, len(sequence.tokens) - len(sequence.request.prompt) <= 1
    prompt_logprobs = None
    if first and sequence.sample_index == 0 and request.scores_prompt:
        prompt_logprobs = (None, *sequence.prompt_logprobs)
    usage = sequence_usage(sequence, now) if reason is not None else None
    return Chunk(
        sequence.sample_index, token, text, logprobs, version, reason, prompt_logprobs, usage, request.prompt_index
    )


def sequence_usage(sequence: Sequence, now: float) -> Usage:
    """What a sequence has taken until ``now``."""
    request = sequence.request
    return Usage(
        prompt_tokens=len(request.prompt),
        cached_tokens=sequence.reused or 0,
        output_tokens=len(sequence.tokens) - len(request.prompt),
        queued_seconds=(now if sequence.scheduled_at is None else sequence.scheduled_at) - request.arrived,
        first_token_seconds=None if sequence.first_token_at is None else sequence.first_token_at - request.arrived,
        total_seconds=now - request.arrived,
        preemptions=sequence.preemptions,
    )


def _advance(sequence: Sequence, token: int) -> tuple[str, FinishReason | None]:
    """The text a token adds, and whether it ends the sequence."""
    request, text, stops = sequence.request, sequence.text, sequence.stops
    if token in request.stop_ids:
        return stops.add(text.finish()) + stops.finish(), "stop"
    shown = stops.add(text.add(token))
    if not stops.stopped and len(sequence.tokens) - len(request.prompt) < request.max_tokens:
        return shown, None
    shown += stops.add(text.finish())
    return shown + stops.finish(), "stop" if stops.stopped else "length"


def _unsampled(token: int) -> XllmcError:
    """What the sampling plan's negative tokens mean (``xllmc/sampler.h``)."""
    if token == _NONE_ALLOWED:
        return OptionError("sampling needs a token that is allowed, and logit_bias leaves none; allow one")
    return not_finite()
