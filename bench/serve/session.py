"""A whole measurement: servers, loads and rounds, in turns, so that all servers see the same of the machine's moods."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from .client import Client, open_session
from .drive import drive
from .figures import Figures, figures
from .loads import Load
from .probe import Server, probe
from .records import Record, Run
from .slo import Objective
from .workload import Workload

WARMUP_CONCURRENCY = 4


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure."""

    urls: tuple[str, ...]
    loads: tuple[Load, ...]
    workload: Workload
    rounds: int
    warmup: int
    """Requests to each server that are not measured."""
    objectives: tuple[Objective, ...]
    model: str | None
    ignore_eos: bool
    temperature: float
    body: Mapping[str, Any]
    timeout: float
    retries: int


class Part(NamedTuple):
    """One run among many."""

    server: int
    load: Load
    turn: int
    run: Run


@dataclass(frozen=True)
class Line:
    """One server at one load."""

    server: int
    load: Load
    figures: Figures
    by_round: tuple[Figures, ...]


@dataclass(frozen=True)
class Measured:
    """All that was found."""

    servers: tuple[Server, ...]
    parts: tuple[Part, ...]
    lines: tuple[Line, ...]
    interrupted: bool


Watch = Callable[[str, int], Callable[[Record], None]]
"""Told what comes next and how many requests it has; gives what to call with each that is done."""


async def measure(plan: Plan, api_key: str | None, watch: Watch) -> Measured:
    """Probe and warm up each server, then run every load on each. Ctrl-C ends it with what there is so far.

    Raises OptionError where a server does not answer.
    """
    stop = asyncio.Event()
    parts: list[Part] = []
    async with open_session(api_key) as session:
        work = plan.workload.warmup(1)[0]
        servers = [
            await probe(
                session,
                url,
                model=plan.model,
                chat=plan.workload.chat,
                prompt=work.prompt,
                ignore_eos=plan.ignore_eos,
                temperature=plan.temperature,
                extra=plan.body,
                timeout=plan.timeout,
            )
            for url in plan.urls
        ]
        clients = [Client(session, server.base, server.dialect, plan.timeout, plan.retries) for server in servers]
        with interrupts(stop):
            for server, client in zip(servers, clients, strict=True):
                warm = plan.workload.warmup(plan.warmup)
                on_record = watch(f"{server.url}: warm-up", len(warm))
                await drive(warm, Load(concurrency=WARMUP_CONCURRENCY), client.prepare(warm), stop, on_record)
            for turn, line, number in _order(plan):
                if stop.is_set():
                    break
                load, client = plan.loads[line], clients[number]
                works = plan.workload.works(load, line, turn)
                on_record = watch(f"{plan.urls[number]}: {load}, round {turn + 1} of {plan.rounds}", len(works))
                run = await drive(works, load, client.prepare(works), stop, on_record)
                parts.append(Part(number, load, turn, run))
    return Measured(tuple(servers), tuple(parts), _lines(plan, parts), stop.is_set())


def _order(plan: Plan) -> Iterator[tuple[int, int, int]]:
    """(round, load, server); every round begins with another server."""
    count = len(plan.urls)
    for turn in range(plan.rounds):
        for line in range(len(plan.loads)):
            for place in range(count):
                yield turn, line, (turn + place) % count


def _lines(plan: Plan, parts: list[Part]) -> tuple[Line, ...]:
    lines = []
    for server in range(len(plan.urls)):
        for load in plan.loads:
            runs = [part.run for part in parts if (part.server, part.load) == (server, load) and part.run.records]
            if runs:
                by_round = tuple(figures([run], load, plan.objectives) for run in runs)
                whole = by_round[0] if len(runs) == 1 else figures(runs, load, plan.objectives)
                lines.append(Line(server, load, whole, by_round))
    return tuple(lines)


@contextmanager
def interrupts(stop: asyncio.Event) -> Iterator[None]:
    """Ctrl-C sets ``stop``; pressed again, it ends the program as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def first() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, first)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
