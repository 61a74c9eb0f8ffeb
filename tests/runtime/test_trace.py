"""Traces: what viewers ask of a file, whatever the engine tells and however the process ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.runtime import trace_events
from xllmc.runtime.artifact.errors import OptionError
from xllmc.runtime.observe import KernelTimes, RequestRecord, StepRecord
from xllmc.runtime.requests import Usage
from xllmc.runtime.trace import TraceWriter
from xllmc.runtime.trace_events import TRACKS, TraceEvents

USAGE = Usage(10, 4, 3, 0.001, 0.002, 0.01, 0)
KERNELS = ("embed", "linear_128x256", "100%")
ORIGINS = ("embedding", 'layer "0" %s', "lm_head")


def kernel_times(began: float, *seconds: float) -> KernelTimes:
    return KernelTimes("forward", began, ORIGINS, KERNELS, np.array(seconds or (1e-4, 2e-4, 3e-4)))


def step_record(index: int, began: float, requests: tuple[str, ...] = ("a",), **changes: Any) -> StepRecord:
    record = StepRecord(
        index=index,
        tokens=len(requests),
        sequences=len(requests),
        rows=len(requests),
        decoding=len(requests),
        budget=32,
        running=len(requests),
        waiting=0,
        request_ids=requests,
        sequence_tokens=(1,) * len(requests),
        schedule_began=began - 2e-4,
        schedule_ended=began - 1e-4,
        began=began,
        ended=began + 1e-3,
        process_began=began + 1e-3,
        process_ended=began + 1.1e-3,
    )
    return replace(record, **changes)


def request_record(request_id: str, arrived: float, sample_index: int = 0, **changes: Any) -> RequestRecord:
    record = RequestRecord(
        request_id, sample_index, "key", 0, arrived, arrived + 0.001, arrived + 0.002, arrived + 0.01, "stop", "", USAGE
    )
    return replace(record, **changes)


def events_of(path: Path) -> list[dict[str, Any]]:
    events = json.loads(path.read_text())
    check(events)
    return events


def check(events: list[dict[str, Any]]) -> None:
    """What both viewers ask: known kinds, times, slices and spans that nest, arrows that touch slices."""
    tracks, spans, arrows = defaultdict(list), defaultdict(list), defaultdict(list)
    for event in events:
        assert event["ph"] in "XbestCM" and event["pid"] == events[0]["pid"]
        assert event["ph"] == "M" or event["ts"] >= 0
        if event["ph"] == "X":
            tracks[event["tid"]].append((nanoseconds(event["ts"]), nanoseconds(event["ts"] + event["dur"]), event))
        elif event["ph"] in "be":
            spans[event["cat"], event["id"]].append(event)
        elif event["ph"] in "st":
            arrows[event["id"]].append(event)
    assert tracks.keys() <= set(TRACKS.values())
    for slices in tracks.values():
        starts = [began for began, _, _ in slices]
        assert starts == sorted(starts)
        open_until: list[int] = []
        for began, ended, _ in slices:
            while open_until and open_until[-1] <= began:
                open_until.pop()
            assert not open_until or ended <= open_until[-1], "slices overlap"
            open_until.append(ended)
    for span in spans.values():
        assert [event["ts"] for event in span] == sorted(event["ts"] for event in span)
        names: list[str] = []
        for event in span:
            if event["ph"] == "b":
                names.append(event["name"])
            else:
                assert names.pop() == event["name"]
        assert not names
    for arrow in arrows.values():
        assert [event["ph"] for event in arrow] == ["s"] + ["t"] * (len(arrow) - 1)
        assert arrow[0]["tid"] == TRACKS["schedule"]
        for event in arrow:
            at = nanoseconds(event["ts"])
            assert any(began <= at <= ended for began, ended, _ in tracks[event["tid"]])


def nanoseconds(microseconds: float) -> int:
    return round(microseconds * 1000)


def named(events: list[dict[str, Any]], name: str, phase: str = "X") -> list[dict[str, Any]]:
    return [event for event in events if event["name"] == name and event["ph"] == phase]


def written(events: TraceEvents, *records: StepRecord | RequestRecord) -> list[dict[str, Any]]:
    lines = events.opening()
    for record in records:
        lines += events.step(record) if isinstance(record, StepRecord) else events.request(record)
    made = [json.loads(line) for line in [*lines, *events.closing(0, 0)]]
    check(made)
    return made


def test_a_trace_shows_steps_kernels_host_work_requests_and_counters(tmp_path):
    path = tmp_path / "out.json"
    now = time.perf_counter()
    with TraceWriter(path) as trace:
        assert trace.kernel_times
        prefill = step_record(0, now + 1, tokens=20, decoding=0, kernels=(kernel_times(now + 1.0001),))
        trace.step(prefill)
        trace.step(step_record(1, now + 1.002, ("a", "b"), waiting=3))
        trace.request(request_record("a", now + 0.9))
    events = events_of(path)
    steps = [event for event in events if event["ph"] == "X" and event["tid"] == TRACKS["steps"]]
    assert [step["name"] for step in steps] == ["prefill", "decode"]
    assert steps[0]["args"] == {"step": 0, "tokens": 20, "sequences": 1, "rows": 1, "decoding": 0, "budget": 32}
    assert steps[0]["dur"] == pytest.approx(1000, abs=0.01) and steps[0]["ts"] == pytest.approx(1e6, abs=1e4)
    launches = [named(events, origin)[0] for origin in ORIGINS]
    assert [launch["args"]["kernel"] for launch in launches] == list(KERNELS)
    assert [launch["dur"] for launch in launches] == pytest.approx([100, 200, 300])
    function = named(events, "forward")[0]
    assert function["dur"] == pytest.approx(600) and function["args"] == {"launches": 3}
    assert len(named(events, "schedule")) == len(named(events, "process")) == 2
    assert named(events, "requests", "C")[1]["args"] == {"running": 2, "waiting": 3}
    assert named(events, "tokens", "C")[0]["args"] == {"prompt": 20, "decoding": 0}
    request, other = named(events, "request", "b")
    assert request["args"]["id"] == "a" and request["args"]["steps"] == 2 and request["args"]["output_tokens"] == 3
    assert [named(events, name, "b")[0]["id"] for name in ("queued", "prefill", "decode")] == [request["id"]] * 3
    assert other["args"] == {"id": "b", "outcome": "unfinished", "steps": 1}
    assert trace.summary == f"{path}: 2 steps, 1 requests"


def test_arrows_lead_from_a_request_to_where_it_was_admitted_and_through_its_steps():
    steps = [step_record(i, 1 + i / 100, requests) for i, requests in enumerate([("a",), ("a", "b"), ("b",)])]
    events = written(TraceEvents(1, 0.0), *steps, request_record("b", 0.9), request_record("a", 0.9))
    admitted = {event["args"]["id"]: event for event in named(events, "admit")}
    spans = {event["args"]["id"]: event for event in named(events, "request", "b")}
    assert admitted.keys() == spans.keys() == {"a", "b"}
    for request_id, count in (("a", 2), ("b", 2)):
        assert spans[request_id]["bind_id"] == admitted[request_id]["bind_id"]
        assert spans[request_id]["flow_out"] and admitted[request_id]["flow_in"]
        assert spans[request_id]["args"]["steps"] == count
    assert Counter(event["ph"] for event in events if event["ph"] in "st") == {"s": 2, "t": 4}


def test_samples_of_a_request_share_its_arrows():
    step = step_record(0, 1, ("a", "a"))
    ends = [request_record("a", 0.9, sample) for sample in (0, 1)]
    events = written(TraceEvents(1, 0.0), step, ends[0], step_record(1, 1.1, ("a",)), ends[1])
    assert len(named(events, "admit")) == 1
    assert [event.get("flow_out", False) for event in named(events, "request", "b")] == [True, False]


def test_a_request_that_never_ran_is_a_span_without_arrows():
    record = request_record("a", 1, scheduled=None, first_token=None, outcome="error", error='no "room"')
    events = written(TraceEvents(1, 0.0), record)
    (span,) = named(events, "request", "b")
    assert span["args"]["error"] == 'no "room"' and "bind_id" not in span
    assert named(events, "queued", "b") and not named(events, "prefill", "b")


TIMES = st.floats(0, 2)


@st.composite
def records(draw: st.DrawFn) -> StepRecord | RequestRecord:
    """Clocks that disagree, orders that cannot be: a trace opens all the same."""
    if draw(st.booleans()):
        names = ("arrived", "scheduled", "first_token", "ended")
        times = dict(zip(names, draw(st.lists(TIMES, min_size=4, max_size=4)), strict=True))
        missing = draw(st.sampled_from([(), ("first_token",), ("scheduled", "first_token")]))
        return replace(request_record(draw(st.sampled_from("abcde")), 0), **times | dict.fromkeys(missing))
    names = ("schedule_began", "schedule_ended", "began", "ended", "process_began", "process_ended")
    times = dict(zip(names, draw(st.lists(TIMES, min_size=6, max_size=6)), strict=True))
    requests = tuple(draw(st.lists(st.sampled_from("abcde"), max_size=4)))
    seconds = draw(st.lists(st.floats(0, 0.1), min_size=3, max_size=3))
    kernels = draw(st.sampled_from([(), (kernel_times(draw(TIMES), *seconds), kernel_times(draw(TIMES), *seconds))]))
    return replace(step_record(0, 0, requests), kernels=kernels, **times)


@given(st.lists(records(), max_size=8), st.floats(0, 1))
def test_traces_open_whatever_the_clocks_say(made, began):
    written(TraceEvents(1, began), *made)


def test_requests_that_ended_long_ago_are_forgotten(monkeypatch):
    monkeypatch.setattr(trace_events, "_REMEMBERED", 4)
    events = TraceEvents(1, 0.0)
    steps = [step_record(i, 1 + i / 100, (f"r{i}", "always")) for i in range(50)]
    made = written(events, *steps)
    assert len(events._seen) == 4
    assert sum(event["args"]["id"] == "always" for event in named(made, "admit")) == 1


def test_every_written_batch_leaves_a_whole_file(tmp_path):
    path = tmp_path / "out.json"
    with TraceWriter(path) as trace:
        assert events_of(path)
        now = time.perf_counter()
        trace.step(step_record(0, now))
        before = path.stat().st_size
        wait_for(lambda: path.stat().st_size > before)
        wait_for(lambda: path.read_text().endswith("\n]\n"))
        assert len(named(events_of(path), "decode")) == 1
        before = path.stat().st_size
        trace.step(step_record(1, now + 0.1))
        wait_for(lambda: path.stat().st_size > before)
        wait_for(lambda: path.read_text().endswith("\n]\n"))
        assert len(named(events_of(path), "decode")) == 2


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_process_leaves_a_trace_that_opens(tmp_path):
    path = tmp_path / "out.json"
    program = (
        "import sys, time\n"
        "from tests.runtime.test_trace import TraceWriter, step_record\n"
        "trace, now = TraceWriter(sys.argv[1]), time.perf_counter()\n"
        "for i in range(10**9):\n"
        "    trace.step(step_record(i, now + i / 100))\n"
        "    time.sleep(0.001)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=Path(__file__).parents[2])
    try:
        wait_for(lambda: path.exists() and path.stat().st_size > 5000)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert len(named(events_of(path), "decode")) > 10


@pytest.fixture
def stuck_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Writes wait until it is set, but for the first."""
    free, write, first = threading.Event(), os.pwrite, iter([True])

    def pwrite(*args: Any) -> int:
        next(first, None) or free.wait(30)
        return write(*args)

    monkeypatch.setattr(os, "pwrite", pwrite)
    yield free
    free.set()


