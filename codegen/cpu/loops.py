"""Generated kernels: loops over rows for pointwise chains and row reductions, and copies for moved elements.

A row is vectorised along its last axis, sixteen elements at a time with a masked tail; rows are shared among threads.
So an element's bits depend on its row alone. A reduction adds sixteen partial sums in order, then those in a tree.
"""

from collections.abc import Callable
from math import isfinite, isnan, prod

from torch import fx

from ...compiler.ir.dims import Dim, Size, product
from ...compiler.ir.program import is_call, type_of
from ...compiler.ir.types import TensorType
from .kernel import KernelCall, c_type, fixed

BINARY = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
REDUCTIONS = {
    "sum": ("zero()", "{} + {}", "reduce_add"),
    "mean": ("zero()", "{} + {}", "reduce_add"),
    "amax": ("set1(-INFINITY)", "maximum({}, {})", "reduce_max"),
}


def split_row(kind: TensorType) -> tuple[tuple[Size, ...], int]:
    """Axes of rows, and a row's length: the last axis, or 1 where that grows with the step."""
    if not kind.shape or isinstance(kind.shape[-1], Dim):
        return kind.shape, 1
    return kind.shape[:-1], fixed(kind.shape[-1], "a row")


class LoopWriter:
    """Writes one loop's C++ from its body."""

    def __init__(self, call: KernelCall) -> None:
        self.call = call
        self.body = call.node.kwargs["body"]
        (self.root,) = self.body.outputs
        kinds = [type_of(n) for n in self.body.graph.nodes if n.op != "output"]
        self.row_axes, _ = split_row(type_of(self.root))
        self.length = max(split_row(k)[1] for k in kinds)
        self.lines: list[str] = []
        self.scalars: dict[fx.Node, str] = {}

    def write(self) -> str:
        self.declare()
        self.line("for (auto [row, end] = share(*worker, rows); row < end; row++) {")
        for index, node in enumerate(self.body.inputs):
            self.line(f"    const auto* x{index} = in{index} + ({self.row_offset(type_of(node))});")
        for node in self.body.graph.nodes:
            if is_call(node, *REDUCTIONS):
                self.reduce(node)
        _, result_length = split_row(type_of(self.root))
        vectors = self.expression(self.root, {})
        self.line(f"    for (int i = 0; i < {result_length}; i += lanes) {{")
        self.line(f"        const int n = {result_length} - i < lanes ? {result_length} - i : lanes;")
        for name, text in vectors.items():
            self.line(f"        const F16 {name} = {text};")
        self.line(f"        store_some(out + row * {result_length} + i, {list(vectors)[-1]}, n);")
        self.line("    }")
        self.line("}")
        return "\n".join(self.lines)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def declare(self) -> None:
        call = self.call
        for index, operand in enumerate(call.node.args):
            call.value(operand)
            self.line(f"const auto* in{index} = {call.arguments[-1]};")
        call.result()
        self.line(f"auto* out = {call.arguments[-1]};")
        call.size(product(self.row_axes))
        self.line(f"const int64_t rows = {call.arguments[-1]};")

    def row_offset(self, kind: TensorType) -> str:
        """Where this row's part of an operand starts: axes that broadcast contribute nothing."""
        axes, length = split_row(kind)
        axes = (1,) * (len(self.row_axes) - len(axes)) + axes
        if any(isinstance(size, Dim) for size in self.row_axes[1:]):
            raise ValueError(f"only the first axis of a loop's rows may grow with the step, got {self.row_axes}")
        terms, stride, divisor = [], length, 1
        for axis, size in zip(reversed(axes), reversed(self.row_axes), strict=True):
            index = "row" if divisor == 1 else f"row / {divisor}"
            if isinstance(size, int):
                index = f"({index}) % {size}"
                divisor *= size
            if axis != 1:
                terms.append(f"({index}) * {stride}")
                stride *= axis if isinstance(axis, int) else 1
        return " + ".join(terms) or "0"

    def reduce(self, node: fx.Node) -> None:
        (operand,) = node.args
        start, step, finish = REDUCTIONS[node.target.name]
        name = f"r{len(self.scalars)}"
        _, length = split_row(type_of(operand))
        vectors = self.expression(operand, {})
        value = list(vectors)[-1]
        neutral = "zero()" if finish == "reduce_add" else "set1(-INFINITY)"
        self.line(f"    F16 {name}_lanes = {start};")
        self.line(f"    for (int i = 0; i < {length}; i += lanes) {{")
        self.line(f"        const int n = {length} - i < lanes ? {length} - i : lanes;")
        for vector, text in vectors.items():
            self.line(f"        const F16 {vector} = {text};")
        self.line(f"        const F16 kept = n == lanes ? {value} : select(tail_mask(n), {value}, {neutral});")
        self.line(f"        {name}_lanes = {step.format(f'{name}_lanes', 'kept')};")
        self.line("    }")
        divide = f" / {length}.0f" if node.target.name == "mean" else ""
        self.line(f"    const F16 {name} = set1({finish}({name}_lanes){divide});")
        self.scalars[node] = name

    def expression(self, node: fx.Node, known: dict[str, str]) -> dict[str, str]:
        """Vectors to compute at place ``i``, in order, by name; the last is ``node``."""
        names: dict[fx.Node, str] = {}

        def visit(value: fx.Node | float) -> str:
            if not isinstance(value, fx.Node):
                return f"set1({c_float(value)})"
            if value in self.scalars:
                return self.scalars[value]
            if value not in names:
                text = self.load(value) if value.op == "placeholder" else self.compute(value, visit)
                names[value] = f"v{len(known)}"
                known[names[value]] = text
            return names[value]

        result = visit(node)
        if list(known)[-1:] != [result]:
            known[f"v{len(known)}"] = result
        return known

    def load(self, node: fx.Node) -> str:
        index = self.body.inputs.index(node)
        _, length = split_row(type_of(node))
        if type_of(node).dtype not in ("f32", "bf16"):
            if length != 1 or type_of(node).dtype != "i32":
                raise ValueError(f"a loop cannot read {type_of(node)}: only f32 and bf16 rows, and one i32 a row")
            return f"set1(float(*x{index}))"
        return f"load_some(x{index} + i, n)" if length > 1 or self.length == 1 else f"set1(float(*x{index}))"

    def compute(self, node: fx.Node, visit: Callable[[fx.Node | float], str]) -> str:
        name = node.target.name
        operands = [visit(a) for a in node.args]
        if name in BINARY:
            return f"{operands[0]} {BINARY[name]} {operands[1]}"
        if name == "cast":
            if node.kwargs["dtype"] not in ("f32", "bf16"):
                raise ValueError(f"a loop computes in f32 and rounds to bf16; it cannot cast to {node.kwargs['dtype']}")
            return f"round_bf16({operands[0]})" if node.kwargs["dtype"] == "bf16" else operands[0]
        if name == "pow":
            return f"pow({operands[0]}, {c_float(node.kwargs['exponent'])})"
        if name == "neg":
            return f"-{operands[0]}"
        return f"{name}({', '.join(operands)})"


