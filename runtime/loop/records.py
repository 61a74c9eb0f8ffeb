"""What observers are told of steps and of sequences' ends."""

from typing import Literal, NamedTuple

from ..observe import RequestRecord, StepRecord
from ..scheduling.sequence import Sequence
from .executor import Outcome
from .outputs import sequence_usage


class Ending(NamedTuple):
    """How a sequence came to its end."""

    outcome: Literal["stop", "length", "cancelled", "error"]
    error: str = ""


def step_record(index: int, outcome: Outcome, process_began: float, process_ended: float) -> StepRecord:
    """Of a step that was handed out between these times."""
    job, decision = outcome.job, outcome.job.plan.decision
    tokens, sequences, rows, *_ = job.step.sizes
    return StepRecord(
        index=index,
        tokens=tokens,
        sequences=sequences,
        rows=rows,
        decoding=decision.load.decoding,
        budget=decision.budget,
        running=job.standing.running,
        waiting=job.standing.waiting,
        request_ids=tuple(part.sequence.request.options.request_id for part in decision.parts),
        sequence_tokens=tuple(part.stop - part.start for part in decision.parts),
        schedule_began=job.schedule_began,
        schedule_ended=job.schedule_ended,
        began=outcome.began,
        launched=outcome.launched,
        ended=outcome.ended,
        process_began=process_began,
        process_ended=process_ended,
        kernels=outcome.kernels,
    )


def request_record(sequence: Sequence, ending: Ending, now: float) -> RequestRecord:
    """Of a sequence that ended ``now``."""
    request = sequence.request
    return RequestRecord(
        request_id=request.options.request_id,
        sample_index=sequence.sample_index,
        key=request.options.key,
        priority=request.options.priority,
        arrived=request.arrived,
        scheduled=sequence.scheduled_at,
        first_token=sequence.first_token_at,
        ended=now,
        outcome=ending.outcome,
        error=ending.error,
        usage=sequence_usage(sequence, now),
    )
