"""What is kept of a measurement: one JSON object, and a line of JSON for every request."""

import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...runtime.artifact.version import xllmc_version
from ...runtime.machine import cpu_model
from .compare import ratios
from .notes import notes
from .records import Record
from .session import Measured, Part


def as_json(value: Any) -> Any:
    """Dataclasses and named tuples as objects, whatever holds them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
    if hasattr(value, "_asdict"):
        return {name: as_json(inner) for name, inner in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def results(measured: Measured, config: Mapping[str, Any]) -> dict[str, Any]:
    """What ``--json`` prints and ``results.json`` holds. Seconds and tokens, unless a name says else."""
    return {
        "bench": "serve",
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "config": as_json(config),
        "client_machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {
            "xllmc": xllmc_version(),
            "python": sys.version.split()[0],
            **{name: version(name) for name in ("aiohttp", "numpy")},
        },
        "interrupted": measured.interrupted,
        "servers": [as_json(server) for server in measured.servers],
        "lines": [
            {
                "server": line.server,
                "load": str(line.load),
                "loop": "closed" if line.load.closed else "open",
                "rate": line.load.rate,
                "concurrency": line.load.concurrency,
                "rounds": len(line.by_round),
                **as_json(line.figures),
                "notes": list(notes(line)),
            }
            for line in measured.lines
        ],
        "ratios_to_first_server": [as_json(ratio) for ratio in ratios(measured.lines)],
    }


def request_line(part: Part, record: Record) -> dict[str, Any]:
    """One request. Times are seconds from the start of its run; ``gaps_ms`` lie between its chunks."""
    return {
        "server": part.server,
        "load": str(part.load),
        "round": part.turn,
        "request": record.index,
        "scheduled": round(record.scheduled, 6),
        "sent": _rounded(record.sent),
        "first": _rounded(record.chunks[0] if record.chunks else None),
        "finished": _rounded(record.finished),
        "ended": round(record.ended, 6),
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "output_tokens": record.output_tokens,
        "asked_tokens": record.asked_tokens,
        "finish_reason": record.finish_reason,
        "attempts": record.attempts,
        "group": record.group,
        "error": as_json(record.failure),
        "gaps_ms": [round(1e3 * gap, 2) for gap in record.gaps],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
