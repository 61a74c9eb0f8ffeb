"""Logits leave the last matrix product in float32, and what follows it (soft caps) computes in float32.

div(linear(x, w): bf16, 30.0) ...   ==>   div(linear(x, w, out_dtype=f32): f32, 30.0) ...
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from ..compiler.ir.op import Op
from ..compiler.ir.program import is_call, type_of
from .api import Numerics, Pass, Report, Rewriter, Stage


@dataclass(frozen=True)
class WidenLogits(Pass):
    name: ClassVar[str] = "widen-logits"
    stage: ClassVar[Stage] = "canonical"
    numerics: ClassVar[Numerics] = "reassociating"

    def run(self, rewriter: Rewriter) -> Report:
        report = Report()
        (logits,) = rewriter.function.outputs
        if type_of(logits).dtype == "f32":
            return report
        chain = [logits]
        while not is_call(chain[-1], "linear"):
            node = chain[-1]
            pointwise = node.op == "call_function" and isinstance(node.target, Op) and node.target.traits.pointwise
            inputs = node.all_input_nodes
            if not pointwise or len(inputs) != 1:
                report.miss(logits, f"{node.name} is not a pointwise op of one value over a linear; cast at the end")
                output = rewriter.function.output
                output.replace_input_with(logits, rewriter.at(output).emit("cast", logits, dtype="f32"))
                return report
            chain.append(inputs[0])
        linear = chain.pop()
        wide: fx.Node = rewriter.at(linear).emit("linear", *linear.args, **{**linear.kwargs, "out_dtype": "f32"})
        for node in reversed(chain):
            rewriter.at(node)
            if not is_call(node, "cast"):
                operands = [wide if isinstance(a, fx.Node) else a for a in node.args]
                wide = rewriter.emit(node.target, *operands, **node.kwargs)
        rewriter.replace({logits: wide})
        rewriter.erase_dead()
        report.matches += 1
        return report
