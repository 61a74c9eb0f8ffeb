"""The whole compile, from a model directory to an engine: this page is the pipeline."""

import tempfile
import time
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
from ..runtime.machine import choose_profile
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
    predicted: Predicted
    """How fast the engine should be on this machine, as far as its profile knows it."""


def compile_model(
    model_dir: Path, out: Path, options: CompileOptions | None = None, listener: Listener | None = None
) -> CompileResult:
    """Compile ``model_dir`` into the engine ``out``, which appears whole or not at all.

    Raises XllmcError (of several kinds) with a one-line message for anything wrong with what it was given.
    """
    options, listener = options or CompileOptions(), listener or Silent()
    target, target_origin = target_named(options.target, options.passes.plugins)
    listed = pass_list(options.target, options.passes)
    clock = Clock()

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
    listener.stage("passes", len(listed.passes))

    def passed(report: PassReport, after: Program) -> None:
        graphs[after.stage] = print_program(after)
        listener.passed(report)
        listener.advanced(1, report.name)

    try:
        program, reports = run(
            program, listed.passes, RunOptions(options.verification, options.skip_failed_pass), passed
        )
    except PassError as error:
        raise with_reproducer(error, listed, out) from error
    declared = family.expected_matches(config)
    if not options.allow_missed:
        check_expected(declared, reports, family.name, options.passes.disabled)
    add_sampling(program)
    verify_made(program, "the sampling functions")
    clock.lap("passes")

    plugins = plugin_records(listed, reports, {target_origin: target.name}, {family_origin: family.name})
    with tempfile.TemporaryDirectory(prefix="xllmc-") as work, write_engine(out) as writer:
        listener.stage("kernels", 1)
        bundle = target.emit(
            program, BuildOptions(options.isa, options.jobs), Path(work), lambda what: listener.advanced(0, what)
        )
        clock.lap("kernels")
        entries = weight_entries(program)
        listener.stage("weights", sum(entry_bytes(e) for e in entries))
        write_weights(writer, program, entries, source, listener)
        write_files(writer, bundle, graphs, model_dir)
        clock.lap("weights")
        manifest = writer.finish(
            make_manifest(program, bundle, entries, reports, graphs, target.name, plugins, declared),
            bundle.plan,
            {
                "seconds": clock.laps,
                "passes": [{"name": r.name, "seconds": r.seconds, "check_seconds": r.check_seconds} for r in reports],
            },
        )
    return CompileResult(manifest, expected, tuple(reports), clock.laps, sources.unread, predict(bundle.plan))


def predict(plan: Plan) -> Predicted:
    """The speed of a plan by this machine's profile, or by the shipped one where it has none."""
    choice = choose_profile()
    cost = StepCost(plan, choice.profile)
    decode, prefill = (sizes["T"] / cost.seconds(sizes) for sizes in (DECODE, PREFILL))
    return Predicted(decode, prefill, choice.note)


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
