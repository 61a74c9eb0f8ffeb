"""A program's forward function through torch.export: states and weights are arguments, sizes stay open."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch._dynamo.exc import UserError
from torch._subclasses.fake_tensor import FakeTensorMode

from ...compiler.ir.dims import Dim, evaluate
from ...compiler.ir.program import Program
from ...runtime.artifact.errors import XllmcError
from . import attention as attention  # which registers its form
from .quiet import quiet
from .signature import Argument, Signature, signature
from .step import Step

TRACED = {"T": 11, "S": 3, "S+1": 4, "R": 5, "B": 7}
"""Sizes of the traced example; other symbols take the next odd numbers."""
DIM_NAMES = {"T": "tokens", "S": "sequences", "R": "rows", "B": "columns"}
"""By symbol: torch.export reads a name as an expression, in which ``S`` is something else."""
TRACED_OTHERS = 13
LARGEST = (1 << 31) - 2


@dataclass(frozen=True)
class Exported:
    program: torch.export.ExportedProgram
    """Takes and gives the signature's tensors in order; changes none of them."""
    signature: Signature


def export(program: Program) -> Exported:
    """Nothing of the model's size is allocated. XllmcError with the reason where an op's form cannot be traced."""
    signed = signature(program)
    names = symbols_of(signed.arguments)
    sizes = dict(zip((n for n in names if n not in TRACED), count(TRACED_OTHERS, 2))) | TRACED
    with FakeTensorMode():
        example = tuple(
            torch.zeros([evaluate(s, sizes) for s in a.type.shape], dtype=a.type.torch_dtype) for a in signed.arguments
        )
    dims = export_dims(names)
    shapes = tuple(
        {axis: dims[str(s)] for axis, s in enumerate(a.type.shape) if isinstance(s, Dim)} for a in signed.arguments
    )
    try:
        with quiet():
            made = torch.export.export(Step(program), example, dynamic_shapes={"tensors": shapes}, strict=False)
    except (RuntimeError, ValueError, TypeError, UserError) as error:
        raise XllmcError(
            f"{program.facts.family} cannot be exported: {' '.join(str(error).split())[:300]}; an op whose reference "
            "cannot be traced needs a portable form (xllmc.codegen.portable.form)"
        ) from error
    drop_assertions(made)
    return Exported(made, signed)


def export_dims(symbols: Iterable[str]) -> dict[str, Any]:
    """torch.export's dimension by symbol; S+1 is one more than S."""
    dims = {name: torch.export.Dim(DIM_NAMES.get(name, name), min=1, max=LARGEST) for name in symbols if name != "S+1"}
    return dims | {"S+1": dims["S"] + 1} if "S" in dims else dims


def symbols_of(arguments: Iterable[Argument]) -> list[str]:
    return list(dict.fromkeys(str(s) for a in arguments for s in a.type.shape if isinstance(s, Dim)))


def drop_assertions(made: torch.export.ExportedProgram) -> None:
    """Take out what only repeats the dtypes that the trace saw."""
    for node in list(made.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            made.graph.erase_node(node)
    made.graph_module.recompile()
