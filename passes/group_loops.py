"""What no kernel claims becomes generated loops: chains of pointwise ops and row reductions, one loop each.

    y = tanh(div(x, 30.0));  z = mul(y, 30.0)     ==>     z = loop(x, body=(%0) { ...; return %3 })

Inside a loop, floats are float32 and rounded only where the value leaves it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import fx

from ..compiler.ir.body import Body
from ..compiler.ir.op import Op
from ..compiler.ir.program import emit, type_of
from ..compiler.ir.text import print_body
from ..compiler.ir.types import TensorType
from ..compiler.ops import OPS
from .api import Numerics, Pass, Report, Rewriter, Stage


@dataclass(frozen=True)
class GroupLoops(Pass):
    name: ClassVar[str] = "group-loops"
    stage: ClassVar[Stage] = "lowered"
    numerics: ClassVar[Numerics] = "reassociating"

    def run(self, rewriter: Rewriter) -> Report:
        report = Report()
        grouped: set[fx.Node] = set()
        for root in reversed(rewriter.calls()):
            if root in grouped or not loopable(root):
                continue
            group = self.group(root)
            grouped |= group
            body, operands = make_body(root, group)
            loop = rewriter.at(root).emit("loop", *operands, body=body)
            rewriter.replace({root: loop})
            report.matches += 1
        rewriter.erase_dead()
        return report

    def group(self, root: fx.Node) -> set[fx.Node]:
        """``root`` and the producers that only it reads, directly or through each other, over the same rows."""
        group = {root}
        width = row_width(root)
        pending = list(root.all_input_nodes)
        while pending:
            node = pending.pop()
            if node in group or not loopable(node) or not set(node.users) <= group:
                continue
            if type_of(node).shape[:-1] != type_of(root).shape[:-1] or row_width(node) not in (width, 1):
                continue
            group.add(node)
            pending.extend(node.all_input_nodes)
        return group


def loopable(node: fx.Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, Op) or not isinstance(type_of(node), TensorType):
        return False
    return bool(type_of(node).shape) and (node.target.traits.pointwise or node.target.traits.reduction)


def row_width(node: fx.Node) -> Any:
    """Elements of a row that the loop for ``node`` runs over."""
    return type_of(node.args[0] if node.target.traits.reduction else node).shape[-1]


def make_body(root: fx.Node, group: set[fx.Node]) -> tuple[Body, list[fx.Node]]:
    """The group as a graph of its own, and the outside values its placeholders stand for."""
    graph = fx.Graph()
    ordered = [n for n in root.graph.nodes if n in group]
    operands = list(dict.fromkeys(i for n in ordered for i in n.all_input_nodes if i not in group))
    inside: dict[fx.Node, fx.Node] = {}
    for i, operand in enumerate(operands):
        inside[operand] = graph.placeholder(f"input_{i}")
        inside[operand].meta["type"] = type_of(operand)
    for operand in operands:
        inside[operand] = widened(graph, inside[operand])
    for node in ordered:
        arguments = [inside[a] if isinstance(a, fx.Node) else a for a in node.args]
        value = emit(graph, node.target, *arguments, **node.kwargs)
        inside[node] = widened(graph, value) if node is not root else value
    result = inside[root]
    if type_of(result) != type_of(root):
        result = emit(graph, OPS["cast"], result, dtype=type_of(root).dtype)
    graph.output((result,))
    return Body(graph, print_body(graph)), operands


def widened(graph: fx.Graph, value: fx.Node) -> fx.Node:
    """The value in float32 if it is of a narrower float."""
    return emit(graph, OPS["cast"], value, dtype="f32") if type_of(value).dtype in ("bf16", "f16") else value
