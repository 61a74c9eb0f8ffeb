"""``xllmc opt``: run passes over a program in text form."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ...passes.api import Pass
from ...runtime.artifact.errors import OptionError
from ..ir.parse import parse_program
from ..ir.program import Program
from ..ir.text import diff_programs, print_program
from ..ir.verify import VerificationError, verify
from ..ops import OPS
from ..pipeline.listing import pass_list
from ..pipeline.run import PassError, PassReport, RunOptions, run
from ..pipeline.settings import pass_settings
from .pass_options import AsJson, Config, Plugins, Settings


def opt_command(
    graph: Annotated[Path, typer.Argument(help="A program in text form, as in an engine's graph/; - is stdin.")],
    passes: Annotated[
        str | None, typer.Option("--passes", "-p", help="Passes in order, with commas; default: all.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the result; default: stdout.")
    ] = None,
    check: Annotated[str, typer.Option(help="What each result must stand: numeric, structure or off.")] = "numeric",
    print_before: Annotated[
        str, typer.Option(help="Print the program before these passes (with commas, or all), on stderr.")
    ] = "",
    print_after: Annotated[
        str, typer.Option(help="Print the program after these passes (with commas, or all), on stderr.")
    ] = "",
    print_diff: Annotated[bool, typer.Option("--print-diff", help="Print what each pass changed, on stderr.")] = False,
    target: Annotated[str, typer.Option(help="Whose lowering passes are known.")] = "cpu",
    settings: Settings = None,
    plugins: Plugins = True,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Run passes over a program in text form, and print what becomes of it."""
    if check not in ("numeric", "structure", "off"):
        raise OptionError(f"--check must be numeric, structure or off, got {check!r}")
    listed = pass_list(target, pass_settings(settings or (), (), plugins, config))  # first: plugins bring ops
    program = read_program(graph)
    chosen = listed.named([n.strip() for n in passes.split(",") if n.strip()]) if passes else listed.passes
    before, after = shown(print_before, chosen, "--print-before"), shown(print_after, chosen, "--print-after")
    last = [program]

    def ran(report: PassReport, result: Program) -> None:
        if report.name in before:
            print(f"// before {report.name}\n{print_program(last[0])}", file=sys.stderr)
        if report.name in after:
            print(f"// after {report.name}\n{print_program(result)}", file=sys.stderr)
        if print_diff:
            print(f"// {report.name}\n{diff_programs(last[0], result)}", file=sys.stderr)
        if not as_json:
            print(f"{report.name}: {report.matches} matches", *report.near_misses, sep="\n  nearly: ", file=sys.stderr)
        last[0] = result

    try:
        result, reports = run(program, chosen, RunOptions(verification=check), ran)  # type: ignore[arg-type]
    except PassError as error:
        if error.site:
            print(error.site, file=sys.stderr)
        raise
    text = print_program(result)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    if as_json:
        records = [r.record().model_dump() | {"sites": [s.where for s in r.sites if s.matched]} for r in reports]
        print(json.dumps({"passes": records, "program": text}))
    elif out is None:
        print(text, end="")


def read_program(graph: Path) -> Program:
    """The verified program in a file; GraphSyntaxError or OptionError say what is wrong with it."""
    try:
        text = sys.stdin.read() if str(graph) == "-" else graph.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{graph} cannot be read: {error}") from error
    program = parse_program(text, OPS)
    try:
        verify(program)
    except VerificationError as error:
        raise OptionError(f"{graph} is not a valid program: {error}") from error
    return program


def shown(names: str, passes: tuple[Pass, ...], option: str) -> set[str]:
    known = {p.name for p in passes}
    wanted = known if names == "all" else {n.strip() for n in names.split(",") if n.strip()}
    if unknown := wanted - known:
        raise OptionError(f"{option} names {', '.join(sorted(unknown))}, which does not run; it may name all")
    return wanted
