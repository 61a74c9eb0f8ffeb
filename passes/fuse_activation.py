"""An activation applied to a matrix product becomes its epilogue.

gelu_tanh(linear(x, w, b))   ==>   linear(x, w, b, activation=gelu_tanh)
"""

from dataclasses import dataclass
from typing import ClassVar

from ..compiler.ir.program import is_call
from ..compiler.ops.linear import ACTIVATIONS
from .api import Numerics, Pass, Report, Rewriter, Stage


@dataclass(frozen=True)
class FuseActivation(Pass):
    name: ClassVar[str] = "fuse-activation"
    stage: ClassVar[Stage] = "fused"
    numerics: ClassVar[Numerics] = "reassociating"

    def run(self, rewriter: Rewriter) -> Report:
        report = Report()
        for node in rewriter.calls(*(a for a in ACTIVATIONS if a != "none")):
            linear = node.args[0]
            if not is_call(linear, "linear"):
                report.miss(node, f"activates {getattr(linear, 'name', linear)}, which is not a linear")
            elif set(linear.users) != {node} or linear.kwargs:
                report.miss(node, "its linear is read elsewhere too, or has an epilogue already")
            else:
                new = rewriter.at(node).emit("linear", *linear.args, activation=node.target.name)
                rewriter.replace({node: new})
                report.matches += 1
        rewriter.erase_dead()
        return report
