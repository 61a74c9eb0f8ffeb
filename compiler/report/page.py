"""One self-contained HTML file: styles, scripts and data inside, nothing fetched from anywhere."""

import json
import os
import tempfile
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from .data import Report

SCRIPTS = (
    "dom",
    "graph_data",
    "fold",
    "isotonic",
    "layout",
    "route",
    "paint",
    "pane",
    "pane_input",
    "details",
    "graph_tab",
    "passes_tab",
    "kernels_tab",
    "memory_chart",
    "memory_tab",
    "main",
)
"""In the order they stand on the page: plain scripts that share one scope."""


def render(report: Report) -> str:
    """The page's HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("report.html.j2")).render(
        title=report.title,
        digest=report.digest,
        facts=report.facts,
        style=_asset("report.css"),
        script="\n".join(_asset(f"js/{name}.js") for name in SCRIPTS),
        data=embedded(asdict(report)),
    )


def embedded(value: object) -> str:
    """JSON that may stand inside a ``<script>`` element whatever text it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def write_report(report: Report, path: Path) -> None:
    """Write the page to ``path``, which holds the old page or the whole new one at any time. Raises OSError."""
    html = render(report)
    descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(html)
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


@cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")
