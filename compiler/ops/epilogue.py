"""What a kernel does to its product before it stores it: pointwise ops on float32, given as a body.

The body's first placeholder is the product, in float32 and not yet rounded; the others are further operands.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..ir.body import Body
from ..ir.interpret import run_graph
from ..ir.polynomial import Polynomial
from ..ir.program import type_of
from ..ir.types import TensorType
from .typing import require


def apply_epilogue(epilogue: Body, product: torch.Tensor, operands: Sequence[torch.Tensor]) -> Any:
    """The body's value. ``product`` is float32."""
    return run_graph(epilogue.graph, [product, *operands])[0]


def epilogue_type(epilogue: Body | None, product: TensorType, operands: Sequence[TensorType]) -> TensorType:
    """The type of the result, with an epilogue or without; TypeError where operands do not suit body or product."""
    if epilogue is None:
        require(not operands, f"only an epilogue reads further operands, got {', '.join(map(str, operands))}")
        return product
    expected = [type_of(n) for n in epilogue.inputs]
    given = [product.with_dtype("f32"), *operands]
    require(given == expected, f"the epilogue takes {list(map(str, expected))}, got {list(map(str, given))}")
    for kind in operands:
        require(suits_epilogue(kind, product), f"an epilogue of {product} cannot read {kind} element by element")
    require(len(epilogue.outputs) == 1, f"an epilogue has one result, not {len(epilogue.outputs)}")
    result: TensorType = type_of(epilogue.outputs[0])
    require(result.shape == product.shape, f"an epilogue of {product} cannot give {result}")
    return result


def suits_epilogue(operand: object, product: TensorType) -> bool:
    """Whether it can be read beside the product: of its shape, one row for all, or one number a row."""
    if not isinstance(operand, TensorType) or operand.dtype not in ("f32", "bf16", "f16"):
        return False
    leading, width = product.shape[:-1], product.shape[-1]
    return operand.shape in (product.shape, (width,), (*leading, 1))


def epilogue_flops(epilogue: Body | None) -> Polynomial:
    calls = [n for n in epilogue.graph.nodes if n.op == "call_function"] if epilogue else []
    return sum((n.target.cost_model(*map(type_of, n.args), **n.kwargs).flops for n in calls), Polynomial())
