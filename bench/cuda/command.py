"""``xllmc bench cuda``: every figure that is claimed of GPUs, by one command, with what it was measured on."""

import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ...runtime.artifact.errors import OptionError
from ..models import QWEN3_0_6B, QWEN3_8B

SIZES = {"0.6b": QWEN3_0_6B, "8b": QWEN3_8B}
PARTS = ("parity", "speed", "invariant", "peer")


def cuda_command(
    size: Annotated[list[str] | None, typer.Option(help=f"Geometry: {', '.join(SIZES)}; default: all.")] = None,
    part: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; default: all.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each figure is taken.")] = 3,
    keep: Annotated[Path | None, typer.Option(help="Keep models and engines in this directory.")] = None,
    record: Annotated[Path | None, typer.Option(help="Write figures, device and versions to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Speed and parity on this machine's GPU; weights of the measured geometries are made up on the device."""
    from ..cli import say
    from .device import require_torch
    from .measure import measure  # torch, which other benches do without
    from .report import report

    sizes, parts = chosen(size, SIZES, "--size"), chosen(part, PARTS, "--part")
    torch = require_torch()
    with tempfile.TemporaryDirectory(prefix="xllmc-") as temporary:
        figures = measure(torch, keep or Path(temporary), sizes, parts, rounds, say)
    whole = asdict(figures)
    if record:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(whole, indent=1) + "\n")
    print(json.dumps(whole) if as_json else report(figures))


def chosen(given: list[str] | None, known: Iterable[str], option: str) -> list[str]:
    """What was asked for, in the order of ``known``. Raises OptionError for what is not among it."""
    if unknown := [name for name in given or () if name not in known]:
        raise OptionError(f"{option} must be one of {', '.join(known)}, got {unknown[0]!r}")
    return [name for name in known if not given or name in given]
