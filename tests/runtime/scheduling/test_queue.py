"""Who is next, who is late, and how much may wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.runtime.artifact.errors import QueueFullError
from xllmc.runtime.loop.deadlines import Deadlines
from xllmc.runtime.loop.limits import QueueLimits
from xllmc.runtime.options import SchedulingOptions
from xllmc.runtime.requests import RequestOptions
from xllmc.runtime.sampling import SamplingParams
from xllmc.runtime.scheduling.queue import FairQueue
from xllmc.runtime.scheduling.sequence import Request, Sequence
from xllmc.runtime.text import IncrementalText, StopStrings


def request(number: int, tokens: int = 1, key: str = "", priority: int = 0, deadline: float | None = None) -> Request:
    made = Request(
        prompt=[1] * tokens,
        params=SamplingParams(),
        options=RequestOptions(key=key, priority=priority),
        seed=0,
        max_tokens=10,
        stop_ids=frozenset(),
        arrived=float(number),
        deadline=deadline,
        deliver=lambda index, item: None,
    )
    made.sequences.append(Sequence(made, 0, number, IncrementalText(lambda _: ""), StopStrings(()), list(made.prompt)))
    return made


class Naive:
    """The same queue, without any cleverness."""

    def __init__(self) -> None:
        self.waiting: list[Sequence] = []
        self.served: dict[str, float] = {}

    def add(self, sequence: Sequence) -> None:
        keys = {s.request.options.key for s in self.waiting}
        key = sequence.request.options.key
        if key not in keys:
            least = min((self.served.get(k, 0.0) for k in keys), default=0.0)
            self.served[key] = max(self.served.get(key, 0.0), least)
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        self.waiting.remove(sequence)
        if not self.waiting:
            self.served.clear()

    def first(self) -> Sequence | None:
        def order(sequence: Sequence) -> tuple[int, float, float, int]:
            options = sequence.request.options
            alike = [s for s in self.waiting if s.request.options == options]
            oldest = min(s.number for s in alike)
            return -options.priority, self.served.get(options.key, 0.0), oldest, sequence.number

        return min(self.waiting, key=order, default=None)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(("add", "add", "first", "any", "again", "charge")),
        st.integers(0, 9),
        st.sampled_from("abc"),
        st.integers(0, 1),
    ),
    max_size=60,
)


@given(EVENTS)
def test_the_queue_is_the_naive_one(events: list[tuple[str, int, str, int]]) -> None:
    queue, naive = FairQueue(), Naive()
    gone: list[Sequence] = []
    for number, (event, amount, key, priority) in enumerate(events):
        if event == "add":
            sequence = request(number, amount + 1, key, priority).sequences[0]
            queue.add(sequence)
            naive.add(sequence)
        elif event == "charge":
            queue.charge(key, amount)
            naive.served[key] = naive.served.get(key, 0.0) + amount
        elif event == "again" and gone:
            # As one that was preempted.
            sequence = gone.pop(amount % len(gone))
            queue.add(sequence)
            naive.add(sequence)
        elif naive.waiting:
            chosen = queue.first() if event == "first" else naive.waiting[amount % len(naive.waiting)]
            assert chosen is not None
            queue.remove(chosen)
            naive.remove(chosen)
            gone.append(chosen)
        assert queue.first() is naive.first()
        assert queue.oldest() is min(naive.waiting, key=lambda s: (s.request.arrived, s.number), default=None)
        assert len(queue) == len(naive.waiting) and queue.tokens == sum(s.missing for s in naive.waiting)
        assert all(sequence in queue for sequence in naive.waiting) and not any(one in queue for one in gone)


def test_a_key_that_comes_back_has_saved_nothing_up() -> None:
    queue = FairQueue()
    waiting = [request(i, key="busy").sequences[0] for i in range(3)]
    for sequence in waiting:
        queue.add(sequence)
    queue.charge("busy", 1000)
    late = [request(10 + i, key="late").sequences[0] for i in range(2)]
    for sequence in late:
        queue.add(sequence)
    # Level with the other, so arrival decides; after that they take turns.
    assert queue.first() is waiting[0]
    queue.remove(waiting[0])
    queue.charge("busy", 10)
    assert queue.first() is late[0]
    queue.charge("late", 11)
    assert queue.first() is waiting[1]


def test_limits_count_what_waits_and_let_a_first_one_in() -> None:
    limits = QueueLimits(SchedulingOptions(max_waiting=2, max_waiting_tokens=10))
    giant, small, other = request(0, 100), request(1, 1), request(2, 1)
    limits.admit([giant], 0.0)
    with pytest.raises(QueueFullError, match=r"at most 10 tokens of prompts may wait, .* 101; try again") as refused:
        limits.admit([small], 30.0)
    assert refused.value.retry_after == 30.0
    limits.settle(giant)
    limits.settle(giant)
    limits.admit([small, other], 0.0)
    with pytest.raises(QueueFullError, match="at most 2 requests may wait, and with this there would be 3") as refused:
        limits.admit([request(3)], 0.0)
    assert refused.value.retry_after == 1.0
    limits.settle(small)
    limits.admit([request(4, 9)], 0.0)
    with pytest.raises(QueueFullError):
        limits.admit([request(5, 1)], 0.0)


def test_every_late_request_is_told_once() -> None:
    deadlines = Deadlines()
    requests = [request(i, deadline=when) for i, when in enumerate((5.0, 1.0, None, 3.0, 3.0))]
    for one in requests:
        deadlines.add(one)
    assert deadlines.next == 1.0
    requests[1].ended_samples = 1
    assert deadlines.next == 3.0 and deadlines.passed(2.9) == []
    assert deadlines.passed(3.0) == [requests[3], requests[4]]
    assert deadlines.passed(4.0) == [] and deadlines.next == 5.0
    assert deadlines.passed(9.0) == [requests[0]] and deadlines.next is None
