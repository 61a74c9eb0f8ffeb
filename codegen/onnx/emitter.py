"""``--emit onnx``: a model file, and beside it its weights."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from ...compiler.emitting.emitter import ReadWeight, Runner, Verified
from ...compiler.ir.program import Program
from ...runtime.artifact.errors import XllmcError
from ..portable.packages import require_packages

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INLINE = 1024
"""Bytes up to which a tensor stays in the model file."""


class OnnxEmitter:
    """``NAME.onnx`` and ``NAME.onnx.data``, taken by ONNX's full checker."""

    name = "onnx"
    suffix = ".onnx"
    engine = "onnxruntime"
    most_checked = 1 << 30

    def require(self) -> None:
        require_packages("--emit onnx", "onnx", PACKAGES)

    def write(self, program: Program, weight: ReadWeight, file: Path) -> Verified:
        import onnx
        import onnx_ir

        from .model import OPSET, onnx_model

        model = onnx_model(program, weight)
        onnx_ir.save(model, file, external_data=f"{file.name}.data", size_threshold_bytes=INLINE)
        try:
            onnx.checker.check_model(os.fspath(file), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise XllmcError(
                f"the ONNX model of {program.facts.family} does not pass ONNX's checker, which is a fault of xllmc: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error
        return Verified(f"ONNX checker {onnx.__version__}", {"operators": len(list(model.graph)), "opset": OPSET})

    def load(self, file: Path) -> Runner:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(os.fspath(file), options, providers=["CPUExecutionProvider"])
        taken = [i.name for i in session.get_inputs()]
        given = [o.name for o in session.get_outputs()]

        def run(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            results = session.run(given, {name: values[name].numpy() for name in taken})
            return {name: torch.from_numpy(value) for name, value in zip(given, results, strict=True)}

        return run
