"""How a compile shows that it goes on: bars on a terminal, nothing in a pipe."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ..pipeline.run import PassReport
from ..progress import Estimate, Listener, Silent


@contextmanager
def unwinding_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as an exit does, so that what is temporary is removed."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def listening() -> Iterator[Listener]:
    """Progress bars on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield Silent()
        return
    columns = (TextColumn("{task.description:>8}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[what]}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Bars(progress)


class Bars:
    """A listener that draws one bar for each stage."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task: TaskID | None = None

    def estimated(self, estimate: Estimate) -> None:
        self.progress.console.print(estimate_line(estimate), highlight=False)

    def stage(self, name: str, total: int) -> None:
        self.finish()
        self.task = self.progress.add_task(name, total=total, what="")

    def advanced(self, units: int, what: str) -> None:
        if self.task is not None:
            self.progress.update(self.task, advance=units, what=what)

    def passed(self, report: PassReport) -> None:
        pass

    def finish(self) -> None:
        if self.task is not None:
            total = self.progress.tasks[self.task].total
            self.progress.update(self.task, completed=total, what="")


def estimate_line(estimate: Estimate) -> str:
    return (
        f"engine {size(estimate.engine_bytes)}, up to {size(estimate.memory_bytes)} of memory, "
        f"about {estimate.seconds:.0f} s"
    )


def size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