def test_a_slow_disk_costs_records_and_not_time(tmp_path, stuck_disk):
    trace = TraceWriter(tmp_path / "out.json")
    now = time.perf_counter()
    for i in range(30_000):
        trace.step(step_record(i, now + i / 1000))
    trace.request(request_record("a", now))
    assert trace.dropped_steps > 0 and trace.dropped_requests == 1
    stuck_disk.set()
    trace.close()
    events = events_of(tmp_path / "out.json")
    assert len(named(events, "decode")) == trace.steps == 30_000 - trace.dropped_steps
    assert named(events, "process_labels", "M")[0]["args"]["labels"].startswith(f"{trace.dropped_steps} steps and 1 re")
    assert "could not keep up" in trace.summary


def test_a_full_disk_ends_the_trace_where_it_was_whole(tmp_path, monkeypatch):
    path, write = tmp_path / "out.json", os.pwrite

    def half(file: int, data: Any, offset: int) -> int:
        if len(data) < 1000:
            return write(file, data, offset)
        write(file, data[:500], offset)
        raise OSError(28, "No space left on device")

    now = time.perf_counter()
    trace = TraceWriter(path)
    monkeypatch.setattr(os, "pwrite", half)
    trace.step(step_record(0, now))
    wait_for(lambda: "No space left" in (trace.step(step_record(1, now)) or trace.summary))
    trace.close()
    assert not named(events_of(path), "decode")


