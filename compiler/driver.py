"""The whole compile, from a model directory to an engine: this page is the pipeline."""

import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..models.config import load_config
from ..models.family import Family
from ..models.trace import TraceOptions, eos_token_ids, trace
from ..runtime.artifact.errors import OptionError, XllmcError
from ..runtime.artifact.schema import Manifest, Plan
from ..runtime.artifact.tokenizer_file import read_tokenizer
from ..runtime.artifact.writer import write_engine
from ..runtime.machine import target_profile
from .assemble import entry_bytes, make_manifest, plugin_records, weight_entries, write_files, write_weights
from .cost import DECODE, PREFILL, StepCost
from .functions import add_sampling
from .ir.dims import whole
from .ir.program import Program, Weight
from .ir.text import print_program
from .ir.verify import VerificationError, verify
from .options import DTYPES, CompileOptions
from .pipeline.expected import check_expected
from .pipeline.listing import PassList, pass_list, target_named
from .pipeline.plugins import OWN_ORIGIN, Origin, installed_objects
from .pipeline.run import PassError, PassReport, RunOptions, run
from .progress import Estimate, Listener, Silent
from .target import BuildOptions
from .weight_source import CheckpointSource, RandomSource, WeightSource


class Predicted(NamedTuple):
    """Tokens per second, and whose numbers say so."""

    decode: float
    """Of one sequence at a context of 512."""
    prefill: float
    """Of one prompt of 512."""
    profile: str
    machine: str
    """That the profile is of."""


@dataclass(frozen=True)
class CompileResult:
    manifest: Manifest
    estimate: Estimate
    """What was expected, to hold against what it took."""
    reports: tuple[PassReport, ...]
    seconds: dict[str, float]
    """By stage: trace, passes, kernels, weights."""
    unread: tuple[str, ...]
    """Tensors of the checkpoint that the model has no place for."""
    predicted: Predicted | None
    """How fast the engine should be on its machine; None where no profile knows that."""
    notes: tuple[str, ...]
    """What the target has to say."""


@dataclass(frozen=True)
class Optimised:
    """A traced program after its passes, and what came out on the way."""

    program: Program
    source: WeightSource
    reports: list[PassReport]
    graphs: dict[str, str]
    """Text of the program by stage."""
    declared: dict[str, int]
    """Matches that the model's family expects, by pass."""
    listed: PassList
    family: Family
    family_origin: Origin
    estimate: Estimate
    unread: tuple[str, ...]
    """Tensors of the checkpoint that the model has no place for."""


def compile_model(
    model_dir: Path, out: Path, options: CompileOptions | None = None, listener: Listener | None = None
) -> CompileResult:
    """Compile ``model_dir`` into the engine ``out``, which appears whole or not at all.

    Raises XllmcError (of several kinds) with a one-line message for anything wrong with what it was given.
    """
    options, listener = options or CompileOptions(), listener or Silent()
    target, target_origin = target_named(options.target, options.passes.plugins)
    if target.name == "cpu" and options.dtype == "fp16":
        raise OptionError("the CPU target computes in bf16 or fp32, not in fp16; try --dtype bf16")
    clock = Clock()
    made = optimise(model_dir, out, options, listener, clock)
    program, source, reports, graphs = made.program, made.source, made.reports, made.graphs
    add_sampling(program)
    verify_made(program, "the sampling functions")
    clock.lap("passes")

    plugins = plugin_records(made.listed, reports, {target_origin: target.name}, {made.family_origin: made.family.name})
    with tempfile.TemporaryDirectory(prefix="xllmc-") as work, write_engine(out) as writer:
        listener.stage("kernels", 1)
        bundle = target.emit(
            program,
            BuildOptions(options.isa, options.jobs, options.batch_invariant),
            Path(work),
            lambda what: listener.advanced(0, what),
        )
        clock.lap("kernels")
        entries = weight_entries(program)
        # Constants are always written.
        seed = options.random_weights if bundle.invents_weights else None
        written = entries if seed is None else [e for e in entries if e.recipe is None]
        listener.stage("weights", sum(entry_bytes(e) for e in written))
        write_weights(writer, program, written, source, listener)
        write_files(writer, bundle, graphs, model_dir)
        clock.lap("weights")
        manifest = make_manifest(program, bundle, entries, reports, graphs, target.name, plugins, made.declared)
        manifest = writer.finish(
            manifest.model_copy(update={"random_weights": seed}),
            bundle.plan,
            {
                "seconds": clock.laps,
                "passes": [{"name": r.name, "seconds": r.seconds, "check_seconds": r.check_seconds} for r in reports],
            },
        )
    predicted = predict(bundle.plan, target.name)
    return CompileResult(manifest, made.estimate, tuple(reports), clock.laps, made.unread, predicted, bundle.notes)