def c_float(value: float) -> str:
    if isfinite(value):
        return f"{float(value)!r}f"
    return "NAN" if isnan(value) else "INFINITY" if value > 0 else "-INFINITY"


def write_loop(call: KernelCall) -> None:
    """Give ``call`` the text of its loop."""
    call.template = "loop"
    call.definition = LoopWriter(call).write()


def write_copy(call: KernelCall) -> None:
    """Give ``call`` the text that moves elements for a slice, a concatenation or a permutation."""
    node = call.node
    call.template = node.target.name
    shape = type_of(node).shape
    element = c_type(type_of(node))
    lines = ["for (auto [row, end] = share(*worker, rows); row < end; row++) {"]
    head = []
    for index, operand in enumerate(node.args):
        call.value(operand)
        head.append(f"const {element}* in{index} = {call.arguments[-1]};")
    call.result()
    head.append(f"{element}* out = {call.arguments[-1]};")
    call.size(shape[0])
    head.append(f"const int64_t rows = {call.arguments[-1]};")
    inner = [fixed(s, f"an axis of {node.name}") for s in shape[1:]]
    if is_call(node, "permute"):
        lines += _permuted(node, inner)
    else:
        axis = int(node.kwargs["axis"])
        if axis == 0:
            raise ValueError(f"{node.name} moves tokens between rows, which no CPU kernel does")
        outer, tail = prod(inner[: axis - 1]), prod(inner[axis:])
        place = 0
        for index, operand in enumerate(node.args):
            size = fixed(type_of(operand).shape[axis], "an axis")
            begin, count = (int(node.kwargs["start"]), inner[axis - 1]) if is_call(node, "slice") else (0, size)
            lines.append(f"    for (int j = 0; j < {outer}; j++)")
            lines.append(
                f"        memcpy(out + (row * {outer} + j) * {inner[axis - 1] * tail} + {place * tail}, "
                f"in{index} + (row * {outer} + j) * {size * tail} + {begin * tail}, {count * tail} * sizeof(*out));"
            )
            place += count
    call.definition = "\n".join([*head, *lines, "}"])


def _permuted(node: fx.Node, inner: list[int]) -> list[str]:
    axes = node.kwargs["axes"]
    if axes[0] != 0:
        raise ValueError(f"{node.name} moves the token axis, which no CPU kernel does")
    source = [fixed(s, "an axis") for s in type_of(node.args[0]).shape[1:]]
    strides = [prod(source[i + 1 :]) for i in range(len(source))]
    lines, index = [], []
    for depth, size in enumerate(inner):
        lines.append(f"    for (int j{depth} = 0; j{depth} < {size}; j{depth}++)")
        index.append(f"j{depth} * {strides[axes[depth + 1] - 1]}")
    place = "row"
    for depth, size in enumerate(inner):
        place = f"({place}) * {size} + j{depth}"
    lines.append(f"        out[{place}] = in0[row * {prod(source)} + {' + '.join(index)}];")
    return lines
