"""Sending a workload, open loop or closed. All clocks are the event loop's, so a test may bring a loop with its own."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from .loads import Load
from .records import UNFINISHED, ClientLoad, Failure, Record, Run, Work

WAKE_SECONDS = 0.02


class Send(Protocol):
    """Sends one request and waits for its end. ``clock`` gives seconds from the start of the run."""

    def __call__(self, work: Work, scheduled: float, clock: Callable[[], float]) -> Awaitable[Record]: ...


async def drive(
    works: Sequence[Work], load: Load, send: Send, stop: asyncio.Event, on_record: Callable[[Record], None]
) -> Run:
    """Send all of ``works``, and wait for the ends of all. When ``stop`` is set, those under way are cut off and marked
    as unfinished; those whose time has not come are left out.
    """
    loop = asyncio.get_running_loop()
    origin = loop.time()
    begun: dict[int, tuple[Work, float]] = {}
    done: list[Record] = []

    def clock() -> float:
        return loop.time() - origin

    async def one(work: Work, scheduled: float) -> None:
        begun[work.index] = work, scheduled
        record = await send(work, scheduled, clock)
        del begun[work.index]
        done.append(record)
        on_record(record)

    async def open_loop() -> None:
        async with asyncio.TaskGroup() as group:
            for work in works:
                await asyncio.sleep(work.at - clock())
                group.create_task(one(work, work.at))

    async def closed_loop(concurrency: int) -> None:
        waiting = iter(works)

        async def worker() -> None:
            for work in waiting:
                await one(work, clock())

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())

    cpu = time.process_time()
    stalls: list[float] = []
    sending = asyncio.create_task(open_loop() if load.concurrency is None else closed_loop(load.concurrency))
    others = [asyncio.create_task(stop.wait()), asyncio.create_task(_watch(stalls))]
    try:
        await asyncio.wait([sending, others[0]], return_when=asyncio.FIRST_COMPLETED)
    finally:
        now, cpu = clock(), time.process_time() - cpu
        for task in (sending, *others):
            task.cancel()
        await asyncio.wait([sending, *others])
    if not sending.cancelled():
        sending.result()  # an error of ours, if there was one
    done += [_cut_off(work, scheduled, now) for work, scheduled in begun.values()]
    busy = ClientLoad(cpu / now if now > 0 else 0.0, tuple(stalls))
    return Run(tuple(sorted(done, key=lambda record: record.index)), busy)


def _cut_off(work: Work, scheduled: float, now: float) -> Record:
    failure = Failure(UNFINISHED, "the run was ended first")
    return Record(work.index, scheduled, None, now, (), work.output_tokens, failure=failure)


async def _watch(stalls: list[float]) -> None:
    """Sleep again and again, and note how much too late each waking came."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + WAKE_SECONDS
        await asyncio.sleep(WAKE_SECONDS)
        stalls.append(max(loop.time() - due, 0.0))
