"""Generated epilogues: what a header's kernel does to a vector of its product before it stores it."""

from collections.abc import Sequence

from torch import fx

from ...compiler.ir.body import Body
from ...compiler.ir.program import type_of
from .kernel import KernelCall
from .loops import load_text
from .vectors import Vectors, stored


def write_epilogue(call: KernelCall, operands: Sequence[fx.Node]) -> None:
    """Give ``call``, a kernel whose other arguments are complete, its node's epilogue over ``operands``."""
    body: Body = call.node.kwargs["epilogue"]
    arguments, call.arguments = call.arguments, []
    lines = []
    for number, operand in enumerate(operands, 1):
        call.value(operand)
        lines.append(f"const auto* e{number} = {call.arguments.pop()};")
    product, *others = body.inputs
    lines.append(f"{call.function_name}({', '.join([*arguments, '*worker'])},")
    lines.append("    [=](F16 value, int64_t row, int column, int n) {")
    known = {product: "value"}

    def load(node: fx.Node, at: int) -> str:
        kind, shape = type_of(node), type_of(product).shape
        pointer = f"e{others.index(node) + 1}"
        if kind.shape == shape:
            return load_text(kind, f"{pointer} + row * {shape[-1]} + column", "n")
        if kind.shape == shape[-1:]:
            return load_text(kind, f"{pointer} + column", "n")
        return f"set1(float({pointer}[row]))"

    vectors = Vectors(load, known)
    result = vectors.name(stored(body.outputs[0]), 0)
    lines += [f"        {statement}" for statement in vectors.statements]
    lines += [f"        return {result};", "    });"]
    call.definition = "\n".join(lines)
