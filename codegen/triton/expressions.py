"""The Triton statements of a body's values: blocks of one row's elements, float32 or int32, each computed once.

Slices and concatenations along a row cost nothing here: they only say at which place of which value a block begins.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import count

import torch
from torch import fx

from ...compiler.ir.program import is_call, type_of
from ...compiler.ir.types import TORCH_DTYPES
from ..rows import row_length
from .kernel import constant

NARROW = {"bf16": "tl.bfloat16", "f16": "tl.float16"}
OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
LIMITS = {"maximum": "tl.maximum", "minimum": "tl.minimum"}
INTRINSICS = {"abs": "tl.abs", "log": "tl.log", "sqrt": "tl.sqrt", "rsqrt": "tl.rsqrt"}
WHOLE = ("add", "sub", "mul", "neg", "abs", "maximum", "minimum", "relu")
"""Ops that keep integers whole."""
UNROUNDED = ("neg", "abs", "relu", "maximum", "minimum")
"""Ops whose result is one of their operands but for its sign, so that rounding leaves it as it is."""
NEEDS = {
    "exp": (),
    "quadrant": (),
    "sin": ("quadrant",),
    "cos": ("quadrant",),
    "relu": (),
    "larger": (),
    "pow": ("exp",),
    "sigmoid": (),
    "tanh": (),
    "erf": (),
    "silu": ("sigmoid",),
    "gelu_erf": ("erf",),
    "gelu_tanh": ("sigmoid",),
}
"""The functions of templates/activations.py.j2, and which of them each calls."""


class Expressions:
    """Statements that compute values of a body at one place of a row, in the order they were asked for.

    ``load(placeholder, at)`` reads, in its own dtype, the block that begins at element ``at`` of an operand's row;
    ``known`` names values that stand ready, in float32 or int32, the same at every place; ``names`` gives new names.
    """

    def __init__(
        self, load: Callable[[fx.Node, int], str], known: Mapping[fx.Node, str], names: Iterator[str] | None = None
    ) -> None:
        self.statements: list[str] = []
        self.functions: set[str] = set()
        """What the statements call of templates/activations.py.j2, which is to be rendered with them."""
        self._load = load
        self._known = known
        self._fresh = names or numbered("v")
        self._names: dict[tuple[fx.Node, int], str] = {}

    def name(self, value: fx.Node | float, at: int = 0) -> str:
        """The name of the block that begins at element ``at`` of the value's row, or a number's text."""
        if not isinstance(value, fx.Node):
            return constant(value)
        if value in self._known:
            return self._known[value]
        if is_call(value, "slice"):
            return self.name(value.args[0], at + int(value.kwargs["start"]))
        if is_call(value, "concat"):
            for part in value.args:
                if at < row_length(part):
                    return self.name(part, at)
                at -= row_length(part)
        at = at if row_length(value) > 1 else 0
        if is_call(value, "reshape") or (is_call(value, "cast") and _same_inside(value)):
            return self.name(value.args[0], at)
        if (value, at) not in self._names:
            text = self._loaded(value, at) if value.op == "placeholder" else self._computed(value, at)
            self._names[value, at] = self._assigned(text)
        return self._names[value, at]

    def _assigned(self, text: str) -> str:
        name = next(self._fresh)
        self.statements.append(f"{name} = {text}")
        return name

    def _loaded(self, node: fx.Node, at: int) -> str:
        dtype = type_of(node).dtype
        if dtype not in ("f32", "i32", *NARROW):
            raise ValueError(f"a loop cannot read {type_of(node)}: only f32, bf16, f16 and i32")
        return self._load(node, at) + (".to(tl.float32)" if dtype in NARROW else "")

    def _computed(self, node: fx.Node, at: int) -> str:
        name, dtype = node.target.name, type_of(node).dtype
        if name == "cast":
            return self._cast(node, at)
        if dtype not in ("f32", *NARROW) and not (dtype == "i32" and name in WHOLE):
            raise ValueError(f"a loop computes in f32, rounds to bf16 and f16 and counts in i32, not {name} in {dtype}")
        if dtype == "i32":
            fractions = [a for a in node.args if isinstance(a, float) and not a.is_integer()]
            if fractions:
                raise ValueError(f"{name} of integers takes whole numbers, got {fractions[0]}")
            operands = [self.name(a if isinstance(a, fx.Node) else int(a), at) for a in node.args]
        else:
            operands = [self.name(a if isinstance(a, fx.Node) else _number(a, name, dtype), at) for a in node.args]
        text = self._applied(node, operands, dtype)
        rounds = dtype in NARROW and name not in UNROUNDED
        return f"({text}).to({NARROW[dtype]}).to(tl.float32)" if rounds else text

    def _applied(self, node: fx.Node, operands: list[str], dtype: str) -> str:
        name = node.target.name
        if name in OPERATORS:
            return f"{operands[0]} {OPERATORS[name]} {operands[1]}"
        if name in LIMITS:
            return limit(LIMITS[name], operands[0], operands[1], dtype)
        if name == "relu":
            return limit("tl.maximum", operands[0], "0" if dtype == "i32" else "0.0", dtype)
        if name == "neg":
            return f"-{operands[0]}"
        if name in INTRINSICS:
            return f"{INTRINSICS[name]}({operands[0]})"
        if name == "pow":
            return self._power(operands[0], float(node.kwargs["exponent"]))
        if name not in NEEDS:
            raise ValueError(f"no device loop knows how to compute {name}")
        self.functions |= functions_of(name)
        return f"{name}({operands[0]})"

    def _cast(self, node: fx.Node, at: int) -> str:
        wanted, given = node.kwargs["dtype"], type_of(node.args[0]).dtype
        operand = self.name(node.args[0], at)
        if wanted in NARROW:
            wide = f"{operand}.to(tl.float32)" if given == "i32" else operand
            return f"{wide}.to({NARROW[wanted]}).to(tl.float32)"
        if wanted not in ("f32", "i32"):
            raise ValueError(
                f"a loop computes in f32, rounds to bf16 and f16 and counts in i32; it casts not to {wanted}"
            )
        return f"{operand}.to({'tl.int32' if wanted == 'i32' else 'tl.float32'})"

    def _power(self, x: str, exponent: float) -> str:
        """``x ** exponent``: its whole part by multiplication where that is short, the rest by logarithm."""
        if abs(exponent) == 0.5:
            return f"tl.{'sqrt' if exponent > 0 else 'rsqrt'}({x})"
        whole = int(abs(exponent))
        rest, factor = exponent, ""
        if whole <= MOST_FACTORS:
            rest, product = exponent - int(exponent), self._product(x, whole)
            factor = product if exponent >= 0 else f"1.0 / ({product})"
            if rest == 0:
                return factor
        self.functions |= functions_of("pow")
        is_whole = rest.is_integer()
        power = f"pow({x}, {constant(rest)}, {is_whole}, {is_whole and rest % 2 == 1})"
        return f"{factor} * {power}" if factor and whole else power

    def _product(self, x: str, factors: int) -> str:
        """``x`` times itself, by repeated squaring."""
        if factors == 0:
            return f"tl.zeros_like({x}) + 1.0"
        if factors == 1:
            return x
        half = x if factors < 4 else self._assigned(self._product(x, factors // 2))
        square = f"{half} * {half}"
        return f"{square} * {x}" if factors % 2 else square


MOST_FACTORS = 16
"""The largest whole exponent that is done by multiplying; each adds half a unit in the last place."""


def numbered(letter: str) -> Iterator[str]:
    return (f"{letter}{number}" for number in count())


def functions_of(*names: str) -> set[str]:
    """Functions of templates/activations.py.j2 with all that they call; ``none`` is no function."""
    found: set[str] = set()
    for name in names:
        if name != "none":
            found |= {name} | functions_of(*NEEDS[name])
    return found


def limit(function: str, a: str, b: str, dtype: str = "f32") -> str:
    """A maximum or minimum that is not a number if either operand is not."""
    nan = "" if dtype == "i32" else ", propagate_nan=tl.PropagateNan.ALL"
    return f"{function}({a}, {b}{nan})"


def stored(value: fx.Node) -> fx.Node:
    """What to compute for a result: storing rounds to its dtype, so a cast just before need not."""
    narrowing = is_call(value, "cast") and value.kwargs["dtype"] in NARROW and type_of(value.args[0]).dtype == "f32"
    return value.args[0] if narrowing else value


def _number(value: float, name: str, dtype: str) -> float:
    """A number as torch's op of a narrow dtype takes it: rounded, except in products and quotients."""
    rounded = dtype in NARROW and name not in ("mul", "div")
    return torch.tensor(value, dtype=TORCH_DTYPES[dtype]).item() if rounded else float(value)


def _same_inside(cast: fx.Node) -> bool:
    """Whether a cast changes nothing of what stands for a value here: float32 for narrower floats."""
    wanted, given = cast.kwargs["dtype"], type_of(cast.args[0]).dtype
    return wanted == given or (wanted == "f32" and given in NARROW)
