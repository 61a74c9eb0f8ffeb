"""An engine's passes once more, from the traced graph that it ships: what each did, and where."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...models.family import Family
from ...passes.api import Pass
from ...runtime.artifact.errors import ArtifactError, OptionError
from ...runtime.artifact.reader import read_manifest
from ...runtime.artifact.schema import Manifest, PassRecord
from ..ir.parse import GraphSyntaxError, parse_program
from ..ir.program import Program
from ..ops import OPS
from .listing import target_named
from .options import configured
from .plugins import installed_objects, installed_passes
from .run import PassReport, RunOptions, run


@dataclass(frozen=True)
class Replay:
    manifest: Manifest
    traced: Program
    steps: tuple[tuple[PassReport, Program], ...]
    """Each pass's report and the program after it, in order."""


def replay(engine: Path) -> Replay:
    """Run the engine's passes again, unchecked: they were checked when it was compiled.

    Raises ArtifactError where the engine is damaged, OptionError where a pass or plugin that made it is not installed
    in the version that it names.
    """
    manifest = read_manifest(engine)
    ran = [r for r in manifest.passes if not any(m.startswith("skipped: ") for m in r.near_misses)]
    passes = recorded_passes(manifest, ran)
    traced = read_traced(engine, manifest)
    steps: list[tuple[PassReport, Program]] = []
    run(
        traced,
        passes,
        RunOptions(verification="off"),
        after=lambda report, program: steps.append((report, program)),
    )
    for record, (report, _) in zip(ran, steps, strict=True):
        if record.matches != report.matches:
            raise OptionError(
                f"pass {record.name} matches {report.matches} sites, but {record.matches} when {engine} was compiled "
                f"by xllmc {manifest.xllmc}; compile it again to explain it"
            )
    return Replay(manifest, traced, tuple(steps))


def read_traced(engine: Path, manifest: Manifest) -> Program:
    """The program before any pass."""
    place = engine / manifest.graphs.get("traced", "graph/traced.txt")
    try:
        return parse_program(place.read_text(encoding="utf-8"), OPS)
    except (OSError, UnicodeDecodeError, GraphSyntaxError) as error:
        raise ArtifactError(f"{place} cannot be read ({error}); compile the engine again") from error


def recorded_passes(manifest: Manifest, records: Sequence[PassRecord]) -> Sequence[Pass]:
    """The passes that made the engine, with its options."""
    origins = [*(o for _, o in installed_passes()), *(o for _, o in installed_objects("xllmc.models", Family))]
    installed = {origin.name: origin.version for origin in origins if origin.plugin}
    for plugin in manifest.plugins:
        found = installed.get(plugin.name)
        if (plugin.passes or plugin.family) and found != plugin.version:
            raise OptionError(
                f"the engine was made with plugin {plugin.name} {plugin.version}, but "
                f"{f'{plugin.name} {found}' if found else 'no version of it'} is installed; install that version, or "
                "compile the engine again"
            )
    target, _ = target_named(manifest.target)
    known = {found.name: found for found, _ in installed_passes()} | {f.name: f for f in target.passes()}
    missing = [r.name for r in records if r.name not in known]
    if missing:
        raise OptionError(
            f"the engine was made by pass {missing[0]}, which is not installed; known: {', '.join(known)}"
        )
    return [configured(known[r.name], r.options) for r in records]
