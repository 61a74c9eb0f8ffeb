"""Makes every mutant of every pass of a model, runs it under default verification, and counts what is caught."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from transformers import AutoConfig
from xllmc.compiler.driver import family_named
from xllmc.compiler.ir.program import Program
from xllmc.compiler.ir.region import Region
from xllmc.compiler.options import DTYPES
from xllmc.compiler.pipeline.listing import pass_list
from xllmc.compiler.pipeline.run import PassError, RunOptions, run_pass
from xllmc.compiler.tiny_models import TinyModel
from xllmc.models.trace import TraceOptions, trace
from xllmc.passes.api import Pass, Rewriter

from tests.mutations.equivalents import equivalent
from tests.mutations.mutating import Placed, Seen, looking, with_fault


@dataclass(frozen=True)
class Mutant:
    model: str
    traced: Program
    program: Program
    """What the pass runs on."""
    one: Pass
    """Without the fault."""
    position: int
    """Of the pass among all, as one pass may run several times."""
    seen: Seen
    number: int
    """Of the edit among those of its site."""
    regions: frozenset[str]
    """Those that the pass makes without the fault. They hold, and are not compared again for every mutant."""

    @property
    def placed(self) -> Placed:
        return self.seen.edits[self.number]

    @property
    def operator(self) -> str:
        return self.placed.edit.operator

    @property
    def faulty(self) -> Pass:
        """A pass that can take the place of ``one`` in any list of passes."""
        return with_fault(self.one, self.seen.site, self.number)

    def __str__(self) -> str:
        call = f"{self.placed.call.name}, " if self.placed.call else ""
        place = f"{self.model} {self.one.name} site {self.seen.site} ({self.seen.where})"
        return f"{place}: {self.operator}: {call}{self.placed.edit.what}"


class Verdict(NamedTuple):
    """How it ended: ``results`` (they differ), ``verifier`` (the program is invalid), ``error`` (pass or replacement
    raised), ``equivalent`` (declared so, and indeed not caught), ``survived``.
    """

    end: str
    message: str

    @property
    def caught(self) -> bool:
        return self.end in CAUGHT


CAUGHT = ("results", "verifier", "error")


class Tally:
    """How mutants ended, by operator and by pass."""

    def __init__(self) -> None:
        self.ends: Counter[tuple[str, str, str]] = Counter()
        """(operator, pass, end) to how many."""
        self.survivors: list[str] = []

    def add(self, mutant: Mutant, verdict: Verdict) -> None:
        self.ends[mutant.operator, mutant.one.name, verdict.end] += 1
        if verdict.end == "survived":
            self.survivors.append(str(mutant))

    def count(self, *ends: str, operator: str = "", name: str = "") -> int:
        """Mutants that ended so (all where no end is named), of one operator or pass if so asked."""
        return sum(
            number
            for (of, by, end), number in self.ends.items()
            if (not ends or end in ends) and operator in ("", of) and name in ("", by)
        )

    @property
    def caught(self) -> float:
        """Of the mutants that are not equivalents."""
        return self.count(*CAUGHT) / (self.count() - self.count("equivalent"))

    @property
    def equivalent(self) -> float:
        return self.count("equivalent") / self.count()

    def __str__(self) -> str:
        rows = [("", "made", "caught", "equivalent", "survived")]
        for field, names in (("operator", self._names(0)), ("name", self._names(1)), ("", ["all"])):
            for label in names:
                chosen = {field: label} if field else {}
                counts = (self.count(*ends, **chosen) for ends in ((), CAUGHT, ("equivalent",), ("survived",)))
                rows.append((label, *map(str, counts)))
        lines = [f"{row[0]:<22}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows]
        return "\n".join([*lines, *(f"survived: {s}" for s in self.survivors)])

    def _names(self, place: int) -> list[str]:
        return list(dict.fromkeys(key[place] for key in self.ends))


def traced(model: TinyModel) -> Program:
    config = AutoConfig.for_model(model.family, **model.config)
    return trace(config, TraceOptions(DTYPES[model.dtype], None, family_named(model.family)[0].handlers)).program


def mutants_of(model: TinyModel, every_site: bool = False) -> Iterator[Mutant]:
    """Of each pass at each site; of sites that make the same region only at the first, as they are one comparison."""
    program = start = traced(model)
    for position, one in enumerate(pass_list().passes):
        sites: list[Seen] = []
        after, _ = run_pass(program, looking(one, sites.append), RunOptions("off"))
        regions = frozenset(s.key for s in sites)
        known: set[str] = set()
        for seen in sites:
            if every_site or seen.key not in known:
                known.add(seen.key)
                for number in range(len(seen.edits)):
                    yield Mutant(model.name, start, program, one, position, seen, number, regions)
        program = after


def judge(mutant: Mutant) -> Verdict:
    """Run the faulty pass under default verification."""
    left: list[Region] = []
    try:
        run_pass(mutant.program, _forgetting(mutant.faulty, mutant.regions, left), RunOptions())
    except PassError as error:
        message = str(error)
        ends = {"changed results": "results", "invalid program": "verifier", "cannot be run": "error"}
        # Anything else would be a fault of the edit, which must not count as caught.
        return Verdict(next(end for text, end in ends.items() if text in message), message)
    reason = equivalent(mutant.placed, mutant.program, left)
    return Verdict("equivalent", reason) if reason else Verdict("survived", "")


def _forgetting(one: Pass, known: frozenset[str], left: list[Region]) -> Pass:
    """The pass, with the known regions taken out of the comparison, and a list of those left."""
    kind = type(one)

    def run(self: Pass, rewriter: Rewriter) -> None:
        kind.run(self, rewriter)
        for key in known & rewriter.regions.keys():
            del rewriter.regions[key]
        left.extend(rewriter.regions.values())

    return type(kind.__name__, (kind,), {"run": run, "__doc__": kind.__doc__})(**one.options)