def test_a_trace_closes_once_and_takes_nothing_afterwards(tmp_path):
    trace = TraceWriter(tmp_path / "out.json", kernel_times=False)
    assert not trace.kernel_times
    trace.close()
    trace.close()
    trace.step(step_record(0, time.perf_counter()))
    trace.request(request_record("a", time.perf_counter()))
    assert (trace.dropped_steps, trace.dropped_requests) == (1, 1)
    assert named(events_of(tmp_path / "out.json"), "process_labels", "M")[0]["args"] == {"labels": "complete"}


def test_paths_that_hold_no_trace_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing" / "out.json", tmp_path / "pipe", tmp_path):
        with pytest.raises(OptionError, match="cannot be written to"):
            TraceWriter(path)


def test_slices_of_a_step_follow_each_other_as_it_says():
    """The next step is scheduled while this one runs, on a track of its own."""
    first = step_record(0, 1.0, ended=1.01, process_began=1.011, process_ended=1.012)
    second = step_record(1, 1.0105, schedule_began=1.002, schedule_ended=1.003)
    events = written(TraceEvents(1, 0.0), first, second)
    (_, schedule), (step, _) = named(events, "schedule"), named(events, "decode")
    assert step["ts"] < schedule["ts"] < schedule["ts"] + schedule["dur"] < step["ts"] + step["dur"]
    for one, other in pairwise(named(events, "decode")):
        assert one["ts"] + one["dur"] <= other["ts"]
