"""The Linalg module of a program's forward function, through torch-mlir's importer of exported programs."""

from dataclasses import dataclass

import torch
from torch_mlir import fx
from torch_mlir.compiler_utils import TorchMlirCompilerError
from torch_mlir.extras.fx_decomp_util import get_decomposition_table

from ...compiler.ir.program import Program
from ...runtime.artifact.errors import XllmcError
from ..portable.export import export
from ..portable.quiet import quiet
from ..portable.signature import Signature
from .scatter import put_rows

FUNCTION = "forward"


@dataclass(frozen=True)
class LinalgModule:
    text: str
    """A module of one function, ``forward``, on tensors; dialects that upstream MLIR has, and no others."""
    signature: Signature
    """Its arguments and results in order."""


def linalg_module(program: Program) -> LinalgModule:
    """Verified; nothing of the model's size is in it. XllmcError where torch-mlir cannot lower the program."""
    exported = export(program)
    table = get_decomposition_table() | {torch.ops.aten.index_put.default: put_rows}
    try:
        with quiet():
            module = fx.export_and_import(
                exported.program, output_type="linalg-on-tensors", func_name=FUNCTION, decomposition_table=table
            )
    except TorchMlirCompilerError as error:
        reason = next((line for line in str(error).splitlines() if "error:" in line), str(error))
        raise XllmcError(
            f"torch-mlir cannot lower {program.facts.family}: {' '.join(reason.split())[:300]}; the op needs another "
            "portable form (xllmc.codegen.portable.form)"
        ) from error
    if not module.operation.verify():
        raise XllmcError(f"torch-mlir made an invalid module of {program.facts.family}, which is a fault of torch-mlir")
    return LinalgModule(str(module), exported.signature)
