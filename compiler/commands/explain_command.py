"""``xllmc explain``: what each pass did to a model, and where and why it did not."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from ...runtime.artifact.errors import OptionError, XllmcError
from ...runtime.cost_command import measured_steps
from ..pipeline.replay import Replay, replay
from ..pipeline.run import PassReport
from ..report.explain import explain_html
from ..report.steps import Costs, NearMiss, Step


def explain_command(
    engine: Annotated[Path, typer.Argument(help="An engine directory.")],
    only: Annotated[str | None, typer.Option("--pass", help="Only this pass.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write everything as one page for a browser.")] = None,
    measured: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Time the engine's kernels here, for the page.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show every site of every pass by its module in the model: matched, or why not."""
    replayed = replay(engine)
    reports = [report for report, _ in replayed.steps]
    if only is not None:
        reports = [r for r in reports if r.name == only]
        if not reports:
            ran = dict.fromkeys(r.name for r, _ in replayed.steps)
            raise OptionError(f"--pass must be one of {', '.join(ran)}, got {only!r}")
    if html is not None:
        explain_html(engine, steps(replayed), times(engine) if measured else None, html)
    if as_json:
        declared = replayed.manifest.declared_matches
        print(json.dumps({"engine": str(engine), "declared": declared, "passes": [described(r) for r in reports]}))
        return
    for report in reports:
        print("\n".join(lines(report, replayed.manifest.declared_matches, every=only is not None)))
    if html is not None:
        print(f"written to {html}")


def times(engine: Path) -> Costs | None:
    """Microseconds of each kernel, predicted and measured; None, and a word on stderr, where the engine cannot run."""
    try:
        reports, _, _ = measured_steps(engine)
    except XllmcError as problem:
        print(f"note: no times on the page: {problem}", file=sys.stderr)
        return None
    return {r.name: {k.kernel: (1e6 * k.predicted, 1e6 * k.measured) for k in r.kernels} for r in reports}


def described(report: PassReport) -> dict:
    return report.record().model_dump(exclude={"near_misses"}) | {
        "sites": [{"where": s.where, "matched": s.matched, "reason": s.reason} for s in report.sites]
    }


def lines(report: PassReport, declared: Mapping[str, int], every: bool) -> Iterator[str]:
    """One pass: matches by module (layers folded unless ``every``), then near misses with reasons."""
    wanted = f", {declared[report.name]} declared by the family" if report.name in declared else ""
    yield f"{report.name} ({report.stage}, {report.numerics}): {report.matches} matches{wanted}"
    matched = [s.where for s in report.sites if s.matched]
    for where, count in (folded(matched) if not every else {w: matched.count(w) for w in matched}).items():
        yield f"  matched  {where}" + (f"  x {count}" if count > 1 else "")
    for site in report.sites:
        if not site.matched:
            yield f"  missed   {site}"


def folded(places: list[str]) -> dict[str, int]:
    """Places with their layer's number left out, and how often each occurs."""
    counts: dict[str, int] = {}
    for place in places:
        general = ".".join("*" if part.isdigit() else part for part in place.split("."))
        counts[general] = counts.get(general, 0) + 1
    return counts


def steps(replayed: Replay) -> list[Step]:
    """The passes as the page takes them."""
    return [
        Step(
            name=report.name,
            stage=report.stage,
            numerics=report.numerics,
            matches=report.matches,
            sites=tuple(s.where for s in report.sites if s.matched),
            near_misses=tuple(NearMiss(s.where, s.reason) for s in report.sites if not s.matched),
            seconds=report.seconds,
            program=program,
        )
        for report, program in replayed.steps
    ]
