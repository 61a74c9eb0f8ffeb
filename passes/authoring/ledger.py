"""What a graph was, and what a pass may have made of it: whatever else changed was changed behind the checks' back."""

from collections.abc import Iterable
from typing import Any

from torch import fx

from ...compiler.ir.program import Program

Written = tuple[Any, tuple[Any, ...], dict[str, Any], Any]
"""A node's target, operands, attributes and type."""


class Ledger:
    """Knows every node of a graph as it was, and every change that went through the rewriter."""

    def __init__(self, program: Program, graph: fx.Graph) -> None:
        self._program = program
        self._graph = graph
        self._weights = dict(program.weights)
        self._nodes = {node: _written(node) for node in graph.nodes}
        self._became: dict[fx.Node, list[fx.Node]] = {}

    def replaced(self, old: fx.Node, new: fx.Node, created: Iterable[fx.Node]) -> None:
        """A replacement that will be compared, made of these new nodes."""
        self._nodes |= {node: _written(node) for node in created}
        self._became.setdefault(old, []).append(new)

    def unrecorded(self) -> str | None:
        """The first change that no replacement accounts for, in words."""
        for node in self._graph.nodes:
            known = self._nodes.get(node)
            if known is None:
                if node.op != "get_attr":
                    return f"%{node.name} = {node.target}(...) was put in"
            elif not self._accounted(known, _written(node)):
                return f"%{node.name} was changed"
        for name, weight in self._weights.items():
            now = self._program.weights.get(name, weight)
            if (now.type, now.recipe) != (weight.type, weight.recipe):
                return f"weight @{name} was changed"
        return None

    def _accounted(self, before: Written, after: Written) -> bool:
        target, operands, attributes, kind = before
        if (target, attributes, kind) != (after[0], after[2], after[3]) or len(operands) != len(after[1]):
            return False
        return all(now == was or self._reaches(was, now) for was, now in zip(operands, after[1], strict=True))

    def _reaches(self, old: Any, new: Any) -> bool:
        """Whether ``new`` came to stand for ``old`` by replacements."""
        stack, seen = [old], set()
        while stack:
            node = stack.pop()
            if node is new:
                return True
            if isinstance(node, fx.Node) and node not in seen:
                seen.add(node)
                stack += self._became.get(node, ())
        return False


def _written(node: fx.Node) -> Written:
    operands = node.args[0] if node.op == "output" else node.args
    return node.target, tuple(operands), dict(node.kwargs), node.meta.get("type")
