"""``xllmc passes``: the passes of a compile in order; one of them in full; and their examples, run."""

import json
from dataclasses import fields
from inspect import cleandoc
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...passes.api import Pass
from ..pipeline.examples import ExampleResult, run_examples
from ..pipeline.listing import PassList, pass_list
from ..pipeline.settings import pass_settings
from .pass_options import AsJson, Config, Disabled, Plugins, Settings

FAILED = 1

app = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)


@app.callback()
def passes_command(
    context: typer.Context,
    target: Annotated[str, typer.Option(help="What would be compiled for.")] = "cpu",
    settings: Settings = None,
    disable: Disabled = None,
    plugins: Plugins = True,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the passes in the order they run, with their options."""
    listed = pass_list(target, pass_settings(settings or (), disable or (), plugins, config))
    context.obj = listed
    if context.invoked_subcommand is not None:
        return
    if as_json:
        print(json.dumps({"passes": [described(p, listed) for p in listed.passes]}))
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("pass", "stage", "numerics", "from", "examples", "options"):
        table.add_column(column, no_wrap=True)
    for one in listed.passes:
        options = ", ".join(f"{name}={value!r}" for name, value in one.options.items())
        origin = listed.origins[one.name]
        table.add_row(one.name, one.stage, one.numerics, str(origin), str(len(one.examples) or ""), options)
    Console().print(table)


@app.command("show")
def show_command(
    context: typer.Context, name: Annotated[str, typer.Argument(help="The pass.")], as_json: AsJson = False
) -> None:
    """Say what one pass does, and what it can be told."""
    listed: PassList = context.obj
    (one,) = listed.named([name])
    facts = described(one, listed)
    if as_json:
        print(json.dumps(facts))
        return
    print(f"{one.name}: stage {one.stage}, {one.numerics}, from {listed.origins[one.name]}")
    print(f"\n{facts['doc']}\n")
    for relation in ("before", "after", "counts_as"):
        if facts[relation]:
            print(f"{relation.replace('_', ' ')} {', '.join(facts[relation])}")
    for option in facts["options"]:
        print(f"--set {one.name}.{option['name']}={option['value']!r}  ({option['type']})")


@app.command("test")
def test_command(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Passes; default: all that have examples.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the examples of passes: matches and reasons as declared, and results the same. Exit code 1 if any is not."""
    listed: PassList = context.obj
    chosen = listed.named(names) if names else tuple({p.name: p for p in listed.passes}.values())
    results = [result for one in chosen for result in run_examples(one)]
    failed = [r for r in results if r.fault]
    if as_json:
        print(json.dumps({"examples": len(results), "failed": [r.to_json() for r in failed]}))
    else:
        print_results(results)
    if failed:
        raise typer.Exit(FAILED)


def print_results(results: list[ExampleResult]) -> None:
    console = Console()
    for result in results:
        mark, style = ("failed", "red") if result.fault else ("ok", "")
        console.print(Text.assemble((f"{mark:8}", style), f"{result.pass_name}: {result.label}"))
        if result.fault:
            console.print(f"        {result.fault}", markup=False, highlight=False)
    console.print(f"{len(results)} examples, {sum(bool(r.fault) for r in results)} failed")


def described(one: Pass, listed: PassList) -> dict[str, Any]:
    return {
        "name": one.name,
        "stage": one.stage,
        "numerics": one.numerics,
        "tolerance": one.tolerance,
        "before": list(one.before),
        "after": list(one.after),
        "counts_as": list(one.counts_as),
        "plugin": str(listed.origins[one.name]),
        "examples": len(one.examples),
        "options": [
            {"name": f.name, "type": getattr(f.type, "__name__", str(f.type)), "value": getattr(one, f.name)}
            for f in fields(one)
        ],
        "doc": cleandoc(one.__doc__ or ""),
    }
