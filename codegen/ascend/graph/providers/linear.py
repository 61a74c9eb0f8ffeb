"""Matrix products and look-ups.

A product is rounded to its input's dtype before anything else reads it: an activation, an epilogue, a wider result.
The op's reference rounds once, at the end, so narrow results differ from it by about one more rounding.
"""

from ..call import NpuCall, provides
from ..carried import halves
from ..schemas import Value

ACTIVATIONS = {
    "none": "{}",
    "silu": "functional.silu({})",
    "relu": "functional.relu({})",
    "gelu_erf": "functional.gelu({})",
    "gelu_tanh": "functional.gelu({}, approximate='tanh')",
    "tanh": "{}.tanh()",
    "sigmoid": "{}.sigmoid()",
}


@provides("linear")
def linear(call: NpuCall) -> None:
    if call.attribute("gated"):
        product = gated(call)
    else:
        bias = call.optional(2)
        arguments = [call.tensor(0), call.tensor(1), *([bias] if bias else [])]
        product = Value(f"functional.linear({', '.join(map(str, arguments))})")
        if call.attribute("activation") != "none":
            product = Value(ACTIVATIONS[call.attribute("activation")].format(call.let("product", product)))
    finish(call, product, first_operand=3)


def gated(call: NpuCall) -> Value:
    """torch_npu's SwiGLU wants the gate in the first half and the rest in the second: the rows of the weight are put so
    when it is loaded.
    """
    rows, weight = call.attribute("gated"), call.node.args[1]
    stored = call.helper(halves, f"stored[{weight.target!r}]", rows)
    both = call.let(
        "gate_up", f"functional.linear({call.tensor(0)}, {call.writer.weight(f'{weight.target}:halves', str(stored))})"
    )
    if call.attribute("activation") == "silu":
        return call.operator("npu_swiglu", both, dim=-1)
    call.plainly(f"a gate of {call.attribute('activation')}")
    gate, up = (call.let(name, f"{both}.narrow(-1, {start}, {rows})") for name, start in (("gate", 0), ("up", rows)))
    return Value(f"{ACTIVATIONS[call.attribute('activation')].format(gate)} * {up}")


@provides("embedding")
def embedding(call: NpuCall) -> None:
    finish(call, Value(f"functional.embedding({call.tensor(1)}, {call.tensor(0)})"), first_operand=2)


def finish(call: NpuCall, product: Value, first_operand: int) -> None:
    """Apply the epilogue, if there is one, to the product, or give it the dtype that is wanted."""
    epilogue = call.attribute("epilogue")
    if epilogue:
        wide = Value(f"{call.let('product', product)}.float()")
        operands = [call.tensor(i) for i in range(first_operand, len(call.node.args))]
        call.give(*call.inline(epilogue, [call.let("wide", wide), *operands]))
    elif call.result_type.dtype == call.type(0).dtype:
        call.give(product)
    else:
        call.give(Value(f"{call.let('product', product)}.to({call.result_type.torch_dtype})"))
