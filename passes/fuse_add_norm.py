"""A residual addition and the norm that reads it become one op, so that the sum is read and written once.

s = add(x, r)                  s, y = add_rms_norm(x, r, w, eps)
y = rms_norm(s, w, eps)  ==>   (layer_norm likewise)
"""

from dataclasses import dataclass
from typing import ClassVar

from ..compiler.ir.program import is_call, type_of
from .api import Pass, Report, Rewriter, Stage


@dataclass(frozen=True)
class FuseAddNorm(Pass):
    name: ClassVar[str] = "fuse-add-norm"
    stage: ClassVar[Stage] = "fused"

    def run(self, rewriter: Rewriter) -> Report:
        report = Report()
        for node in rewriter.calls("rms_norm", "layer_norm"):
            total = node.args[0]
            if not is_call(total, "add"):
                report.miss(node, f"norms {getattr(total, 'name', total)}, which is not a sum")
                continue
            x, residual = total.args
            if type_of(x) != type_of(residual):
                report.miss(node, f"adds {type_of(x)} and {type_of(residual)}")
                continue
            fused = rewriter.at(total).emit(
                f"add_{node.target.name}",
                x,
                residual,
                *node.args[1:],
                **node.kwargs,
            )
            first = rewriter.emit("get", fused, index=0)
            rewriter.replace({total: first, node: rewriter.emit("get", fused, index=1)})
            report.matches += 1
        rewriter.erase_dead()
        return report
