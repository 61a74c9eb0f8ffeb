"""Choose how each weight is stored: matrices that a matrix product reads go into panels, all else stays in rows.

A table that is both embedding and output head is stored once, in panels; the embedding gathers from them.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from ..compiler.ir.program import is_weight
from .api import Pass, Report, Rewriter, Stage


@dataclass(frozen=True)
class PackWeights(Pass):
    name: ClassVar[str] = "pack-weights"
    stage: ClassVar[Stage] = "lowered"

    def run(self, rewriter: Rewriter) -> Report:
        report = Report()
        weights = rewriter.program.weights
        for node in rewriter.calls("linear"):
            matrix = node.args[1]
            if not is_weight(matrix):
                report.miss(node, "multiplies by a computed matrix")
            elif weights[matrix.target].layout != "panels":
                weights[matrix.target] = replace(weights[matrix.target], layout="panels")
                report.matches += 1
        return report