def optimise(
    model_dir: Path,
    out: Path,
    options: CompileOptions,
    listener: Listener,
    clock: "Clock",
    without: Collection[str] = (),
) -> Optimised:
    """Trace the model and run the passes of the options' target; ``without``: passes left out, whose names may be of
    other targets. A reproducer of a failed pass is written beside ``out``.
    """
    listed = pass_list(options.target, options.passes)
    passes = tuple(one for one in listed.passes if one.name not in without)
    config = load_config(model_dir)
    source: WeightSource = (
        CheckpointSource(model_dir) if options.random_weights is None else RandomSource(options.random_weights)
    )
    if (model_dir / "tokenizer.json").is_file():
        read_tokenizer(model_dir / "tokenizer.json")
    listener.stage("trace", 1)
    family, family_origin = family_named(config.model_type, options.passes.plugins)
    trace_options = TraceOptions(DTYPES[options.dtype], options.max_context, family.handlers)
    program, sources = trace(config, trace_options, source.names(), eos_token_ids(model_dir, config))
    verify_made(program, "the traced model")
    if isinstance(source, CheckpointSource):
        source.check(program)
        source.check_ties(sources.ties)
    clock.lap("trace")
    expected = estimate(program, options)
    listener.estimated(expected)

    graphs = {"traced": print_program(program)}
    listener.stage("passes", len(passes))

    def passed(report: PassReport, after: Program) -> None:
        graphs[after.stage] = print_program(after)
        listener.passed(report)
        listener.advanced(1, report.name)

    try:
        program, reports = run(program, passes, RunOptions(options.verification, options.skip_failed_pass), passed)
    except PassError as error:
        raise with_reproducer(error, listed, out) from error
    declared = family.expected_matches(config)
    if not options.allow_missed:
        check_expected(declared, reports, family.name, options.passes.disabled)
    return Optimised(
        program, source, reports, graphs, declared, listed, family, family_origin, expected, sources.unread
    )


def predict(plan: Plan, target: str) -> Predicted | None:
    """The speed of a plan by its machine's profile, or by a shipped one; None for a target that has neither."""
    choice = target_profile(target)
    if choice is None:
        return None
    cost = StepCost(plan, choice.profile)
    decode, prefill = (sizes["T"] / cost.seconds(sizes) for sizes in (DECODE, PREFILL))
    return Predicted(decode, prefill, choice.note, choice.profile.cpu)


def verify_made(program: Program, what: str) -> None:
    """Passes are checked by the pipeline; this is for what is made outside of it."""
    try:
        verify(program)
    except VerificationError as error:
        raise XllmcError(
            f"{what} of {program.facts.family} came out invalid, which is a fault of xllmc: {error}"
        ) from error


def family_named(name: str, plugins: bool = True) -> tuple[Family, Origin]:
    """What is known of the family, and who says so; a plugin's takes the place of xllmc's own.

    Nothing is known of one that nobody brought. OptionError where two plugins bring it.
    """
    known = [(f, o) for f, o in installed_objects("xllmc.models", Family, plugins) if f.name == name]
    brought = list(dict.fromkeys(origin for _, origin in known if origin.plugin))
    if len(brought) > 1:
        raise OptionError(f"family {name} is brought by {brought[0]} and by {brought[1]}; uninstall one of them")
    return known[-1] if known else (Family(name), OWN_ORIGIN)


def with_reproducer(error: PassError, listed: PassList, out: Path) -> XllmcError:
    """The error for the user: whose pass it is, and where both sides of the fault were written."""
    place = out.with_name(f"{out.name}.{error.name}.txt")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(error.reproducer)
    origin = listed.origins[error.name]
    whose = f"plugin {origin}: " if origin.plugin else ""
    return XllmcError(f"{whose}{error}; what it did is in {place}, and --skip-failed-pass leaves the pass out")


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now


def estimate(program: Program, options: CompileOptions) -> Estimate:
    """Of the traced program, before packing pads it; times are of the two-core machine that ``bench/results`` names."""
    sizes = [bytes_of(w) for w in program.weights.values()]
    largest = max(sizes, default=0)
    levels = 3 if "all" in options.isa else len(options.isa)
    rate = 4e8 if options.random_weights is None else 1e8
    seconds = 1.5 + 0.35 * program.facts.layers + 3 * levels + sum(sizes) / rate
    return Estimate(sum(sizes) + (20 << 20), (700 << 20) + 3 * largest, seconds)


def bytes_of(weight: Weight) -> int:
    return whole(weight.type.bytes_of(weight.type.shape))
