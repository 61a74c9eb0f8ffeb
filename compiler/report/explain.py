"""From an engine and the passes that made it to the page."""

from collections.abc import Sequence
from pathlib import Path

from ...runtime.artifact.reader import read_manifest, read_plan
from ..pipeline.replay import read_traced
from .data import make_report
from .kernels import read_sources
from .page import write_report
from .steps import Costs, Step


def explain_html(engine_dir: Path, steps: Sequence[Step], costs: Costs | None, path: Path) -> None:
    """Write the report of the engine ``engine_dir`` to the HTML file ``path``.

    ``steps``: the passes that made it, in order. ``costs``: microseconds of its kernels, where they are known. Raises
    ArtifactError for an engine that is not whole, OSError where ``path`` cannot be written.
    """
    manifest = read_manifest(engine_dir, libraries=False)
    report = make_report(
        name=engine_dir.resolve().name,
        manifest=manifest,
        plan=read_plan(engine_dir),
        traced=read_traced(engine_dir, manifest),
        steps=steps,
        sources=read_sources(engine_dir, manifest),
        costs=costs or {},
    )
    write_report(report, path)
