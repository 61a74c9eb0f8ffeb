"""See GPT-2's tanh approximation of GELU (Hendrycks & Gimpel, 2016) in its arithmetic.

mul(mul(x, 0.5), add(tanh(mul(add(x, mul(pow(x, 3), 0.044715)), sqrt(2/pi))), 1))   ==>   gelu_tanh(x)
"""

from dataclasses import dataclass
from math import pi, sqrt
from typing import ClassVar

from .api import Numerics, Pass, Report, Rewriter, Stage
from .matcher import anything, call, constant, match


@dataclass(frozen=True)
class RecognizeGelu(Pass):
    name: ClassVar[str] = "recognize-gelu"
    stage: ClassVar[Stage] = "recognised"
    numerics: ClassVar[Numerics] = "reassociating"

    def run(self, rewriter: Rewriter) -> Report:
        x = anything("x")
        inner = call("add", x, call("mul", call("pow", x, exponent=3.0), constant(0.044715)))
        tanh = call("tanh", call("mul", inner, constant(sqrt(2 / pi))))
        pattern = call("mul", call("mul", x, constant(0.5)), call("add", tanh, constant(1.0)))
        report = Report()
        for node in rewriter.calls("mul"):
            if found := match(pattern, node):
                rewriter.replace({node: rewriter.at(node).emit("gelu_tanh", found["x"])})
                report.matches += 1
        rewriter.erase_dead()
        return report
