"""How an engine is run: host work that hides behind steps, and prefixes that are computed once."""

from dataclasses import asdict, dataclass
from pathlib import Path

from ..runtime.artifact.reader import read_manifest
from ..runtime.artifact.version import xllmc_version
from ..runtime.engine import Engine
from ..runtime.machine import cpu_model
from .overlap import Overlap, measure_overlap
from .prefix import Prefix, measure_prefix

STEP_MS, INJECTED_MS, STEPS = 5.0, 3.0, 120
PREFIX_TOKENS, SUFFIX_TOKENS = 2048, 16


@dataclass(frozen=True)
class RuntimeFigures:
    overlap: Overlap
    prefix: Prefix


def measure(engine: Path, rounds: int, threads: int) -> RuntimeFigures:
    """Overlap with one thread less than ``threads``, so that the host has a core; prefixes with all of them."""
    with Engine.load(engine, threads=max(threads - 1, 1)) as loaded:
        overlap = measure_overlap(loaded, STEP_MS, INJECTED_MS, STEPS, rounds)
    with Engine.load(engine, threads=threads) as loaded:
        longest = loaded.manifest.model.max_context - SUFFIX_TOKENS - 8
        prefix = measure_prefix(loaded, min(PREFIX_TOKENS, longest), SUFFIX_TOKENS, rounds)
    return RuntimeFigures(overlap, prefix)


def record(figures: RuntimeFigures, engine: Path) -> dict[str, object]:
    """With what they were measured on."""
    model = read_manifest(engine).model
    return {
        "machine": cpu_model(),
        "xllmc": xllmc_version(),
        "model": f"{model.architecture}, {model.parameters / 1e6:.1f} M parameters, {model.dtype}",
        **asdict(figures),
    }


def report(figures: RuntimeFigures) -> str:
    """A line for each figure."""
    overlap, prefix = figures.overlap, figures.prefix
    lines = [
        ("sequences decoding, threads", f"{overlap.sequences}, {overlap.threads}"),
        ("step", f"{overlap.step_ms:.2f} ms, {overlap.host_ms:.2f} ms of the loop's own host work beside it"),
        ("from step to step", f"{overlap.period_ms:.2f} ms, of which {overlap.gap_ms:.3f} ms between two"),
        (
            f"with {overlap.injected_ms:g} ms more of host work",
            f"{overlap.period_with_ms:.2f} ms from step to step (the step itself {overlap.step_with_ms:.2f} ms)",
        ),
        (
            "first token, cold",
            f"{prefix.cold_ms:.1f} ms after a prompt of {prefix.prefix_tokens + prefix.suffix_tokens}",
        ),
        (
            "first token, shared prefix",
            f"{prefix.warm_ms:.1f} ms ({prefix.cold_ms / prefix.warm_ms:.0f}x), {prefix.cached_tokens} tokens cached, "
            f"output {'identical' if prefix.identical else 'NOT IDENTICAL'}",
        ),
    ]
    return "\n".join(f"{name:32} {value}" for name, value in lines)
