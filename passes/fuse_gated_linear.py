"""A gated MLP's two projections become one matrix product whose epilogue applies the gate (Shazeer, 2020).

    mul(silu(linear(x, gate)), linear(x, up))   ==>   linear(x, interleave(gate, up), activation=silu, gated=N)

The weights alternate in blocks of half a panel, so that a gate and its partner meet in one kernel's registers.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from ..compiler.ir.program import Weight, is_weight, type_of
from ..compiler.ops.linear import ACTIVATIONS, GATE_BLOCK
from ..runtime.artifact.recipe import Recipe
from .api import Numerics, Pass, Report, Rewriter, Stage
from .matcher import anything, call, match


@dataclass(frozen=True)
class FuseGatedLinear(Pass):
    name: ClassVar[str] = "fuse-gated-linear"
    stage: ClassVar[Stage] = "fused"
    numerics: ClassVar[Numerics] = "reassociating"

    def run(self, rewriter: Rewriter) -> Report:
        names = "|".join(a for a in ACTIVATIONS if a != "none")
        pattern = call("mul", call(names, anything("gate"), binds="activation"), anything("up"))
        report = Report()
        for node in rewriter.calls("mul"):
            found = match(pattern, node)
            if found is None:
                continue
            gate, up = found["gate"], found["up"]
            if reason := self.refuses(gate, up):
                report.miss(node, reason)
                continue
            self.fuse(rewriter, node, gate, up, found["activation"].target.name)
            report.matches += 1
        rewriter.erase_dead()
        return report

    def refuses(self, gate: fx.Node, up: fx.Node) -> str | None:
        for side in (gate, up):
            if side.op != "call_function" or side.target.name != "linear":
                return f"{side.name} is not a linear"
            if side.kwargs or side.args[2] is not None or not is_weight(side.args[1]):
                return f"{side.name} has a bias or an epilogue already"
            if len(side.users) != 1:
                return f"{side.name} is read elsewhere too"
        if gate.args[0] is not up.args[0]:
            return "gate and up read different inputs"
        if type_of(gate) != type_of(up):
            return f"gate {type_of(gate)} and up {type_of(up)} differ"
        return None

    def fuse(self, rewriter: Rewriter, node: fx.Node, gate: fx.Node, up: fx.Node, activation: str) -> None:
        weights = [rewriter.program.weights[n.args[1].target] for n in (gate, up)]
        rows, inner = weights[0].type.sizes
        padded = -(-rows // GATE_BLOCK) * GATE_BLOCK
        recipe = Recipe.of("interleave", *(w.recipe for w in weights), block=GATE_BLOCK)
        joined = Weight(weights[0].type.with_shape(2 * padded, inner), recipe)
        name = f"{parent(gate.args[1].target)}.gate_up"
        new = rewriter.at(node).emit(
            "linear", gate.args[0], rewriter.weight(name, joined), None, activation=activation, gated=rows
        )
        rewriter.replace({node: new})


def parent(weight_name: str) -> str:
    """``model.layers.0.mlp`` of ``model.layers.0.mlp.gate_proj.weight``."""
    return ".".join(weight_name.split(".")[:-2])
