"""``--trace``: every step, kernel and request of an engine, in a file that ui.perfetto.dev opens.

    with TraceWriter("out.json") as trace:
        engine.observe(trace)
        ...
        engine.unobserve(trace)
    print(trace.summary)

See ``trace_events`` for what is in it.
"""

import contextlib
import os
import queue
import threading
import time
from pathlib import Path
from types import TracebackType

from .artifact.errors import OptionError
from .observe import RequestRecord, StepRecord
from .trace_events import TraceEvents

_QUEUED = 4096
"""Records that may wait to be written; more are dropped, and counted."""
_BATCH_BYTES = 1 << 18
_BATCH_SECONDS = 0.25
"""A batch is written when it is this large, or this old."""
_SEPARATOR, _END = ",\n", "\n]\n"


class TraceWriter:
    """An Observer that writes a trace, from a thread of its own: the engine waits neither for the disk nor for room.

    The end of the list is written again with every batch, so the file can be opened at any time: an interrupted
    process leaves a complete one (with ``close``), a killed one all but its last quarter of a second. Only where the
    kill falls into a write may the list lack its end, which the format permits and not every viewer does.
    """

    def __init__(self, path: str | Path, *, kernel_times: bool = True) -> None:
        """Begin a trace at ``path``, in the place of what was there. OptionError where it cannot be written.

        ``kernel_times``: have every launch timed, which costs a few percent; without, there is no kernels track.
        """
        self.kernel_times = kernel_times
        self.path = Path(path)
        self.steps = 0
        """Steps and requests written so far."""
        self.requests = 0
        self.dropped_steps = 0
        self.dropped_requests = 0
        self._failure: OSError | None = None
        self._events = TraceEvents(os.getpid(), time.perf_counter())
        self._size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK  # Not to wait for a pipe's reader.
        try:
            self._file = os.open(self.path, flags, 0o644)
            try:
                self._put("[\n" + _SEPARATOR.join(self._events.opening()) + _END)
            except OSError:
                os.close(self._file)
                raise
        except OSError as error:
            raise OptionError(f"the trace cannot be written to {path}: {error.strerror}; give a file") from error
        self._records: queue.Queue[StepRecord | RequestRecord | None] = queue.Queue(_QUEUED)
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="xllmc-trace", daemon=True)
        self._thread.start()

    def __enter__(self) -> "TraceWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def step(self, record: StepRecord) -> None:
        """Take note of a step; at once, whatever the disk does."""
        if not self._noted(record):
            self.dropped_steps += 1

    def request(self, record: RequestRecord) -> None:
        """Take note of a request's end."""
        if not self._noted(record):
            self.dropped_requests += 1

    def close(self) -> None:
        """Write what is left, and finish the file. What is noted afterwards is dropped."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            while self._thread.is_alive():
                with contextlib.suppress(queue.Full):
                    self._records.put(None, timeout=_BATCH_SECONDS)
                    self._thread.join()
            os.close(self._file)

    @property
    def summary(self) -> str:
        """One line: what was written, and what is missing."""
        told = f"{self.path}: {self.steps} steps, {self.requests} requests"
        if self.dropped_steps or self.dropped_requests:
            told += f"; {self.dropped_steps} steps and {self.dropped_requests} requests are missing"
            told += f", {self._failure.strerror}" if self._failure else ", writing could not keep up"
        return told

    def _noted(self, record: StepRecord | RequestRecord) -> bool:
        if self._closed or self._failure:
            return False
        try:
            self._records.put_nowait(record)
        except queue.Full:
            return False
        return True

    def _write(self) -> None:
        """The thread: records to lines, lines to batches, until ``close``."""
        lines: list[str] = []
        size, due = 0, 0.0
        while True:
            try:
                record = self._records.get(timeout=max(0.0, due - time.monotonic()) if lines else None)
            except queue.Empty:
                pass
            else:
                if record is None:
                    break
                if not lines:
                    due = time.monotonic() + _BATCH_SECONDS
                made = self._lines_of(record)
                lines += made
                size += sum(map(len, made))
                time.sleep(0)  # Lets the engine's threads have the interpreter, which they would wait for up to 5 ms.
            if size >= _BATCH_BYTES or time.monotonic() >= due:
                self._append(lines)
                lines, size = [], 0
        self._append(lines + self._events.closing(self.dropped_steps, self.dropped_requests))

    def _lines_of(self, record: StepRecord | RequestRecord) -> list[str]:
        if isinstance(record, StepRecord):
            self.steps += 1
            return self._events.step(record)
        self.requests += 1
        return self._events.request(record)

    def _append(self, lines: list[str]) -> None:
        """Over the end of the list, and the end again. After a fault nothing more is written."""
        if not lines or self._failure:
            return
        try:
            self._put(_SEPARATOR + _SEPARATOR.join(lines) + _END)
        except OSError as error:
            self._failure = error
            with contextlib.suppress(OSError):
                os.pwrite(self._file, _END.encode(), self._size - len(_END))
                os.ftruncate(self._file, self._size)

    def _put(self, text: str) -> None:
        data = memoryview(text.encode())
        start = max(0, self._size - len(_END))
        written = 0
        while written < len(data):
            written += os.pwrite(self._file, data[written:], start + written)
        self._size = start + len(data)
