"""Progress of a run, for someone who watches."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .records import Record
from .session import Watch


@contextmanager
def progress() -> Iterator[Watch]:
    """A bar for each run on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda what, total: lambda record: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    # Drawn twice a second: the client shares its thread with the drawing, and maybe its cores with the server.
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=2) as bars:

        def watch(what: str, total: int) -> Callable[[Record], None]:
            for earlier in bars.task_ids:
                bars.remove_task(earlier)
            task, failed = bars.add_task(what, total=total, failed=""), 0

            def on_record(record: Record) -> None:
                nonlocal failed
                failed += record.failure is not None
                bars.update(task, advance=1, failed=f"{failed} failed" if failed else "")

            return on_record

        yield watch
