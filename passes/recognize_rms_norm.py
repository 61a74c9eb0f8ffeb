"""See a root-mean-square norm in its arithmetic.

    mul(w, cast(mul(x, rsqrt(add(mean(pow(cast(x), 2)), eps)))))    ==>    rms_norm(x, w, eps)

Casts may stand anywhere: the norm computes in float32 and rounds once, where Llama's arithmetic rounds before the
weight is applied. The weight may be float32 (Gemma's 1 + w).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from ..compiler.ir.program import type_of
from .api import Numerics, Pass, Report, Rewriter, Stage
from .matcher import anything, call, cast, match, number, weight


@dataclass(frozen=True)
class RecognizeRMSNorm(Pass):
    name: ClassVar[str] = "recognize-rms-norm"
    stage: ClassVar[Stage] = "recognised"
    numerics: ClassVar[Numerics] = "reassociating"

    def run(self, rewriter: Rewriter) -> Report:
        x = anything("x")
        variance = call("mean", call("pow", cast(x), exponent=2.0))
        normed = call("mul", cast(x), call("rsqrt", call("add", variance, number("eps"))))
        pattern = cast(call("mul", weight("w"), cast(normed)))
        report = Report()
        for node in reversed(rewriter.calls("mul", "cast")):
            found = match(pattern, node)
            if found is None:
                continue
            if type_of(found["x"]) != type_of(node):
                continue  # an inner part of a larger match: the cast back to x's dtype is still to come
            if reason := self.refuses(node, found):
                report.miss(node, reason)
                continue
            new = rewriter.at(node).emit("rms_norm", found["x"], found["w"], eps=float(found["eps"]))
            rewriter.replace({node: new})
            rewriter.erase_dead()
            report.matches += 1
        self.report_leftovers(rewriter, report)
        return report

    def refuses(self, node: fx.Node, found: dict) -> str | None:
        x, w = type_of(found["x"]), type_of(found["w"])
        if w.shape != x.shape[-1:]:
            return f"weight {w} is not one row of {x}"
        if w.dtype not in (x.dtype, "f32"):
            return f"weight {w} is neither of {x.dtype} nor f32"
        return None

    def report_leftovers(self, rewriter: Rewriter, report: Report) -> None:
        for node in rewriter.calls("rsqrt"):
            report.miss(node, "a reciprocal root that is not part of weight * x * rsqrt(mean(x**2) + eps)")
