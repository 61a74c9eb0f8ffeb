"""Generated loops over rows, for pointwise chains and row reductions.

A row is vectorised along its last axis, sixteen elements at a time with a masked tail; rows are shared among threads.
So an element's bits depend on its row alone. Sums and maxima are row_sum's and row_max's (rows.h). What is one number
a row is computed first, in order; then every result's row, all results of one length in one pass.
"""

from collections.abc import Callable

from torch import fx

from ...compiler.ir.dims import Dim, product
from ...compiler.ir.program import is_call, type_of
from ...compiler.ir.types import TensorType, TupleType
from ..rows import Term, pieces, row_length, row_offset, split_row
from .kernel import KernelCall
from .vectors import Vectors, numbered, stored

REDUCTIONS = {
    "sum": ("row_sum", "0.0f", "{} + {}"),
    "mean": ("row_sum", "0.0f", "{} + {}"),
    "amax": ("row_max", "-INFINITY", "maximum({}, {})"),
}


def write_loop(call: KernelCall) -> None:
    """Give ``call`` the text of its loop."""
    call.template = "loop"
    call.definition = LoopWriter(call).write()


class LoopWriter:
    """Writes one loop's C++ from its body."""

    def __init__(self, call: KernelCall) -> None:
        self.call = call
        self.body = call.node.kwargs["body"]
        self.row_axes, _ = split_row(type_of(self.body.outputs[0]))
        self.lines: list[str] = []
        self.names = numbered("s")
        self.known: dict[fx.Node, str] = {}
        """What is one number a row, by the vector that holds it in every lane."""

    def write(self) -> str:
        self.declare()
        self.line("for (auto [row, end] = share(*worker, rows); row < end; row++) {")
        for index, node in enumerate(self.body.inputs):
            offset = self.row_offset(node)
            self.line(f"    const auto* x{index} = in{index}{f' + {offset}' if offset else ''};")
        for index, node in enumerate(self.body.outputs):
            length = row_length(node)
            self.line(f"    auto* y{index} = out{index} + row{f' * {length}' if length > 1 else ''};")
        for node in self.body.graph.nodes:
            if node.op != "output" and row_length(node) == 1:
                self.row_value(node)
        self.results()
        self.line("}")
        return "\n".join(self.lines)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def declare(self) -> None:
        call = self.call
        for index, operand in enumerate(call.node.args):
            call.value(operand)
            self.line(f"const auto* in{index} = {call.arguments[-1]};")
        several = isinstance(type_of(call.node), TupleType)
        for index in range(len(self.body.outputs)):
            call.result(index if several else -1)
            self.line(f"auto* out{index} = {call.arguments[-1]};")
        call.size(product(self.row_axes))
        self.line(f"const int64_t rows = {call.arguments[-1]};")

    def row_offset(self, node: fx.Node) -> str:
        """Where this row's part of an operand starts; empty for 0."""
        terms = row_offset(node, self.row_axes)
        if len(terms) == 1 and terms[0].divisor == 1 and terms[0].modulus is None:
            return f"row * {terms[0].stride}" if terms[0].stride > 1 else "row"
        return " + ".join(map(term_text, terms))

    # --- one number a row

    def row_value(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.name_row_value(node, f"set1(float(*x{self.body.inputs.index(node)}))")
        elif is_call(node, *REDUCTIONS):
            self.name_row_value(node, self.reduced(node))
        else:
            vectors = Vectors(self.load("1", ""), self.known, self.names)
            value = vectors.name(node, 0)
            self.lines += [f"    {statement}" for statement in vectors.statements]
            if is_call(node, "slice", "concat"):
                self.name_row_value(node, f"element({value})")
            else:
                self.known[node] = value

    def name_row_value(self, node: fx.Node, text: str) -> None:
        self.known[node] = next(self.names)
        self.line(f"    const F16 {self.known[node]} = {text};")

    def reduced(self, node: fx.Node) -> str:
        """The value of a reduction; the passes over the row that make it are written."""
        (operand,) = node.args
        if isinstance(type_of(operand).shape[-1], Dim):
            raise ValueError(f"the {node.target.name} of {type_of(operand)} goes across rows, which no loop does")
        function, neutral, joined = REDUCTIONS[node.target.name]
        length = row_length(operand)
        parts = []
        for start, stop in pieces((operand,), length):
            parts.append(next(self.names))
            vectors = Vectors(self.load("n", "i"), self.known)
            value = vectors.name(operand, start)
            self.line(f"    const F16 {parts[-1]} = set1({function}<{stop - start}>([&](int i, int n) {{")
            for statement in vectors.statements:
                self.line(f"        {statement}")
            self.line(f"        return keep({value}, n, {neutral});")
            self.line("    }));")
        text = parts[0]
        for part in parts[1:]:
            text = joined.format(text, part)
        if node.target.name != "mean":
            return text
        return f"{text if len(parts) == 1 else f'({text})'} / set1({length}.0f)"

    # --- rows

    def results(self) -> None:
        lengths: dict[int, list[int]] = {}
        for index, node in enumerate(self.body.outputs):
            lengths.setdefault(row_length(node), []).append(index)
        for length, indices in lengths.items():
            if length == 1:
                for index in indices:
                    self.line(f"    {self.store(index, f'y{index}', self.known[self.body.outputs[index]], '1')}")
                continue
            values = tuple(stored(self.body.outputs[i]) for i in indices)
            for start, stop in pieces(values, length):
                vectors = Vectors(self.load("n", "i"), self.known)
                names = [vectors.name(v, start) for v in values]
                self.line(f"    for_row<{stop - start}>([&](int i, int n) {{")
                for statement in vectors.statements:
                    self.line(f"        {statement}")
                for index, name in zip(indices, names, strict=True):
                    self.line(f"        {self.store(index, place(f'y{index}', start, 'i'), name, 'n')}")
                self.line("    });")

    def store(self, index: int, address: str, value: str, count: str) -> str:
        function = "store_ints" if type_of(self.body.outputs[index]).dtype == "i32" else "store_some"
        return f"{function}({address}, {value}, {count});"

    def load(self, count: str, index: str) -> Callable[[fx.Node, int], str]:
        def text(node: fx.Node, at: int) -> str:
            return load_text(type_of(node), place(f"x{self.body.inputs.index(node)}", at, index), count)

        return text


def term_text(term: Term) -> str:
    index = "row" if term.divisor == 1 else f"row / {term.divisor}"
    return f"({index if term.modulus is None else f'({index}) % {term.modulus}'}) * {term.stride}"


def load_text(kind: TensorType, address: str, count: str) -> str:
    if kind.dtype not in ("f32", "bf16", "i32"):
        raise ValueError(f"a loop cannot read {kind}: only f32, bf16 and i32")
    return f"{'load_ints' if kind.dtype == 'i32' else 'load_some'}({address}, {count})"


def place(pointer: str, at: int, index: str) -> str:
    return " + ".join([pointer, *([str(at)] if at else []), *([index] if index else [])])
