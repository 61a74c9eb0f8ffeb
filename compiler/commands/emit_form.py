"""``xllmc compile --emit``: which forms there are, what makes no sense with them, and what is said at the end."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import typer
from rich.console import Console

from ...codegen.mlir.emitter import MlirEmitter
from ...codegen.onnx.emitter import OnnxEmitter
from ...models.hub import resolve_model
from ...runtime.artifact.errors import OptionError
from ..emitting.check import ALLOWED
from ..emitting.drive import EmitResult, emit_model, require
from ..emitting.emitter import Emitter
from ..options import CompileOptions
from .progress_bars import listening, size, unwinding_on_sigterm

EMITTERS: dict[str, Callable[[], Emitter]] = {"mlir": MlirEmitter, "onnx": OnnxEmitter}

ENGINE_ONLY = ("isa", "jobs", "batch_invariant")
"""Options of the command that say how kernels are built."""


def emitter_named(name: str) -> Emitter:
    """OptionError for a form that there is not."""
    if name not in EMITTERS:
        raise OptionError(f"--emit must be one of {', '.join(EMITTERS)}, got {name!r}")
    return EMITTERS[name]()


def refuse_engine_options(context: typer.Context) -> None:
    """OptionError where an option was given that says how an engine's kernels are built."""
    for name in ENGINE_ONLY:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise OptionError(f"--emit builds no kernels, which --{name.replace('_', '-')} is about; leave it out")


def emit(model: str, out: Path, emitter: Emitter, options: CompileOptions, as_json: bool) -> None:
    """Write the file and say what it holds and how far its results were off."""
    require(out, emitter)  # before a model is fetched
    with unwinding_on_sigterm(), listening() as listener:
        result = emit_model(resolve_model(model), out, emitter, options, listener)
    for note in notes(result):
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print(json.dumps(summary(result, emitter)))
        return
    for line in closing_lines(result, emitter):
        Console().print(line, highlight=False, soft_wrap=True)


def notes(result: EmitResult) -> Iterator[str]:
    yield "only the forward function is written; sampling tokens and scoring given ones are not"
    if result.unchecked:
        yield result.unchecked
    elif result.model.dtype != "f32":
        yield f"compared in float32: the same graph was written once more with it in the place of {result.model.dtype}"
    if result.unread:
        yield f"the model has no place for {len(result.unread)} tensors of the checkpoint"


def closing_lines(result: EmitResult, emitter: Emitter) -> Iterator[str]:
    files = ", ".join(f"{f.path.name} {size(f.bytes)}" for f in result.files)
    facts = ", ".join(f"{name} {value}" for name, value in result.verified.facts.items())
    yield (
        f"{result.files[0].path}: {result.model.architecture}, {result.model.dtype}, {facts}; {files}; "
        f"{sum(result.seconds.values()):.1f} s"
    )
    errors = ", ".join(f"{c.step} {c.error:.1e}" for c in result.checks)
    ran = f"{emitter.engine} against the ops' references, float32: {errors} (allowed {ALLOWED:g})"
    yield f"verified by {result.verified.by}; {ran if result.checks else 'not run'}"


def summary(result: EmitResult, emitter: Emitter) -> dict:
    return {
        "emitted": emitter.name,
        "files": [{"path": str(f.path), "bytes": f.bytes} for f in result.files],
        "model": result.model.model_dump(),
        "verified": {"by": result.verified.by, **result.verified.facts},
        "checks": [{"step": c.step, "error": c.error} for c in result.checks],
        "allowed": ALLOWED,
        "engine": emitter.engine,
        "notes": list(notes(result)),
        "seconds": result.seconds,
        "passes": [r.record().model_dump() for r in result.reports],
    }
