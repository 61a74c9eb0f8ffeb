"""Generated kernels that move elements and compute nothing: slices, concatenations and permutations of rows."""

from math import prod

from torch import fx

from ...compiler.ir.program import is_call, type_of
from .kernel import KernelCall, c_type, fixed


def write_copy(call: KernelCall) -> None:
    """Give ``call`` the text that moves elements for a slice, a concatenation or a permutation."""
    node = call.node
    call.template = node.target.name
    shape = type_of(node).shape
    element = c_type(type_of(node))
    lines = ["for (auto [row, end] = share(*worker, rows); row < end; row++) {"]
    head = []
    for index, operand in enumerate(node.args):
        call.value(operand)
        head.append(f"const {element}* in{index} = {call.arguments[-1]};")
    call.result()
    head.append(f"{element}* out = {call.arguments[-1]};")
    call.size(shape[0])
    head.append(f"const int64_t rows = {call.arguments[-1]};")
    inner = [fixed(s, f"an axis of {node.name}") for s in shape[1:]]
    if is_call(node, "permute"):
        lines += _permuted(node, inner)
    else:
        axis = int(node.kwargs["axis"])
        if axis == 0:
            raise ValueError(f"{node.name} moves tokens between rows, which no CPU kernel does")
        outer, tail = prod(inner[: axis - 1]), prod(inner[axis:])
        place = 0
        for index, operand in enumerate(node.args):
            size = fixed(type_of(operand).shape[axis], "an axis")
            begin, count = (int(node.kwargs["start"]), inner[axis - 1]) if is_call(node, "slice") else (0, size)
            lines.append(f"    for (int j = 0; j < {outer}; j++)")
            lines.append(
                f"        memcpy(out + (row * {outer} + j) * {inner[axis - 1] * tail} + {place * tail}, "
                f"in{index} + (row * {outer} + j) * {size * tail} + {begin * tail}, {count * tail} * sizeof(*out));"
            )
            place += count
    call.definition = "\n".join([*head, *lines, "}"])


def _permuted(node: fx.Node, inner: list[int]) -> list[str]:
    axes = node.kwargs["axes"]
    if axes[0] != 0:
        raise ValueError(f"{node.name} moves the token axis, which no CPU kernel does")
    source = [fixed(s, "an axis") for s in type_of(node.args[0]).shape[1:]]
    strides = [prod(source[i + 1 :]) for i in range(len(source))]
    lines, index = [], []
    for depth, size in enumerate(inner):
        lines.append(f"    for (int j{depth} = 0; j{depth} < {size}; j{depth}++)")
        index.append(f"j{depth} * {strides[axes[depth + 1] - 1]}")
    place = "row"
    for depth, size in enumerate(inner):
        place = f"({place}) * {size} + j{depth}"
    lines.append(f"        out[{place}] = in0[row * {prod(source)} + {' + '.join(index)}];")
    return lines
