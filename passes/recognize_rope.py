"""See rotary position embedding in its arithmetic; the table of cosines and sines is computed once for all layers.

    f = mul(positions, inv_freq);  c = mul(cos(concat(f, f)), s);  n = mul(sin(concat(f, f)), s)
    add(mul(x, c), mul(concat(neg(high(x)), low(x)), n))      ==>      rope(x, rope_table(positions, inv_freq, s))

The table stays in float32, where transformers rounds it to the model's dtype.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from ..compiler.ir.program import type_of
from .api import Numerics, Pass, Report, Rewriter, Stage
from .matcher import Pattern, anything, call, cast, look_through, match, number, view, weight


@dataclass(frozen=True)
class RecognizeRope(Pass):
    name: ClassVar[str] = "recognize-rope"
    stage: ClassVar[Stage] = "recognised"
    numerics: ClassVar[Numerics] = "reassociating"

    def run(self, rewriter: Rewriter) -> Report:
        patterns = (self.pattern(scaled=True), self.pattern(scaled=False))
        report = Report()
        for node in rewriter.calls("add"):
            found = match(patterns[0], node) or match(patterns[1], node)
            if found is None:
                continue
            if reason := self.refuses(found):
                report.miss(node, reason)
                continue
            rewriter.at(node)
            positions = look_through(found["positions"], "reshape", "cast")
            scale = float(found.get("scale", 1.0))  # canonicalisation removed a scale of one
            table = rewriter.emit("rope_table", positions, found["inv_freq"], scale=scale)
            rewriter.replace({node: self.rotated(rewriter, found["x"], table)})
            report.matches += 1
        rewriter.erase_dead()
        for node in rewriter.calls("cos", "sin"):
            report.miss(node, f"a {node.target.name} that is not part of x * cos + rotated(x) * sin")
        return report

    def rotated(self, rewriter: Rewriter, x: fx.Node, table: fx.Node) -> fx.Node:
        """A single head has no axis of its own in the trace, and gets one for the op."""
        kind = type_of(x)
        if len(kind.shape) == 3:
            return rewriter.emit("rope", x, table)
        tokens, dim = kind.shape
        heads = rewriter.emit("reshape", x, shape=(tokens, 1, dim))
        return rewriter.emit("reshape", rewriter.emit("rope", heads, table), shape=(tokens, dim))

    def pattern(self, scaled: bool) -> Pattern:
        x = anything("x")
        angles = call("mul", anything("positions"), weight("inv_freq"))
        both = call("concat", angles, angles, axis=1)

        def table(function: str) -> Pattern:
            plain = call(function, both)
            return view(call("mul", plain, number("scale")) if scaled else plain)

        high, low = call("slice", x, binds="high"), call("slice", x, binds="low")
        rotated = call("concat", call("neg", high), low, binds="rotated")
        return call("add", call("mul", x, table("cos")), call("mul", cast(rotated), table("sin")))

    def refuses(self, found: dict[str, fx.Node]) -> str | None:
        x = type_of(found["x"])
        half = x.shape[-1] // 2
        low, high = found["low"].kwargs, found["high"].kwargs
        if len(x.shape) not in (2, 3):
            return f"{x} is neither [T, heads, D] nor [T, D]"
        if {low["axis"], high["axis"], found["rotated"].kwargs["axis"]} != {len(x.shape) - 1}:
            return f"does not rotate the last axis of {x}"
        if (low["start"], low["stop"], high["start"], high["stop"]) != (0, half, half, 2 * half):
            return f"rotates {low} against {high}, not the halves of {x}"
        if type_of(found["inv_freq"]).shape != (half,):
            return f"{type_of(found['inv_freq'])} frequencies do not cover the halves of {x}"
        return None
