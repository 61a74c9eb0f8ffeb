"""The ONNX model of a program's forward function: inputs and states are inputs, weights are initializers."""

import re
from collections.abc import Callable
from typing import Any

import onnx_ir
import torch

from ...compiler.ir.program import Program
from ...runtime.artifact.errors import XllmcError
from ...runtime.artifact.version import xllmc_version
from ..portable.export import export
from ..portable.quiet import quiet
from ..portable.signature import Signature

OPSET = 20
SYMBOL = re.compile(r"\bs\d+\b")
"""What torch.export calls a size that stays open."""


def onnx_model(program: Program, weight: Callable[[str], torch.Tensor]) -> onnx_ir.Model:
    """``weight`` is asked for each value when the model is written. XllmcError where the exporter lacks an op."""
    exported = export(program)
    signed = exported.signature
    try:
        with quiet():
            made = torch.onnx.export(
                exported.program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[a.name for a in signed.arguments],
                output_names=[a.name for a in signed.results],
            )
    except torch.onnx.OnnxExporterError as error:
        raise XllmcError(
            f"torch cannot write {program.facts.family} as ONNX: {' '.join(str(error).split())[:300]}; the op needs "
            "another portable form (xllmc.codegen.portable.form)"
        ) from error
    assert made is not None
    model = made.model
    model.producer_name, model.producer_version = "xllmc", xllmc_version()
    model.graph.name = "forward"
    rename_sizes(model, signed)
    forget_origins(model)
    bind_weights(model, signed, weight)
    return model


def rename_sizes(model: onnx_ir.Model, signed: Signature) -> None:
    """Sizes get the names that the program has for them: T, S, R, B, and slots_G of a group of layers."""
    names: dict[str, str] = {}
    for value, argument in zip(model.graph.inputs, signed.arguments, strict=True):
        assert value.shape is not None
        for size, known in zip(value.shape, argument.type.shape, strict=True):
            if isinstance(size, onnx_ir.SymbolicDim) and SYMBOL.fullmatch(str(size.value)):
                names[str(size.value)] = str(known)

    def renamed(size: Any) -> Any:
        if not isinstance(size, onnx_ir.SymbolicDim) or size.value is None:
            return size
        return SYMBOL.sub(lambda found: names.get(found[0], found[0]), size.value)

    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = onnx_ir.Shape([renamed(size) for size in value.shape])


def forget_origins(model: onnx_ir.Model) -> None:
    """Exporters note where each node came from: paths and lines of this machine."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in model.graph.inputs:
        value.metadata_props.clear()
    model.graph.metadata_props.clear()


def bind_weights(model: onnx_ir.Model, signed: Signature, weight: Callable[[str], torch.Tensor]) -> None:
    """Make initializers of the inputs that stand for weights. Values are read one at a time."""
    by_name = {value.name: value for value in model.graph.inputs}
    for argument in signed.arguments:
        if argument.kind != "weight":
            continue
        value = by_name[argument.name]
        assert value.dtype is not None
        model.graph.inputs.remove(value)
        value.const_value = onnx_ir.LazyTensor(
            lambda name=argument.name: onnx_ir.tensor(weight(name)),  # type: ignore[misc]
            dtype=value.dtype,
            shape=onnx_ir.Shape(argument.type.sizes),
            name=argument.name,
        )
        model.graph.register_initializer(value)
