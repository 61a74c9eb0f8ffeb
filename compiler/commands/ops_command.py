"""``xllmc ops``: the op set."""

import json
from itertools import groupby
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...runtime.artifact.errors import OptionError
from ..op_pages import reference, rules, targets, tolerance, wrapped_signature
from ..op_reference import OpEntry, entries, entry_named

WIDE = 160
"""Columns outside of a terminal."""
LONGEST_OPERANDS, TRAITS = 22, 44
"""Columns of the list: what does not fit goes on in the next line."""
ROOMY = 120
"""Columns that a terminal must have for the list to show traits."""


def ops_command(
    name: Annotated[str | None, typer.Argument(help="Show this op in full.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the whole reference.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: one object for NAME, or a list.")] = False,
) -> None:
    """Show the op set: what every op means, promises and costs, and who computes it."""
    if markdown and (name or as_json):
        raise OptionError("--markdown prints the whole reference; leave out the name and --json")
    if markdown:
        print(reference(), end="")
    elif as_json:
        print(json.dumps(entry_named(name).to_json() if name else [e.to_json() for e in entries()]))
    elif name:
        show(entry_named(name))
    else:
        show_list()


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDE)
    return console


def show(e: OpEntry) -> None:
    """One op in full."""
    console = _console()
    for line in wrapped_signature(e):
        console.print(Text(line, "bold"), soft_wrap=True)
    console.print(Text(f"\n{e.doc}\n"), soft_wrap=True)
    table = Table.grid(padding=(0, 2))
    facts = {
        "module": e.module,
        "traits": ", ".join(e.traits) or "none",
        "tolerance": tolerance(e),
        "rules": rules(e),
        "targets": targets(e),
    }
    for what, value in facts.items():
        table.add_row(Text(what, "dim"), Text(value))
    console.print(table)


def show_list() -> None:
    """One table a module."""
    console = _console()
    roomy = console.width >= ROOMY
    width = max(len(f"{e.name}()") for e in entries()) + LONGEST_OPERANDS
    for module, found in groupby(entries(), key=lambda e: e.module):
        console.print(Text(module, "bold"))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 1))
        table.add_column(style="cyan", width=width)
        table.add_column(ratio=1)
        if roomy:
            table.add_column(style="dim", width=TRAITS)
        for e in found:
            call = f"{e.name}({', '.join(o.name for o in e.operands)})"
            table.add_row(call, Text(e.summary.replace("``", "")), *([Text(", ".join(e.traits))] if roomy else []))
        console.print(table)
    console.print("xllmc ops NAME shows one op in full.", style="dim")
