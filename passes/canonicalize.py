"""Remove what does nothing, say the same thing one way, compute the same thing once.

reshape(reshape(x, A), B)  ==>  reshape(x, B)          cast(x: f32, f32), mul(x, 1.0), add(x, 0.0)  ==>  x
f(x), f(x)                 ==>  f(x)                   what nothing reads                            ==>  gone
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from ..compiler.ir.program import is_call, mutates_state, type_of
from ..compiler.ir.text import print_value
from .api import Pass, Report, Rewriter, Stage


@dataclass(frozen=True)
class Canonicalize(Pass):
    name: ClassVar[str] = "canonicalize"
    stage: ClassVar[Stage] = "canonical"

    def run(self, rewriter: Rewriter) -> Report:
        report = Report()
        changed = True
        while changed:
            changed = False
            seen: dict[str, fx.Node] = {}
            for node in rewriter.calls():
                same = self.simpler(rewriter, node)
                if same is None:
                    key = f"{node.target.name}({', '.join(map(print_value, node.args))}; {node.kwargs})"
                    known = seen.setdefault(key, node)
                    same = known if known is not node and not mutates_state(node) else None
                if same is not None:
                    rewriter.replace({node: same})
                    rewriter.graph.erase_node(node)
                    report.matches += 1
                    changed = True
            report.matches += rewriter.erase_dead()
        return report

    def simpler(self, rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
        """A value that already equals ``node``, or a simpler one made for it."""
        if not node.args:
            return None
        x = node.args[0]
        if is_call(node, "reshape", "cast", "slice") and type_of(x) == type_of(node):
            return x
        identity = {"mul": 1.0, "div": 1.0, "add": 0.0, "sub": 0.0}
        if is_call(node, *identity) and node.args[1] == identity[node.target.name]:
            return x
        if is_call(node, "reshape") and is_call(x, "reshape"):
            return rewriter.at(node).emit("reshape", x.args[0], shape=node.kwargs["shape"])
        return None
