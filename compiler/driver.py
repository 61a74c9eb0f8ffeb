"""The whole compile, from a model directory to an engine: this page is the pipeline."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from ..codegen.cpu.target import CpuTarget
from ..models.config import load_config
from ..models.trace import TraceOptions, eos_token_ids, trace
from ..passes.builtin import passes
from ..runtime.artifact.dtypes import ITEM_BYTES
from ..runtime.artifact.errors import CheckpointError, OptionError, XllmcError
from ..runtime.artifact.recipe import PANEL, Recipe, Tensor, evaluate
from ..runtime.artifact.schema import (
    ABI_VERSION,
    SCHEMA_VERSION,
    Manifest,
    StateEntry,
    StateGroup,
    WeightEntry,
)
from ..runtime.artifact.tokenizer_file import read_tokenizer
from ..runtime.artifact.version import xllmc_version
from ..runtime.artifact.writer import EngineWriter, write_engine
from .functions import add_sampling
from .ir.dims import whole
from .ir.program import Program, Weight
from .ir.text import print_program
from .ir.verify import VerificationError, verify
from .ops.attention import PAGE_TOKENS
from .options import DTYPES, CompileOptions
from .pipeline import PassError, PassReport, run
from .target import BuildOptions, Bundle, Target
from .weight_source import CheckpointSource, RandomSource, WeightSource

TARGETS: dict[str, type[Target]] = {"cpu": CpuTarget}

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


@dataclass(frozen=True)
class Estimate:
    """What a compile will take, before it starts."""

    engine_bytes: int
    memory_bytes: int
    seconds: float


class Listener(Protocol):
    """Told how a compile goes on."""

    def estimated(self, estimate: Estimate) -> None: ...

    def stage(self, name: str, total: int) -> None:
        """A stage begins: ``total`` units of it will be ``advanced`` by."""

    def advanced(self, units: int, what: str) -> None: ...

    def passed(self, report: PassReport) -> None: ...


class Silent:
    """A listener that does not listen."""

    def estimated(self, estimate: Estimate) -> None:
        pass

    def stage(self, name: str, total: int) -> None:
        pass

    def advanced(self, units: int, what: str) -> None:
        pass

    def passed(self, report: PassReport) -> None:
        pass


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


def compile_model(
    model_dir: Path, out: Path, options: CompileOptions | None = None, listener: Listener | None = None
) -> CompileResult:
    """Compile ``model_dir`` into the engine ``out``, which appears whole or not at all.

    Raises XllmcError (of several kinds) with a one-line message for anything wrong with what it was given.
    """
    options, listener = options or CompileOptions(), listener or Silent()
    target = target_named(options.target)
    clock = Clock()

    config = load_config(model_dir)
    source: WeightSource = (
        CheckpointSource(model_dir) if options.random_weights is None else RandomSource(options.random_weights)
    )
    if (model_dir / "tokenizer.json").is_file():
        read_tokenizer(model_dir / "tokenizer.json")
    listener.stage("trace", 1)
    trace_options = TraceOptions(DTYPES[options.dtype], options.max_context)
    program, sources = trace(config, trace_options, source.names(), eos_token_ids(model_dir, config))
    verify_made(program, "the traced model")
    if isinstance(source, CheckpointSource):
        source.check(program)
        source.check_ties(sources.ties)
    clock.lap("trace")
    expected = estimate(program, options)
    listener.estimated(expected)

    graphs = {"traced": print_program(program)}
    pipeline = (*passes(), *target.lowering_passes())
    listener.stage("passes", len(pipeline))

    def passed(report: PassReport, after: Program) -> None:
        graphs[after.stage] = print_program(after)
        listener.passed(report)
        listener.advanced(1, report.name)

    try:
        program, reports = run(program, pipeline, passed, options.skip_failed_pass)
    except PassError as error:
        place = out.with_name(f"{out.name}.{error.name}.txt")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(error.reproducer)
        raise XllmcError(f"{error}; both sides are in {place}, and --skip-failed-pass leaves the pass out") from error
    add_sampling(program)
    verify_made(program, "the sampling functions")
    clock.lap("passes")

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
            make_manifest(program, bundle, entries, reports, graphs, target.name),
            bundle.plan,
            {
                "seconds": clock.laps,
                "passes": [{"name": r.name, "seconds": r.seconds, "check_seconds": r.check_seconds} for r in reports],
            },
        )
    return CompileResult(manifest, expected, tuple(reports), clock.laps, sources.unread)


def verify_made(program: Program, what: str) -> None:
    """Passes are checked by the pipeline; this is for what is made outside of it."""
    try:
        verify(program)
    except VerificationError as error:
        raise XllmcError(
            f"{what} of {program.facts.family} came out invalid, which is a fault of xllmc: {error}"
        ) from error


def target_named(name: str) -> Target:
    if name not in TARGETS:
        raise OptionError(f"--target must be one of {', '.join(TARGETS)}, got {name!r}")
    return TARGETS[name]()


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


# --- weights


def weight_entries(program: Program) -> list[WeightEntry]:
    """What the artifact stores for each weight. A recipe without sources is a constant, and is not replayed."""
    return [
        WeightEntry(
            name=name,
            dtype=weight.type.dtype,
            shape=stored_shape(weight),
            recipe=weight.stored.to_json() if weight.recipe.sources() else None,
        )
        for name, weight in program.weights.items()
    ]


def stored_shape(weight: Weight) -> tuple[int, ...]:
    shape = weight.type.sizes
    if weight.layout == "rows":
        return shape
    panels = -(-shape[0] // PANEL)
    return (panels, -(-shape[1] // 2), PANEL, 2) if weight.type.dtype == "bf16" else (panels, shape[1], PANEL)


def entry_bytes(entry: WeightEntry) -> int:
    count = ITEM_BYTES[entry.dtype]
    for size in entry.shape:
        count *= size
    return count


def write_weights(
    writer: EngineWriter, program: Program, entries: list[WeightEntry], source: WeightSource, listener: Listener
) -> None:
    def read(leaf: Recipe) -> Tensor:
        return program.constants[leaf.attribute("name")] if leaf.op == "constant" else source.read(leaf)

    writer.add_weights(
        entries,
        lambda entry: evaluate(program.weights[entry.name].stored, read),
        lambda entry: listener.advanced(entry_bytes(entry), entry.name),
    )


# --- files and manifest


def write_files(writer: EngineWriter, bundle: Bundle, graphs: Mapping[str, str], model_dir: Path) -> None:
    for path, text in bundle.sources.items():
        writer.add_text(path, text)
    for path, library in bundle.libraries.items():
        writer.add_file(path, library)
    for stage, text in graphs.items():
        writer.add_text(f"graph/{stage}.txt", text)
    for name, file in tokenizer_files(model_dir):
        writer.add_file(f"tokenizer/{name}", file)


def tokenizer_files(model_dir: Path) -> Iterator[tuple[str, Path]]:
    """The tokenizer's files; one that has no tokenizer.json (slow formats) is converted by transformers."""
    present = [name for name in TOKENIZER_FILES if (model_dir / name).is_file()]
    yield from ((name, model_dir / name) for name in present)
    convertible = any((model_dir / name).is_file() for name in ("vocab.json", "tokenizer.model", "vocab.txt"))
    if "tokenizer.json" in present or not convertible:
        return
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="xllmc-") as work:
        copied = Path(shutil.copytree(model_dir, Path(work) / "model", ignore=shutil.ignore_patterns("*.safetensors")))
        try:
            tokenizer = AutoTokenizer.from_pretrained(copied, trust_remote_code=False, local_files_only=True)
            tokenizer.backend_tokenizer.save(str(copied / "tokenizer.json"))
        except (ValueError, OSError, AttributeError) as error:
            raise CheckpointError(
                f"the tokenizer of {model_dir} has no tokenizer.json and cannot be converted to one: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        yield "tokenizer.json", copied / "tokenizer.json"


def make_manifest(
    program: Program,
    bundle: Bundle,
    entries: list[WeightEntry],
    reports: list[PassReport],
    graphs: Mapping[str, Any],
    target: str,
) -> Manifest:
    states = tuple(
        StateEntry(
            name=name,
            kind="paged",
            group=kind.group,
            kv_heads=kind.kv_heads,
            key_dim=kind.key_dim,
            value_dim=kind.value_dim,
            dtype=kind.dtype,
            page_bytes=page_bytes(kind.kv_heads, kind.key_dim, kind.value_dim, kind.dtype),
        )
        for name, kind in program.states.items()
    )
    return Manifest(
        schema_version=SCHEMA_VERSION,
        abi_version=ABI_VERSION,
        xllmc=xllmc_version(),
        tools={"torch": version("torch"), "transformers": version("transformers"), **bundle.tools},
        target=target,
        model=program.facts,
        weights=tuple(entries),
        states=states,
        groups=tuple(
            StateGroup(
                index=g.index,
                window=g.window,
                page_tokens=PAGE_TOKENS,
                names=tuple(s.name for s in states if s.group == g.index),
            )
            for g in program.groups
        ),
        passes=tuple(r.record() for r in reports),
        kernels=bundle.kernels,
        graphs={stage: f"graph/{stage}.txt" for stage in graphs},
        files=(),
    )


def page_bytes(kv_heads: int, key_dim: int, value_dim: int, dtype: str) -> int:
    """Of one page as ``xllmc/cache.h`` lays it out: keys in pairs for bf16, then values."""
    keys = key_dim + key_dim % 2 if dtype == "bf16" else key_dim
    return kv_heads * (keys + value_dim) * PAGE_TOKENS * ITEM_BYTES[dtype]
