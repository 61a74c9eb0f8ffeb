"""``xllmc bench tune``."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .command import SIZES, chosen


def tune_command(
    out: Annotated[
        Path, typer.Option("--output", "-o", help="The file of choices; what is in it and not tuned stays.")
    ],
    size: Annotated[list[str] | None, typer.Option(help=f"Geometry: {', '.join(SIZES)}; default: all.")] = None,
    dtype: Annotated[str, typer.Option(help="Of weights and activations: bf16, fp16 or fp32.")] = "bf16",
    candidates: Annotated[int, typer.Option(min=1, help="To time for each product and range of rows.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Choose tiles of matrix products by measuring them on this machine's GPU."""
    from ..cli import say
    from ..models import make_model
    from .device import architecture as name_of_device
    from .device import describe, require_torch

    sizes = chosen(size, SIZES, "--size")
    torch = require_torch()
    from triton.testing import do_bench

    from ...codegen.triton.architecture import architecture
    from ...codegen.triton.tuned import Choices
    from .tune import merged, products, tune

    machine = architecture(name_of_device(torch))
    found = []
    with tempfile.TemporaryDirectory(prefix="xllmc-") as temporary:
        for name in sizes:
            model = make_model(Path(temporary) / f"{name}.model", SIZES[name])
            program, nodes = products(model, f"cuda:{machine.name}", dtype)
            found += list(tune(torch, program, nodes, machine, candidates, do_bench, say))
    record = describe(torch)
    known = Choices.model_validate_json(out.read_bytes()) if out.exists() else None
    whole = merged(known, found, f"{record.name}, driver {record.driver}, clocks {record.sm_clock_mhz} MHz")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}")
    aside.write_text(whole.model_dump_json(indent=1) + "\n")
    aside.replace(out)
    told = {"output": str(out), "tuned": len(found), "choices": len(whole.choices)}
    print(json.dumps(told) if as_json else f"{out}: {len(found)} choices measured, {len(whole.choices)} in all")
