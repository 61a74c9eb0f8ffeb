"""The pass manager: every pass is a transaction. Copy, run, verify, compare; commit, or stop and say why."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...passes.api import STAGES, LimitReached, Pass, Rewriter, Site
from ...runtime.artifact.errors import XllmcError
from ...runtime.artifact.schema import PassRecord
from ..check.compare import compare
from ..cost import CostModel
from ..ir.program import Program
from ..ir.region import Region
from ..ir.text import print_program
from ..ir.verify import VerificationError, verify

Verification = Literal["numeric", "structure", "off"]
"""What a pass's result must stand: the verifier and a comparison of what it replaced; the verifier alone; nothing."""


class PassError(XllmcError):
    """A pass broke the program or changed its numbers. Names the pass and the site."""

    def __init__(self, message: str, name: str, before: str, site: str = "") -> None:
        super().__init__(message)
        self.name = name
        self.site = site
        """Both sides of the replacement, where it came to one."""
        self.reproducer = f"{message}\n\n{site}\n\n{before}"
        """The fault, the site, and the program before the pass, in text form."""


@dataclass(frozen=True)
class PassReport:
    name: str
    stage: str
    numerics: str
    options: dict[str, Any]
    counts_as: tuple[str, ...]
    sites: tuple[Site, ...]
    """Where it matched, and where it nearly did."""
    regions: int
    """Different replacements that were compared numerically."""
    calls: int
    """Calls in the forward graph afterwards."""
    seconds: float
    check_seconds: float
    skipped: str = ""
    """Why it was left out, where it failed and was allowed to."""

    @property
    def matches(self) -> int:
        return sum(s.matched for s in self.sites)

    @property
    def near_misses(self) -> tuple[str, ...]:
        skipped = (f"skipped: {self.skipped}",) if self.skipped else ()
        return (*skipped, *(str(s) for s in self.sites if not s.matched))

    def record(self, plugin: str = "") -> PassRecord:
        return PassRecord(
            name=self.name,
            stage=self.stage,
            numerics=self.numerics,
            matches=self.matches,
            near_misses=self.near_misses,
            options=self.options,
            plugin=plugin,
        )


@dataclass(frozen=True)
class RunOptions:
    """How passes are run."""

    verification: Verification = "numeric"
    skip_failed: bool = False
    """Leave out a pass that fails, instead of stopping."""
    costs: CostModel | None = None
    """What gains are predicted with; None: the machine whose profile ships with xllmc."""


def run(
    program: Program,
    passes: Sequence[Pass],
    options: RunOptions | None = None,
    after: Callable[[PassReport, Program], None] | None = None,
) -> tuple[Program, list[PassReport]]:
    """Run the passes in order. The given program is not changed. ``after`` sees each report as it comes.

    A pass that fails stops the run with PassError; with ``skip_failed`` it is left out, and its report says so.
    """
    options = options or RunOptions()
    options = replace(options, costs=options.costs or CostModel.even_handed(program))
    reports = []
    for one in passes:
        try:
            program, report = run_pass(program, one, options)
        except PassError as error:
            if not options.skip_failed:
                raise
            report = made_report(one, program, skipped=str(error))
        reports.append(report)
        if after:
            after(report, program)
    return program, reports


def run_pass(
    program: Program, one: Pass, options: RunOptions | None = None, limit: int | None = None
) -> tuple[Program, PassReport]:
    """One transaction: the new program and what happened; PassError leaves ``program`` as it was.

    ``limit``: stop the pass after it has matched so many sites.
    """
    options = options or RunOptions()
    began = time.perf_counter()
    work = program.copy()
    sites: list[Site] = []
    regions: dict[str, Region] = {}
    for function in work.functions.values():
        left = None if limit is None else limit - sum(s.matched for s in sites)
        rewriter = Rewriter(work, function, left, options.costs)
        try:
            one.run(rewriter)
        except LimitReached:
            rewriter.erase_dead()
        except Exception as error:  # a pass is foreign code: whatever it raises is its fault, by name
            place = f" after {rewriter.sites[-1].where}" if rewriter.sites else ""
            message = f"pass {one.name} failed{place}: {type(error).__name__}: {error}"
            raise PassError(message, one.name, print_program(program)) from error
        if options.verification != "off" and (change := rewriter.ledger.unrecorded()):
            message = f"pass {one.name} changed the program outside of rewriter.replace, unseen by any check: {change}"
            raise PassError(message, one.name, print_program(program), print_program(work))
        sites += rewriter.sites
        regions |= rewriter.regions
    work.stage = max(work.stage, one.stage, key=STAGES.index)
    if options.verification != "off":
        try:
            verify(work)
        except VerificationError as error:
            message = f"pass {one.name} made an invalid program: {error}"
            raise PassError(message, one.name, print_program(program), print_program(work)) from error
    drop_unread_weights(work)
    ran = time.perf_counter()
    if options.verification == "numeric":
        check_regions(program, one, work, regions)
    checked = time.perf_counter()
    compared = len(regions) if options.verification == "numeric" else 0
    return work, made_report(one, work, tuple(sites), compared, ran - began, checked - ran)


def check_regions(program: Program, one: Pass, work: Program, regions: dict[str, Region]) -> None:
    """Compare both sides of every replacement; PassError names the first place where they differ."""
    for region in regions.values():
        try:
            mismatch = compare(region, work.constants, exact=one.numerics == "exact", lossy=one.tolerance)
        except Exception as error:  # ops may be foreign code too
            message = f"pass {one.name} put something at {region.where} that cannot be run: {error}"
            raise PassError(message, one.name, print_program(program), region.key) from error
        if mismatch:
            message = f"pass {one.name} ({one.numerics}) changed results at {mismatch}"
            raise PassError(message, one.name, print_program(program), mismatch.reproducer)


def made_report(
    one: Pass,
    program: Program,
    sites: tuple[Site, ...] = (),
    regions: int = 0,
    seconds: float = 0.0,
    check_seconds: float = 0.0,
    skipped: str = "",
) -> PassReport:
    return PassReport(
        one.name,
        one.stage,
        one.numerics,
        one.options,
        one.counts_as,
        sites,
        regions,
        len(program.forward.calls),
        seconds,
        check_seconds,
        skipped,
    )


def drop_unread_weights(program: Program) -> None:
    read = {n.target for f in program.functions.values() for n in f.graph.nodes if n.op == "get_attr"}
    program.weights = {name: w for name, w in program.weights.items() if name in read}
