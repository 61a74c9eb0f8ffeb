"""Kernels that move elements and compute nothing: slices, concatenations, and permutations of each row's axes."""

from math import prod
from typing import NamedTuple

from torch import fx

from ....compiler.ir.dims import product, whole
from ....compiler.ir.program import is_call, type_of
from ..kernel import Config, TritonCall, axis, power_of_two
from ..registering import provides

ELEMENTS = 1024
"""Of one program: 8 a thread, so that a copy of bf16 goes in pieces of 16 bytes."""


class Part(NamedTuple):
    """What one operand gives to every line: ``taken`` elements from ``begin`` of its line, which is ``width`` long."""

    width: int
    begin: int
    taken: int
    place: int
    """Where they go in a line of the result."""


@provides("slice", "concat")
def copy(call: TritonCall) -> None:
    """Everything up to the axis is lines; the axis and what is behind it are a line's elements."""
    node = call.node
    position, shape = int(node.kwargs["axis"]), type_of(node).shape
    tail = prod(map(whole, shape[position + 1 :]))
    parts = parts_of(node, position, tail)
    longest = max(part.taken for part in parts)
    block = min(power_of_two(longest), ELEMENTS)
    rows, columns = ELEMENTS // block, -(-longest // block)
    lines = product(shape[:position])
    call.launch(
        node.target.name,
        "copy.py.j2",
        {f"in{i}": call.value(operand) for i, operand in enumerate(node.args)} | {"out": call.result()},
        (axis(lines, rows), axis(columns)),
        Config({"ROWS": rows, "BLOCK": block}, stages=1),
        lines=call.count(lines),
        parts=parts,
        covered=columns * block,
        width=whole(shape[position]) * tail,
    )


def parts_of(node: fx.Node, position: int, tail: int) -> list[Part]:
    sizes = [whole(type_of(operand).shape[position]) * tail for operand in node.args]
    if is_call(node, "slice"):
        start, stop = int(node.kwargs["start"]) * tail, int(node.kwargs["stop"]) * tail
        return [Part(sizes[0], start, stop - start, 0)]
    return [Part(size, 0, size, sum(sizes[:i])) for i, size in enumerate(sizes)]


@provides("permute")
def permute(call: TritonCall) -> None:
    """Elements in the result's order, each read where it stands."""
    node = call.node
    axes, shape = node.kwargs["axes"], type_of(node).shape
    if axes[0] != 0:
        raise ValueError(f"{node.name} moves the token axis, which no device kernel does")
    source = list(map(whole, type_of(node.args[0]).shape[1:]))
    strides = [prod(source[i + 1 :]) for i in range(len(source))]
    terms, divisor = [], 1
    for old, size in zip(reversed(axes[1:]), reversed(shape[1:]), strict=True):
        terms.append((divisor, whole(size), strides[old - 1]))
        divisor *= whole(size)
    block = min(power_of_two(divisor), ELEMENTS)
    call.launch(
        "permute",
        "permute.py.j2",
        {"x": call.value(node.args[0]), "out": call.result()},
        (axis(shape[0]), axis(-(-divisor // block))),
        Config({"BLOCK": block}, stages=1),
        rows=call.count(shape[0]),
        width=divisor,
        terms=terms,
    )
