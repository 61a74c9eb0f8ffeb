"""From a model directory to a file of another form: the passes of a compile, an emitter, and a check by running."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ...runtime.artifact.errors import OptionError
from ...runtime.artifact.publish import publish_files
from ...runtime.artifact.recipe import Recipe, Tensor, evaluate
from ...runtime.artifact.schema import ModelFacts
from ..check.samples import to_torch
from ..driver import Clock, optimise
from ..ir.dims import whole
from ..ir.program import Program
from ..options import CompileOptions
from ..pipeline.run import PassReport
from ..progress import Listener, Silent
from ..weight_source import WeightSource
from .check import Checked, check_runs, in_float32
from .emitter import Emitter, ReadWeight, Verified
from .steps import sample_steps

PACKING = ("pack-weights",)
"""Passes that arrange weights for one target's kernels, which nothing else reads."""


class WrittenFile(NamedTuple):
    path: Path
    bytes: int


@dataclass(frozen=True)
class EmitResult:
    files: tuple[WrittenFile, ...]
    """The one that was asked for first."""
    model: ModelFacts
    reports: tuple[PassReport, ...]
    seconds: dict[str, float]
    """By stage: trace, passes, emit, check."""
    unread: tuple[str, ...]
    verified: Verified
    checks: tuple[Checked, ...]
    unchecked: str | None
    """Why there are no checks, where there are none."""


def emit_model(
    model_dir: Path,
    out: Path,
    emitter: Emitter,
    options: CompileOptions | None = None,
    listener: Listener | None = None,
) -> EmitResult:
    """Write the forward function of ``model_dir``, optimised for the options' target, to ``out`` and files beside it.

    They appear when all of them are written and checked. Choosing tokens (``sample``, ``score``) is not among what is
    written. XllmcError with a one-line message for anything wrong with what it was given.
    """
    options, listener = options or CompileOptions(), listener or Silent()
    require(out, emitter)
    clock = Clock()
    made = optimise(model_dir, out, options, listener, clock, without=PACKING)
    program = made.program
    clock.lap("passes")
    with publish_files(out) as place:
        listener.stage("emit", 1)
        file = place / out.name
        verified = emitter.write(program, weight_reader(program, made.source), file)
        clock.lap("emit")
        unchecked = why_unchecked(program, emitter)
        checks = () if unchecked else check(program, made.source, emitter, file, listener)
        clock.lap("check")
        written = tuple(WrittenFile(out.parent / f.name, f.stat().st_size) for f in in_order(place, out.name))
    return EmitResult(written, program.facts, tuple(made.reports), clock.laps, made.unread, verified, checks, unchecked)


def require(out: Path, emitter: Emitter) -> None:
    """OptionError for an output of another suffix, and for a package that is missing."""
    if out.suffix != emitter.suffix:
        raise OptionError(f"--emit {emitter.name} requires an --output that ends in {emitter.suffix}, got {out.name!r}")
    emitter.require()


def in_order(place: Path, first: str) -> Iterator[Path]:
    yield from sorted(place.iterdir(), key=lambda f: (f.name != first, f.name))


def weight_reader(program: Program, source: WeightSource) -> ReadWeight:
    """Values as ops read them, whatever the layout in which a target would store them."""

    def read(leaf: Recipe) -> Tensor:
        return program.constants[leaf.attribute("name")] if leaf.op == "constant" else source.read(leaf)

    return lambda name: to_torch(evaluate(program.weights[name].recipe, read)).to(
        program.weights[name].type.torch_dtype
    )


def why_unchecked(program: Program, emitter: Emitter) -> str | None:
    count = sum(whole(w.type.elements) for w in program.weights.values())
    if count <= emitter.most_checked:
        return None
    return (
        f"not run: with {emitter.engine} models of up to {emitter.most_checked / 1e6:.0f} M weights are compared, and "
        f"this one has {count / 1e6:.0f} M; its structure alone was verified"
    )


def check(
    program: Program, source: WeightSource, emitter: Emitter, file: Path, listener: Listener
) -> tuple[Checked, ...]:
    """Run it on sample steps. One of narrow floats is written a second time in float32, which every engine runs."""
    listener.stage("check", 1)
    wide = in_float32(program)
    read = weight_reader(wide, source)
    steps = sample_steps(program)
    if program.facts.dtype == "f32":
        return check_runs(wide, read, emitter.load(file), steps, emitter.engine)
    with TemporaryDirectory(prefix="xllmc-") as work:
        twin = Path(work) / file.name
        emitter.write(wide, read, twin)
        return check_runs(wide, read, emitter.load(twin), steps, emitter.engine)
