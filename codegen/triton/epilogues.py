"""What a kernel does to a tile of float32 results before it stores it, as the templates' ``finish``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from ...compiler.ir.body import Body
from ...compiler.ir.program import type_of
from .expressions import Expressions, functions_of, stored
from .kernel import Argument, TritonCall


@dataclass(frozen=True)
class Finish:
    """An epilogue as Triton text."""

    operands: dict[str, Argument]
    """Parameters of the kernel that stores, its result among them."""
    statements: tuple[str, ...]
    """They read the tile ``value`` at ``row`` and ``column``, with the masks ``row_inside``, ``column_inside``, and
    ``inside`` at ``place`` of both.
    """
    result: str
    """The name of what is to be stored."""
    functions: tuple[str, ...]
    """What the statements, and an activation before them, call of ``activations.py.j2``."""


def finish_of(call: TritonCall, operands: Sequence[Any], activation: str = "none") -> Finish:
    """The epilogue of the call's node over ``operands``, or none. Raises ValueError for a body it cannot compute."""
    body: Body | None = call.node.kwargs.get("epilogue")
    given = {f"e{number}": call.value(operand) for number, operand in enumerate(operands, 1)} if body else {}
    parameters = given | {"out": call.result()}
    if body is None:
        return Finish(parameters, (), "value", tuple(sorted(functions_of(activation))))
    product, *others = body.inputs

    def load(node: fx.Node, at: int) -> str:
        pointer, kind, shape = f"e{others.index(node) + 1}", type_of(node), type_of(product).shape
        if kind.shape == shape:
            return f"tl.load({pointer} + place, inside, 0.0)"
        if kind.shape == shape[-1:]:
            return f"tl.load({pointer} + column, column_inside, 0.0)[None, :]"
        return f"tl.load({pointer} + row, row_inside, 0.0)[:, None]"

    made = Expressions(load, {product: "value"})
    result = made.name(stored(body.outputs[0]))
    functions = made.functions | functions_of(activation)
    return Finish(parameters, tuple(made.statements), result, tuple(sorted(functions)))
