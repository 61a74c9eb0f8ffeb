"""Steps and requests as lines of the JSON trace event format, which ui.perfetto.dev and chrome://tracing open.

Tracks: ``steps``; ``kernels`` beneath them; ``schedule`` and ``process``, the host's work before and after each step;
an asynchronous span for every sample of a request, with ``queued``, ``prefill`` and ``decode`` inside; counters.
Arrows lead from a request to the ``schedule`` slice that admitted it, and from there through all its steps.
"""

import json
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from .observe import KernelTimes, RequestRecord, StepRecord

TRACKS = {"steps": 1, "kernels": 2, "schedule": 3, "process": 4}
"""Thread ids of the tracks, as they are listed."""

_REMEMBERED = 65536
"""Requests whose arrows go on: beyond them, those that were in a step longest ago are forgotten."""
_SPAN_FLOWS = 1 << 32
"""Arrows out of a span have ids from here on. Those between slices are another kind, which viewers number from 0."""


@dataclass
class _Seen:
    """A request that was in a step: times in nanoseconds since the trace began."""

    number: int
    began: int
    ended: int
    steps: int = 0
    reported: bool = False
    """One of its samples has ended, and its span was made."""


class TraceEvents:
    """Makes lines of JSON from records, each an event. Keeps what it needs of requests that run, and not more."""

    def __init__(self, pid: int, began: float) -> None:
        """``began``: seconds of ``time.perf_counter`` that are 0 in the trace. What was before counts as then."""
        self._pid = pid
        self._began = began
        self._cursors = dict.fromkeys(TRACKS, 0)
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._numbers = 0
        self._spans = 0

    def opening(self) -> list[str]:
        """Names of the tracks."""
        lines = [self._event("M", name="process_name", args={"name": "xllmc"})]
        for name, tid in TRACKS.items():
            lines.append(self._event("M", name="thread_name", tid=tid, args={"name": name}))
            lines.append(self._event("M", name="thread_sort_index", tid=tid, args={"sort_index": tid}))
        return lines

    def step(self, record: StepRecord) -> list[str]:
        """Slices on all tracks, counters, and the arrows of its requests."""
        scheduled = self._clamped("schedule", record.schedule_began, record.schedule_ended)
        began, ended = self._clamped("steps", record.began, record.ended)
        processed = self._clamped("process", record.process_began, record.process_ended)
        prompts = record.tokens - record.decoding
        lines = [
            self._slice("schedule", "schedule", *scheduled, step=record.index),
            *self._admitted(record.request_ids, *scheduled),
            self._slice(
                "steps",
                "mixed" if record.decoding and prompts else "decode" if record.decoding else "prefill",
                began,
                ended,
                step=record.index,
                tokens=record.tokens,
                sequences=record.sequences,
                rows=record.rows,
                decoding=record.decoding,
                budget=record.budget,
            ),
            self._slice("process", "process", *processed, step=record.index),
            self._event("C", name="requests", ts=began, args={"running": record.running, "waiting": record.waiting}),
            self._event("C", name="tokens", ts=began, args={"prompt": prompts, "decoding": record.decoding}),
        ]
        for request_id in dict.fromkeys(record.request_ids):
            seen = self._seen[request_id]
            seen.steps += 1
            seen.ended = ended
            lines.append(self._arrow("t", "steps", (began + ended) // 2, seen.number))
        for times in record.kernels:
            lines.extend(self._kernels(times))
        return lines

    def request(self, record: RequestRecord) -> list[str]:
        """The span of a sample that ended, with its phases."""
        seen = self._seen.get(record.request_id)
        args = {
            "id": record.request_id,
            "sample": record.sample_index,
            "key": record.key,
            "priority": record.priority,
            "outcome": record.outcome,
            "error": record.error,
            "steps": seen.steps if seen else 0,
            **record.usage._asdict(),
        }
        bounds = [
            ("queued", record.arrived),
            ("prefill", record.scheduled),
            ("decode", record.first_token),
            ("", record.ended),
        ]
        reached = [(name, self._nanoseconds(at)) for name, at in bounds if at is not None]
        flow = seen.number if seen and not seen.reported else None
        if seen:
            seen.reported = True
        return self._span(reached, args, flow)

    def closing(self, dropped_steps: int, dropped_requests: int) -> list[str]:
        """Spans of requests that have not ended, as far as their steps tell; and what the trace lacks."""
        lines = []
        for request_id, seen in self._seen.items():
            if not seen.reported:
                args = {"id": request_id, "outcome": "unfinished", "steps": seen.steps}
                lines.extend(self._span([("running", seen.began), ("", seen.ended)], args, seen.number))
        label = "complete"
        if dropped_steps or dropped_requests:
            label = f"{dropped_steps} steps and {dropped_requests} requests are missing: writing could not keep up"
        lines.append(self._event("M", name="process_labels", args={"labels": label}))
        return lines

    def _admitted(self, request_ids: tuple[str, ...], began: int, ended: int) -> list[str]:
        """Slices within ``schedule``, one for each request that is seen for the first time."""
        fresh = []
        for request_id in dict.fromkeys(request_ids):
            if request_id in self._seen:
                self._seen.move_to_end(request_id)
            else:
                self._numbers += 1
                self._seen[request_id] = _Seen(self._numbers, began, began)
                fresh.append(request_id)
        # Never those of this very step, which were moved to the end.
        while len(self._seen) > max(_REMEMBERED, len(request_ids)):
            self._seen.popitem(last=False)
        lines = []
        edges = [began + (ended - began) * i // max(1, len(fresh)) for i in range(len(fresh) + 1)]
        for request_id, (start, stop) in zip(fresh, pairwise(edges), strict=True):
            number = self._seen[request_id].number
            flow = {"bind_id": hex(_SPAN_FLOWS + number), "flow_in": True}
            lines.append(self._slice("schedule", "admit", start, stop, flow, id=request_id))
            lines.append(self._arrow("s", "schedule", (start + stop) // 2, number))
        return lines

    def _span(self, reached: list[tuple[str, int]], args: dict[str, Any], flow: int | None) -> list[str]:
        """``reached``: phases with their beginnings, and the end. ``flow``: number of the arrow out of the span."""
        self._spans += 1
        shared: dict[str, Any] = {"cat": "request", "id": hex(self._spans)}
        out = {} if flow is None else {"bind_id": hex(_SPAN_FLOWS + flow), "flow_out": True}
        ends = list(accumulate((at for _, at in reached), max))
        told = {name: value for name, value in args.items() if value not in (None, "")}
        lines = [self._event("b", name="request", ts=ends[0], args=told, **shared, **out)]
        for (name, _), (start, stop) in zip(reached[:-1], pairwise(ends), strict=True):
            lines.append(self._event("b", name=name, ts=start, **shared))
            lines.append(self._event("e", name=name, ts=stop, **shared))
        lines.append(self._event("e", name="request", ts=ends[-1], **shared))
        return lines

    def _kernels(self, times: KernelTimes) -> list[str]:
        """A slice for the function, and one within for each launch."""
        began = max(self._nanoseconds(times.began), self._cursors["kernels"])
        edges = began + np.rint(np.cumsum(np.concatenate([[0.0], times.seconds])) * 1e9).astype(np.int64)
        self._cursors["kernels"] = int(edges[-1])
        values = np.stack([edges[:-1], np.diff(edges)], axis=1).ravel() / 1e3
        launches = _launch_lines(self._pid, times.origins, times.kernels) % tuple(values.tolist())
        function = self._slice("kernels", times.function, began, int(edges[-1]), launches=len(times.kernels))
        return [function, *launches.splitlines()]

    def _clamped(self, track: str, began: float, ended: float) -> tuple[int, int]:
        """In nanoseconds, not before the end of the track's last slice: what overlaps by a tick would not open."""
        start = max(self._nanoseconds(began), self._cursors[track])
        stop = max(self._nanoseconds(ended), start)
        self._cursors[track] = stop
        return start, stop

    def _nanoseconds(self, seconds: float) -> int:
        return max(0, round((seconds - self._began) * 1e9))

    def _slice(
        self, track: str, name: str, began: int, ended: int, flow: dict[str, Any] | None = None, **args: Any
    ) -> str:
        dur = (ended - began) / 1e3
        return self._event("X", name=name, tid=TRACKS[track], ts=began, dur=dur, args=args, **(flow or {}))

    def _arrow(self, phase: str, track: str, at: int, number: int) -> str:
        """Written by hand: a step may have more of these than of all else."""
        place = f'"pid":{self._pid},"tid":{TRACKS[track]},"ts":{at / 1e3:.3f}'
        return f'{{"ph":"{phase}",{place},"cat":"request","name":"request","id":{number}}}'

    def _event(self, phase: str, *, ts: int | None = None, **fields: Any) -> str:
        """``ts``: nanoseconds; the format has microseconds."""
        time = {} if ts is None else {"ts": ts / 1e3}
        return _ENCODE({"ph": phase, "pid": self._pid, **time, **fields})


_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


@lru_cache(maxsize=16)
def _launch_lines(pid: int, origins: tuple[str, ...], kernels: tuple[str, ...]) -> str:
    """Lines with two gaps each, for the time and the duration in microseconds. Encoded once, since there are many."""
    lines = []
    for origin, kernel in zip(origins, kernels, strict=True):
        fixed = {"ph": "X", "pid": pid, "tid": TRACKS["kernels"], "name": origin, "args": {"kernel": kernel}}
        lines.append(_ENCODE(fixed)[:-1].replace("%", "%%") + ',"ts":%.3f,"dur":%.3f}')
    return "\n".join(lines)
