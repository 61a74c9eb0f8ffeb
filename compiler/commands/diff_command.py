"""``xllmc diff``: what differs between two engines or two graphs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text as Styled

from ..diff.changes import Comparison, Facts
from ..diff.engines import compare
from ..diff.page import page

STYLES = {"-": "red", "+": "green", "@": "cyan", "~": "yellow"}
DIFFERENT = 1


def diff_command(
    before: Annotated[Path, typer.Argument(metavar="A", help="An engine directory, or a file of its graph/.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
    graph: Annotated[str | None, typer.Option(help="The stage to compare; default: the last both have.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with both sides beside each other.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what differs between two engines or graphs. Exit code 1 if anything does, as diff does."""
    comparison = compare(before, after, graph)
    if html is not None:
        html.write_text(page(comparison), encoding="utf-8")
    if as_json:
        print(json.dumps(comparison.to_json()))
    else:
        print_lines(comparison_lines(comparison))
    if not comparison.equal:
        raise typer.Exit(DIFFERENT)


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """What a terminal shows; nothing where nothing differs."""
    if comparison.equal:
        return
    yield f"--- {comparison.before}"
    yield f"+++ {comparison.after}"
    for part in comparison.facts:
        yield f"@@ {part.title} @@"
        yield from fact_lines(part)
    for text in comparison.texts:
        yield from text.unified()


def fact_lines(part: Facts) -> Iterator[str]:
    for change in part.changes:
        if change.before is None:
            yield f"+{change.what}: {change.after}"
        elif change.after is None:
            yield f"-{change.what}: {change.before}"
        else:
            yield f"~{change.what}: {change.before} -> {change.after}"


def print_lines(lines: Iterator[str]) -> None:
    """Coloured by their first character on a terminal, plain elsewhere."""
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(Styled(line, STYLES.get(line[:1], "")))
