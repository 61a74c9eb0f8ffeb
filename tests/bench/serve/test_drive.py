"""Open and closed loops, on a clock that jumps: what hides a queue, and what does not."""

import asyncio
import threading

import pytest
from xllmc.bench.serve.drive import drive
from xllmc.bench.serve.figures import figures
from xllmc.bench.serve.fine_loop import fine_loop
from xllmc.bench.serve.loads import Load
from xllmc.bench.serve.records import Record, Work

from tests.bench.serve.virtual_time import run_virtually


def one_at_a_time(service: float):
    """A server of one request at a time; its answer is one token."""
    turn = asyncio.Lock()

    async def send(work: Work, scheduled: float, clock) -> Record:
        sent = clock()
        async with turn:
            await asyncio.sleep(service)
        now = clock()
        return Record(work.index, scheduled, sent, now, (now,), 1, finished=now, prompt_tokens=1, output_tokens=1)

    return send


def works(count: int, rate: float) -> list[Work]:
    return [Work(i, i / rate, "x", 1) for i in range(count)]


def driven(load: Load, service: float = 0.05, rate: float = 100.0, count: int = 200, stop_after: float | None = None):
    async def main():
        stop = asyncio.Event()
        if stop_after is not None:
            asyncio.get_running_loop().call_later(stop_after, stop.set)
        seen = []
        run = await drive(works(count, rate), load, one_at_a_time(service), stop, seen.append)
        return run, seen

    return run_virtually(main())


def test_an_open_loop_shows_the_queue_that_a_closed_loop_hides():
    opened, closed = (figures([driven(load)[0]], load, ()) for load in (Load(rate=100), Load(concurrency=1)))
    assert closed.ttft.p99 == pytest.approx(0.05)
    # 200 requests come in 2 s and take 10 s: the last waits for 8 s.
    assert opened.ttft.p99 == pytest.approx(8.0, rel=0.02) and opened.ttft.p50 == pytest.approx(4.0, rel=0.02)
    assert opened.queue_growth.slope == pytest.approx(4.0, rel=0.02) and opened.saturated
    assert opened.request_rate == pytest.approx(closed.request_rate) == pytest.approx(20.0)
    assert not opened.client.bottleneck


def test_requests_are_sent_when_they_are_due_and_all_are_waited_for():
    run, seen = driven(Load(rate=100), service=0.001)
    assert [record.index for record in run.records] == list(range(200))
    assert sorted(record.index for record in seen) == list(range(200))
    assert max(abs(record.lag) for record in run.records) < 1e-6
    assert [record.scheduled for record in run.records] == pytest.approx([i / 100 for i in range(200)])


@pytest.mark.parametrize("concurrency", [1, 7, 500])
def test_a_closed_loop_keeps_its_number_in_flight(concurrency):
    flying = most = 0

    async def send(work: Work, scheduled: float, clock) -> Record:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.1 + work.index % 3)
        flying -= 1
        return Record(work.index, scheduled, scheduled, clock(), (clock(),), 1, finished=clock(), output_tokens=1)

    async def main():
        return await drive(works(100, 1.0), Load(concurrency=concurrency), send, asyncio.Event(), lambda record: None)

    run = run_virtually(main())
    assert most == min(concurrency, 100) and len(run.records) == 100


def test_a_stop_keeps_what_was_done_and_marks_what_was_not():
    run, seen = driven(Load(rate=100), stop_after=1.025)
    done = [record for record in run.records if record.failure is None]
    assert len(done) == len(seen) == 20
    # Those that had come by then were under way; those to come are left out.
    assert len(run.records) == 103
    assert {record.failure.kind for record in run.records if record.failure} == {"unfinished"}
    found = figures([run], Load(rate=100), ())
    assert (found.completed, found.unfinished, found.errors) == (20, 83, {})


def test_a_client_that_stands_still_is_found_out():
    async def main():
        loop = asyncio.get_running_loop()
        for at in range(1, 20):
            loop.call_later(0.1 * at, loop.stand_still, 0.08)
        return await drive(works(200, 100), Load(rate=100), one_at_a_time(0.001), asyncio.Event(), lambda record: None)

    client = figures([run_virtually(main())], Load(rate=100), ()).client
    assert client.lag.p99 > 0.05 and client.stall.p99 > 0.05 and len(client.bottleneck) == 3


def test_an_error_of_the_senders_own_is_not_lost():
    async def send(work: Work, scheduled: float, clock) -> Record:
        raise RuntimeError("a fault of ours")

    async def main():
        await drive(works(3, 100), Load(rate=100), send, asyncio.Event(), lambda record: None)

    with pytest.raises(ExceptionGroup) as caught:
        run_virtually(main())
    assert "a fault of ours" in str(caught.value.exceptions)


def test_the_clients_own_loop_wakes_when_it_is_due_and_when_something_comes():
    async def main() -> float:
        loop = asyncio.get_running_loop()
        due = loop.time() + 0.01
        await asyncio.sleep(0.01)
        assert loop.time() >= due
        early = asyncio.Event()
        thread = threading.Timer(0.01, lambda: loop.call_soon_threadsafe(early.set))
        thread.start()
        began = loop.time()
        await asyncio.wait_for(early.wait(), 60)
        return loop.time() - began

    with asyncio.Runner(loop_factory=fine_loop) as runner:
        assert runner.run(main()) < 30
