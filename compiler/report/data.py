"""What the page shows, gathered from an engine and the passes that made it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...runtime.artifact.schema import Manifest, Plan
from ..ir.program import Program
from .arena import Memory, memory
from .graphs import Graphs, encode
from .kernels import Kernel, kernels
from .steps import Costs, NearMiss, Step


@dataclass(frozen=True)
class Pass:
    name: str
    stage: str
    numerics: str
    matches: int
    sites: tuple[str, ...]
    near_misses: tuple[NearMiss, ...]
    before: int
    """Calls of all functions."""
    after: int
    milliseconds: float


@dataclass(frozen=True)
class Report:
    """All of the page. It becomes JSON as it is, so it holds plain values only."""

    title: str
    digest: str
    facts: tuple[tuple[str, str], ...]
    """What stands in the header: label and value."""
    passes: tuple[Pass, ...]
    graphs: Graphs
    """Of the traced program, then of what each pass left."""
    phases: tuple[str, ...]
    """For which costs are known."""
    kernels: tuple[Kernel, ...]
    libraries: dict[str, str]
    """The shipped headers that kernels call into, by path."""
    memory: Memory


def make_report(
    name: str,
    manifest: Manifest,
    plan: Plan,
    traced: Program,
    steps: Sequence[Step],
    sources: dict[str, str],
    costs: Costs,
) -> Report:
    """``sources``: kernel sources of the engine by path."""
    programs = [traced, *(step.program for step in steps)]
    found = kernels(plan, sources, costs)
    return Report(
        title=name,
        digest=manifest.digest[:12],
        facts=tuple(facts(manifest)),
        passes=tuple(pass_of(step, programs[i]) for i, step in enumerate(steps)),
        graphs=encode(programs),
        phases=tuple(costs),
        kernels=found,
        libraries={path: sources[path] for path in sorted({k.library for k in found if k.library})},
        memory=memory(manifest, plan),
    )


def pass_of(step: Step, before: Program) -> Pass:
    return Pass(
        name=step.name,
        stage=step.stage,
        numerics=step.numerics,
        matches=step.matches,
        sites=step.sites,
        near_misses=step.near_misses,
        before=calls(before),
        after=calls(step.program),
        milliseconds=round(1000 * step.seconds, 2),
    )


def calls(program: Program) -> int:
    return sum(len(function.calls) for function in program.functions.values())


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    model = manifest.model
    tools = ", ".join(f"{tool} {version}" for tool, version in sorted(manifest.tools.items()))
    size = sum(entry.bytes for entry in manifest.files)
    return [
        ("model", f"{model.architecture} ({model.family})"),
        ("parameters", f"{model.parameters / 1e6:,.1f} M in {model.dtype}"),
        ("layers", f"{model.layers} of {model.hidden_size:,}"),
        ("vocabulary", f"{model.vocab_size:,}"),
        ("context", f"{model.max_context:,}"),
        ("target", ": ".join([manifest.target, *filter(None, [", ".join(k.isa for k in manifest.kernels)])])),
        ("engine", f"{size / 1e6:,.1f} MB in {len(manifest.files)} files"),
        ("made by", f"xllmc {manifest.xllmc} with {tools}"),
    ]
