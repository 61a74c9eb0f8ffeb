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
from .ir.verify import VerificationError, verify


class PassError(XllmcError):
    """A pass broke the program or changed its numbers. Names the pass and the site."""

    def __init__(self, message: str, reproducer: str = "") -> None:
        super().__init__(message)
        self.reproducer = reproducer
        """Both sides of the replacement in text form."""


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
    program: Program, passes: Sequence[Pass], after: Callable[[PassReport, Program], None] | None = None
) -> tuple[Program, list[PassReport]]:
    """Run the passes in order. The given program is not changed. ``after`` sees each report as it comes."""
    reports = []
    for one in passes:
        program, report = run_pass(program, one)
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
    for function in work.functions.values():
        rewriter = Rewriter(work, function)
        report = one.run(rewriter)
        matches += report.matches
        misses += report.near_misses
        regions |= rewriter.regions
    if STAGES.index(one.stage) >= STAGES.index(work.stage) if work.stage in STAGES else True:
        work.stage = one.stage
    try:
        verify(work)
    except VerificationError as error:
        raise PassError(f"pass {one.name} made an invalid program: {error}") from error
    drop_unread_weights(work)
    ran = time.perf_counter()
    for region in regions.values():
        if mismatch := compare(region, work.constants, exact=one.numerics == "exact"):
            raise PassError(f"pass {one.name} ({one.numerics}) changed results at {mismatch}", mismatch.reproducer)
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


def drop_unread_weights(program: Program) -> None:
    read = {n.target for f in program.functions.values() for n in f.graph.nodes if n.op == "get_attr"}
    program.weights = {name: w for name, w in program.weights.items() if name in read}
