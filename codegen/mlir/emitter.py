"""``--emit mlir``: a Linalg module, what its arguments are, and the values of those that are weights."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ...compiler.emitting.emitter import ReadWeight, Runner, Verified
from ...compiler.ir.program import Program
from ...compiler.ir.types import TORCH_DTYPES
from ...runtime.artifact.pages import PAGE_TOKENS
from ...runtime.artifact.recipe import Tensor
from ...runtime.artifact.safetensors_file import SafetensorsFile, TensorLayout, write_safetensors
from ..portable.packages import require_packages
from ..portable.signature import Signature

SYMBOLS = {
    "T": "tokens",
    "S": "sequences",
    "R": "rows whose logits are wanted",
    "B": "columns of block tables",
    "slots_G": "key-value slots of the layers of group G",
}


class MlirEmitter:
    """``NAME.mlir``; ``NAME.mlir.json`` describes its arguments in order, ``NAME.mlir.safetensors`` has the weights."""

    name = "mlir"
    suffix = ".mlir"
    engine = "MLIR's execution engine"
    most_checked = 1 << 26

    def require(self) -> None:
        require_packages("--emit mlir", "mlir", ("torch_mlir",))

    def write(self, program: Program, weight: ReadWeight, file: Path) -> Verified:
        from .module import FUNCTION, linalg_module

        module = linalg_module(program)
        file.write_text(module.text, encoding="utf-8")
        write_weights(module.signature, weight, beside(file, "safetensors"))
        described = describe(module.signature, FUNCTION, beside(file, "safetensors").name)
        beside(file, "json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        return Verified(f"MLIR's verifier (torch-mlir {version('torch-mlir')})", {"lines": module.text.count("\n")})

    def load(self, file: Path) -> Runner:
        from .jit import JitFunction

        described = json.loads(beside(file, "json").read_text(encoding="utf-8"))
        arguments, results = described["arguments"], described["results"]
        shapes = [(len(r["shape"]), torch.empty(0, dtype=TORCH_DTYPES[r["dtype"]]).numpy().dtype) for r in results]
        function = JitFunction(file.read_text(encoding="utf-8"), described["function"], shapes)
        weights = SafetensorsFile(beside(file, "safetensors"))

        def run(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            given = [
                weights[a["name"]].values if a["kind"] == "weight" else values[a["name"]].contiguous().numpy()
                for a in arguments
            ]
            return {r["name"]: torch.from_numpy(v) for r, v in zip(results, function(*given), strict=True)}

        return run


def beside(file: Path, suffix: str) -> Path:
    return file.with_name(f"{file.name}.{suffix}")


def describe(signed: Signature, function: str, weights: str) -> dict[str, Any]:
    return {
        "function": function,
        "arguments": [a.to_json() for a in signed.arguments],
        "results": [r.to_json() for r in signed.results],
        "symbols": SYMBOLS,
        "page_tokens": PAGE_TOKENS,
        "weights": weights,
    }


def write_weights(signed: Signature, weight: ReadWeight, file: Path) -> None:
    """One tensor in memory at a time."""
    layouts = [TensorLayout(a.name, a.type.dtype, a.type.sizes) for a in signed.arguments if a.kind == "weight"]

    def produce(layout: TensorLayout) -> Tensor:
        value = weight(layout.name).contiguous()
        carrier = value.view(torch.uint16) if layout.dtype == "bf16" else value
        return Tensor(carrier.numpy(), layout.dtype)

    with file.open("wb") as sink:
        for _ in write_safetensors(sink, layouts, produce):
            pass
