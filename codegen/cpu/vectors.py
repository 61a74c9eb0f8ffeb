"""The C++ of a body's values: vectors of sixteen float32 elements of one row, each computed once.

Slices and concatenations along a row cost nothing here: they only say at which place of which value a vector begins.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from math import isfinite, isnan

from torch import fx

from ...compiler.ir.program import is_call, type_of
from ..rows import row_length

BINARY = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
WHOLE = ("add", "sub", "mul", "neg", "abs", "maximum", "minimum", "relu", "reshape", "slice", "concat")
"""Ops that keep integers whole, and so may compute them as float32."""


class Vectors:
    """Statements that compute values of a body at one place of a row, in the order they were asked for.

    ``load(placeholder, at)`` reads the vector that begins at element ``at`` of an operand's row, moved on by the loop's
    own index; ``known`` names values that stand ready, the same at every place; ``names`` gives new names.
    """

    def __init__(
        self, load: Callable[[fx.Node, int], str], known: Mapping[fx.Node, str], names: Iterator[str] | None = None
    ) -> None:
        self.statements: list[str] = []
        self._load = load
        self._known = known
        self._fresh = names or numbered("v")
        self._names: dict[tuple[fx.Node, int], str] = {}

    def name(self, value: fx.Node | float, at: int) -> str:
        """The name of the vector that begins at element ``at`` of the value's row; statements make it."""
        if not isinstance(value, fx.Node):
            return f"set1({c_float(value)})"
        if value in self._known:
            return self._known[value]
        if is_call(value, "slice"):
            return self.name(value.args[0], at + value.kwargs["start"])
        if is_call(value, "concat"):
            for part in value.args:
                if at < row_length(part):
                    return self.name(part, at)
                at -= row_length(part)
        if is_call(value, "reshape") or (is_call(value, "cast") and value.kwargs["dtype"] == "f32"):
            return self.name(value.args[0], at)
        if (value, at) not in self._names:
            text = self._load(value, at) if value.op == "placeholder" else self._compute(value, at)
            self._names[value, at] = next(self._fresh)
            self.statements.append(f"const F16 {self._names[value, at]} = {text};")
        return self._names[value, at]

    def _compute(self, node: fx.Node, at: int) -> str:
        name, dtype = node.target.name, type_of(node).dtype
        if dtype not in ("f32", "bf16") and not (dtype == "i32" and name in WHOLE):
            wanted = f"cast to {dtype}" if name == "cast" else f"compute {name} in {dtype}"
            raise ValueError(f"a loop computes in f32, rounds to bf16 and counts in i32; it cannot {wanted}")
        operands = [self.name(a, at) for a in node.args]
        if name in BINARY:
            return f"{operands[0]} {BINARY[name]} {operands[1]}"
        if name == "cast":
            return f"round_bf16({operands[0]})"
        if name == "pow":
            return f"pow({operands[0]}, {c_float(node.kwargs['exponent'])})"
        if name == "neg":
            return f"-{operands[0]}"
        return f"{name}({', '.join(operands)})"


def numbered(letter: str) -> Iterator[str]:
    return (f"{letter}{number}" for number in count())


def stored(value: fx.Node) -> fx.Node:
    """What to compute for a result: storing rounds to its dtype, so a cast just before need not."""
    narrowing = is_call(value, "cast") and value.kwargs["dtype"] == "bf16" and type_of(value.args[0]).dtype == "f32"
    return value.args[0] if narrowing else value


def c_float(value: float) -> str:
    if isfinite(value):
        return f"{float(value)!r}f"
    return "NAN" if isnan(value) else "INFINITY" if value > 0 else "-INFINITY"
