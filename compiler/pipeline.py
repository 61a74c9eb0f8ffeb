"""The pass manager: every pass is a transaction. Copy, run, verify, compare; commit, or stop and say why."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..passes.api import STAGES, Pass, Rewriter
from ..runtime.artifact.errors import XllmcError
from ..runtime.artifact.schema import PassRecord
from .check import compare
from .ir.program import Program
from .ir.region import Region
from .ir.text import print_program
from .ir.verify import VerificationError, verify


class PassError(XllmcError):
    """A pass broke the program or changed its numbers. Names the pass and the site."""

    def __init__(self, message: str, name: str, before: str, site: str = "") -> None:
        super().__init__(message)
        self.name = name
        self.reproducer = f"{message}\n\n{site}\n\n{before}"
        """The fault, both sides of the replacement, and the program before the pass, in text form."""


@dataclass(frozen=True)
class PassReport:
    name: str
    stage: str
    numerics: str
    matches: int
    near_misses: tuple[str, ...]
    regions: int
    """Different replacements that were compared numerically."""
    calls: int
    """Calls in the forward graph afterwards."""
    seconds: float
    check_seconds: float

    def record(self) -> PassRecord:
        return PassRecord(
            name=self.name,
            stage=self.stage,
            numerics=self.numerics,
            matches=self.matches,
            near_misses=self.near_misses,
        )


def run(
    program: Program,
    passes: Sequence[Pass],
    after: Callable[[PassReport, Program], None] | None = None,
    skip_failed: bool = False,
) -> tuple[Program, list[PassReport]]:
    """Run the passes in order. The given program is not changed. ``after`` sees each report as it comes.

    A pass that fails stops the run with PassError; with ``skip_failed`` it is left out, and its report says so.
    """
    reports = []
    for one in passes:
        try:
            program, report = run_pass(program, one)
        except PassError as error:
            if not skip_failed:
                raise
            report = skipped(program, one, error)
        reports.append(report)
        if after:
            after(report, program)
    return program, reports


def run_pass(program: Program, one: Pass) -> tuple[Program, PassReport]:
    """One transaction: the new program and what happened; PassError leaves ``program`` as it was."""
    began = time.perf_counter()
    work = program.copy()
    matches = 0
    misses: list[str] = []
    regions: dict[str, Region] = {}
    try:
        for function in work.functions.values():
            rewriter = Rewriter(work, function)
            report = one.run(rewriter)
            matches += report.matches
            misses += report.near_misses
            regions |= rewriter.regions
    except Exception as error:  # a pass is foreign code: whatever it raises is its fault, by name
        message = f"pass {one.name} failed: {type(error).__name__}: {error}"
        raise PassError(message, one.name, print_program(program)) from error
    work.stage = max(work.stage, one.stage, key=STAGES.index)
    try:
        verify(work)
    except VerificationError as error:
        message = f"pass {one.name} made an invalid program: {error}"
        raise PassError(message, one.name, print_program(program), print_program(work)) from error
    drop_unread_weights(work)
    ran = time.perf_counter()
    for region in regions.values():
        try:
            mismatch = compare(region, work.constants, exact=one.numerics == "exact")
        except (RuntimeError, TypeError, ValueError, LookupError) as error:
            message = f"pass {one.name} put something at {region.where} that cannot be run: {error}"
            raise PassError(message, one.name, print_program(program), region.key) from error
        if mismatch:
            message = f"pass {one.name} ({one.numerics}) changed results at {mismatch}"
            raise PassError(message, one.name, print_program(program), mismatch.reproducer)
    checked = time.perf_counter()
    return work, PassReport(
        one.name,
        one.stage,
        one.numerics,
        matches,
        tuple(misses),
        len(regions),
        len(work.forward.calls),
        ran - began,
        checked - ran,
    )


def skipped(program: Program, one: Pass, error: PassError) -> PassReport:
    misses = (f"skipped: {error}",)
    return PassReport(one.name, one.stage, one.numerics, 0, misses, 0, len(program.forward.calls), 0.0, 0.0)


def drop_unread_weights(program: Program) -> None:
    read = {n.target for f in program.functions.values() for n in f.graph.nodes if n.op == "get_attr"}
    program.weights = {name: w for name, w in program.weights.items() if name in read}
