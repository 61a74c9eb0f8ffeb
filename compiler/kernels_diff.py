"""Which generated kernels of fixed tiny models changed: the compiler up to C++ text, held against a baseline directory.

A baseline holds, for each model, its generated source (``llama-bf16.cpp``), and in ``baseline.json`` how often every
kernel is launched and the SHA-256 of the headers that kernels include. No C++ compiler runs.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from transformers import AutoConfig

from ..codegen.cpu.lower import lower
from ..codegen.cpu.target import read_headers
from ..models.trace import TraceOptions, trace
from ..runtime.artifact.errors import OptionError
from .diff.changes import Change, changed_facts
from .diff.kernels import KernelChange, compare_kernels, kernels_of
from .functions import add_sampling
from .options import DTYPES
from .pipeline.listing import PassSettings, pass_list
from .pipeline.run import RunOptions, run
from .tiny_models import TINY_MODELS, TinyModel

BASELINE = "baseline.json"
VERSION = "kernels-diff"
"""Stands in the sources for the version of xllmc, so that a release changes no baseline."""


class Generated(NamedTuple):
    """What the compiler makes of one model."""

    source: str
    """C++ of all its kernels."""
    launches: dict[str, int]
    """Kernel to how often one run of every function launches it."""


class Snapshot(NamedTuple):
    """What the compiler makes of every model, now or when a baseline was written."""

    models: dict[str, Generated]
    headers: dict[str, str]
    """Header to SHA-256 of its text."""


class ModelDiff(NamedTuple):
    name: str
    kernels: tuple[KernelChange, ...]


@dataclass(frozen=True)
class SnapshotDiff:
    """What changed; all empty where nothing did."""

    models: tuple[ModelDiff, ...]
    headers: tuple[Change, ...]

    @property
    def equal(self) -> bool:
        return not self.models and not self.headers

    def to_json(self) -> dict[str, Any]:
        return {
            "equal": self.equal,
            "models": {model.name: [_kernel_json(k) for k in model.kernels] for model in self.models},
            "headers": {c.what: {"before": c.before, "after": c.after} for c in self.headers},
        }


def _kernel_json(kernel: KernelChange) -> dict[str, Any]:
    return {
        "before": kernel.before,
        "after": kernel.after,
        "change": kernel.kind,
        "launches_before": kernel.launches_before,
        "launches_after": kernel.launches_after,
        "diff": kernel.source.unified(),
    }


def generate(model: TinyModel) -> Generated:
    """Trace, rewrite and lower a tiny model, up to the text of its kernels and the plan.

    Passes are not compared numerically here, which would take most of the time; every compile does that.
    """
    config = AutoConfig.for_model(model.family, **model.config)
    program = trace(config, TraceOptions(DTYPES[model.dtype])).program
    program, _ = run(program, pass_list("cpu", PassSettings(plugins=False)).passes, RunOptions("structure"))
    add_sampling(program)
    lowered = lower(program, VERSION)
    launches = Counter(launch.kernel for function in lowered.plan.functions for launch in function.launches)
    return Generated(lowered.source, dict(sorted(launches.items())))


def snapshot(models: Iterable[TinyModel] = TINY_MODELS, started: Callable[[str], None] = lambda name: None) -> Snapshot:
    """What this compiler makes of the models. ``started`` is called with the name of each."""
    generated = {}
    for model in models:
        started(model.name)
        generated[model.name] = generate(model)
    headers = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in read_headers().items()}
    return Snapshot(generated, headers)


def compare_snapshots(before: Snapshot, after: Snapshot) -> SnapshotDiff:
    """Kernels added, removed, changed or launched otherwise, by model; and headers whose text changed."""
    nothing = Generated("", {})
    models = []
    for name in dict.fromkeys([*before.models, *after.models]):
        old, new = (side.models.get(name, nothing) for side in (before, after))
        changes = compare_kernels(kernels_of(old.source), kernels_of(new.source), (old.launches, new.launches))
        if changes:
            models.append(ModelDiff(name, tuple(changes)))
    return SnapshotDiff(tuple(models), changed_facts("headers", before.headers, after.headers).changes)


# --- the baseline directory


class Baseline(BaseModel):
    model_config = ConfigDict(extra="forbid")

    launches: dict[str, dict[str, int]]
    headers: dict[str, str]


def write_baseline(directory: Path, made: Snapshot) -> None:
    """Write ``made`` as a baseline. Models that an older baseline there has and ``made`` lacks are removed."""
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / BASELINE).is_file():
        for name in _read_index(directory).launches.keys() - made.models.keys():
            _source_file(directory, name).unlink(missing_ok=True)
    for name, model in made.models.items():
        _source_file(directory, name).write_text(model.source, encoding="utf-8")
    index = Baseline(launches={name: m.launches for name, m in made.models.items()}, headers=made.headers)
    (directory / BASELINE).write_text(json.dumps(index.model_dump(), indent=1) + "\n", encoding="utf-8")


def read_baseline(directory: Path) -> Snapshot:
    """The snapshot that ``write_baseline`` wrote; OptionError where there is none, or it is damaged."""
    index = _read_index(directory)
    return Snapshot(
        {name: Generated(_read_source(directory, name), counts) for name, counts in index.launches.items()},
        index.headers,
    )


def _read_index(directory: Path) -> Baseline:
    file = directory / BASELINE
    try:
        return Baseline.model_validate_json(file.read_bytes())
    except OSError as problem:
        raise OptionError(
            f"kernels-diff requires a baseline directory, but {file} cannot be read ({problem.strerror}); "
            f"make one with xllmc kernels-diff {directory} --update"
        ) from problem
    except ValidationError as problem:
        raise OptionError(
            f"{file} is not a baseline ({problem.errors()[0]['msg']}); write it again with --update"
        ) from problem


def _read_source(directory: Path, name: str) -> str:
    file = _source_file(directory, name)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise OptionError(
            f"{directory / BASELINE} names {name}, but {file} cannot be read; write it again with --update"
        ) from problem


def _source_file(directory: Path, name: str) -> Path:
    if Path(name).name != name:
        raise OptionError(f"{directory / BASELINE} names a model {name!r}, which is no file name; write it again")
    return directory / f"{name}.cpp"
