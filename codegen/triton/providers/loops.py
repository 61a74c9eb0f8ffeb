"""Generated loops over rows, for pointwise chains and row reductions.

A body without reductions is computed in blocks of columns. One with reductions holds a row whole, up to a length;
longer rows are walked in blocks, once for each reduction and once for the results. Programs of short rows have several.
Either way an element's bits depend on its row alone: sums have an order that the row's length fixes.
"""

from collections.abc import Callable, Sequence
from math import gcd
from typing import NamedTuple

from torch import fx

from ....compiler.ir.dims import product
from ....compiler.ir.program import is_call, type_of
from ....compiler.ir.types import TupleType
from ...rows import Term, pieces, row_length, row_offset, split_row
from ..expressions import NARROW, Expressions, functions_of, limit, numbered, stored
from ..kernel import Argument, Config, TritonCall, axis, power_of_two
from ..registering import provides

ELEMENTS = 1024
"""Of one program that need not hold a row whole: 8 a thread of four warps, so that a load of bf16 is 16 bytes."""
LONGEST = 4096
"""Elements of a row that a program holds whole: 16 a thread of eight warps leaves registers for ten such values."""
SMALL = 256
"""A block below this is not worth cutting in two."""
MOST_ROWS = 256
"""Rows of one program."""

REDUCTIONS = ("sum", "mean", "amax")


class Stretch(NamedTuple):
    """Part of a row in which no value crosses a seam of a concatenation, and how a program goes over it."""

    start: int
    length: int
    block: int
    walked: bool
    """In blocks, one after the other."""
    mask: str
    """The name of the columns' mask; empty where all are inside."""


@provides("loop")
def loop(call: TritonCall) -> None:
    writer = LoopWriter(call)
    writer.write()
    rows = product(writer.row_axes)
    call.launch(
        "loop",
        "loop.py.j2",
        writer.operands(),
        (axis(rows, writer.rows), axis(writer.columns)),
        Config({"ROWS": writer.rows, "BLOCK": writer.block}, warps=writer.warps, stages=1),
        rows=call.count(rows),
        functions=writer.functions,
        body="\n".join(writer.lines),
    )


class LoopWriter:
    """Writes one loop's Triton from its body."""

    def __init__(self, call: TritonCall) -> None:
        self.call = call
        self.body = call.node.kwargs["body"]
        self.row_axes, _ = split_row(type_of(self.body.outputs[0]))
        self.lines: list[str] = []
        self.functions: set[str] = set()
        self.names = numbered("v")
        self.known: dict[fx.Node, str] = {}
        """What is one number a row, by its name."""
        self.held: dict[Stretch, Expressions] = {}
        """What was computed of stretches that are not walked."""
        self.declared: set[str] = set()
        self.offsets = [row_offset(node, self.row_axes) for node in self.body.inputs]
        reductions = [n.args[0] for n in self.body.graph.nodes if is_call(n, *REDUCTIONS)]
        reduces = any(row_length(n) > 1 for n in reductions)
        self.cut = cut([*reductions, *map(stored, self.body.outputs)], whole=reduces)
        self.shape(reduces)

    def shape(self, reduces: bool) -> None:
        longest = max((stop - start for parts in self.cut.values() for start, stop in parts), default=1)
        self.block = min(power_of_two(longest), LONGEST if reduces else ELEMENTS)
        """Columns of the widest block."""
        self.columns = 1 if reduces else -(-longest // self.block)
        """Programs that share a row."""
        walked = longest > self.block * self.columns
        self.rows = 1 if walked else min(max(ELEMENTS // self.block, 1), MOST_ROWS)
        for term in (term for offset in self.offsets for term in offset):
            # A program's rows stand in one row of an operand that is broadcast, or in rows that follow each other:
            # then its address is no gather, which the Ascend adapter would make even where a mask is false.
            self.rows = gcd(self.rows, *term.boundaries)
        self.warps = min(max(self.rows * self.block // 256, 1), 8)

    def operands(self) -> dict[str, Argument]:
        several = isinstance(type_of(self.call.node), TupleType)
        given = {f"in{i}": self.call.value(operand) for i, operand in enumerate(self.call.node.args)}
        made = {f"out{i}": self.call.result(i if several else -1) for i in range(len(self.body.outputs))}
        return given | made

    def write(self) -> None:
        for index, offset in enumerate(self.offsets):
            self.line(f"x{index} = {' + '.join([f'in{index}', *map(self.term, offset)])}")
        for index, node in enumerate(self.body.outputs):
            self.line(f"y{index} = out{index} + {self.term(Term(1, None, row_length(node)))}")
        for node in self.body.graph.nodes:
            if node.op != "output" and row_length(node) == 1:
                self.row_value(node)
        self.results()

    def line(self, text: str) -> None:
        self.lines.append(text)

    def term(self, term: Term) -> str:
        """A part of an offset: a number, or one for each of a program's rows."""
        first = "row" if self.rows == 1 else "first"
        if term.divisor > 1:
            index = f"({first} // {term.divisor})"
        else:
            index = "row" if term.modulus is None else f"({first} % {term.modulus}{' + lane' if self.rows > 1 else ''})"
        if term.divisor > 1 and term.modulus is not None:
            index = f"{index[:-1]} % {term.modulus})"
        if term.modulus is None:  # all rows together may have more elements than 32 bits count
            index += ".to(tl.int64)"
        return index if term.stride == 1 else f"{index} * {term.stride}"

    # --- one number a row

    def row_value(self, node: fx.Node) -> None:
        if is_call(node, *REDUCTIONS):
            self.known[node] = next(self.names)
            self.line(f"{self.known[node]} = {self.reduced(node)}")
        else:
            values = Expressions(self.load("", ""), self.known, self.names)
            self.known[node] = self.named(values, [node], 0)[0]

    def reduced(self, node: fx.Node) -> str:
        """The value of a reduction; the passes over the row that make it are written."""
        (operand,) = node.args
        name, dtype = node.target.name, type_of(node).dtype
        if dtype not in ("f32", *NARROW):
            raise ValueError(f"a loop reduces floats, not {name} in {dtype}")
        length = row_length(operand)
        if length == 1:
            return self.known[operand]
        parts = [self.part(operand, stretch, largest=name == "amax") for stretch in self.stretches(length)]
        text = parts[0]
        for part in parts[1:]:
            text = limit("tl.maximum", text, part) if name == "amax" else f"{text} + {part}"
        if name == "mean":
            text = f"{text if len(parts) == 1 else f'({text})'} / {length}.0"
        return f"({text}).to({NARROW[dtype]}).to(tl.float32)" if dtype in NARROW else text

    def part(self, operand: fx.Node, stretch: Stretch, largest: bool) -> str:
        """The sum or maximum of a stretch, as an expression."""
        neutral = 'float("-inf")' if largest else "0.0"
        if largest:
            self.functions |= functions_of("larger")

        def kept(value: str) -> str:
            return f"tl.where({stretch.mask}, {value}, {neutral})" if stretch.mask else value

        if stretch.walked:
            joined = next(self.names)
            self.line(f"{joined} = tl.full([{stretch.block}], {neutral}, tl.float32)")
            (value,) = self.named(self.walk(stretch), [operand], stretch.start, "    ")
            text = f"larger({joined}, {kept(value)})" if largest else f"{joined} + {kept(value)}"
            self.line(f"    {joined} = {text}")
        else:
            (value,) = self.named(self.hold(stretch), [operand], stretch.start)
            if stretch.length == 1:
                return value
            joined = kept(value)
        along = 1 if self.rows > 1 else 0
        reduction = f"tl.reduce({joined}, {along}, larger)" if largest else f"tl.sum({joined}, {along})"
        return f"{reduction}[:, None]" if self.rows > 1 else reduction

    # --- rows

    def results(self) -> None:
        lengths: dict[int, list[int]] = {}
        for index, node in enumerate(self.body.outputs):
            lengths.setdefault(row_length(node), []).append(index)
        for length, indices in lengths.items():
            if length == 1:
                for index in indices:
                    self.store(index, f"y{index}", self.known[self.body.outputs[index]], "")
                continue
            values = [stored(self.body.outputs[i]) for i in indices]
            for stretch in self.stretches(length):
                inner = "    " if stretch.walked else ""
                block = self.walk(stretch) if stretch.walked else self.hold(stretch)
                for index, name in zip(indices, self.named(block, values, stretch.start, inner), strict=True):
                    address = place(f"y{index}", stretch.start, self.column(stretch))
                    self.store(index, address, name, stretch.mask, inner)

    def store(self, index: int, address: str, value: str, mask: str, inner: str = "") -> None:
        narrow = type_of(self.body.outputs[index]).dtype in NARROW
        rounded = f"{value}.to(out{index}.dtype.element_ty)" if narrow else value
        self.line(f"{inner}tl.store({', '.join([address, rounded, *self.masked(True, mask)])})")

    # --- parts of rows

    def stretches(self, length: int) -> list[Stretch]:
        found = []
        for start, stop in self.cut[length]:
            count = stop - start
            block = min(power_of_two(count), self.block) if self.columns == 1 else self.block
            walked = count > block * self.columns
            covered = -(-count // block) * block if walked else block * self.columns
            found.append(Stretch(start, count, block, walked, f"inside{count}" if 1 < count < covered else ""))
        return found

    def hold(self, stretch: Stretch) -> Expressions:
        """A stretch that stays in registers: its columns are declared, and what was computed of it is known."""
        first = f"tl.program_id(1) * {stretch.block} + " if self.columns > 1 else ""
        lines = [f"{self.column(stretch)} = {first}{self.arange(stretch)}", *self.mask_lines(stretch)]
        for line in lines if stretch.length > 1 else []:
            if line not in self.declared:
                self.line(line)
                self.declared.add(line)
        if stretch not in self.held:
            load = self.load(self.column(stretch), stretch.mask)
            self.held[stretch] = Expressions(load, self.known, self.names)
        return self.held[stretch]

    def walk(self, stretch: Stretch) -> Expressions:
        """Begin a loop over a stretch's blocks."""
        self.line(f"for begin in range(0, {stretch.length}, {stretch.block}):")
        self.line(f"    {self.column(stretch)} = begin + {self.arange(stretch)}")
        for line in self.mask_lines(stretch):
            self.line(f"    {line}")
        return Expressions(self.load(self.column(stretch), stretch.mask), self.known, self.names)

    def named(self, values: Expressions, nodes: Sequence[fx.Node], at: int, inner: str = "") -> list[str]:
        """The names of the nodes' blocks; the statements that make them are written."""
        names = [values.name(node, at) for node in nodes]
        self.lines += [inner + statement for statement in values.statements]
        values.statements.clear()
        self.functions |= values.functions
        return names

    def column(self, stretch: Stretch) -> str:
        """The name of a block's columns; empty where there is but one."""
        if stretch.length == 1:
            return ""
        return "column" if stretch.walked else f"column{stretch.block}"

    def arange(self, stretch: Stretch) -> str:
        return f"tl.arange(0, {stretch.block}){'[None, :]' if self.rows > 1 else ''}"

    def mask_lines(self, stretch: Stretch) -> list[str]:
        return [f"{stretch.mask} = {self.column(stretch)} < {stretch.length}"] if stretch.mask else []

    def load(self, column: str, mask: str) -> Callable[[fx.Node, int], str]:
        def text(node: fx.Node, at: int) -> str:
            index = self.body.inputs.index(node)
            by_row = any(term.divisor == 1 for term in self.offsets[index])
            return f"tl.load({', '.join([place(f'x{index}', at, column), *self.masked(by_row, mask)])})"

        return text

    def masked(self, by_row: bool, mask: str) -> list[str]:
        """The mask of a load or a store, as a list of one text or none."""
        parts = [*(["inside"] if self.rows > 1 and by_row else []), *([mask] if mask else [])]
        return [" & ".join(parts)] if parts else []


def cut(values: Sequence[fx.Node], whole: bool) -> dict[int, list[tuple[int, int]]]:
    """By length of row, above 1, the stretches [start, stop) that suit all values of that length.

    ``whole``: rows are held whole, so that a block which were idle by a quarter is better two.
    """
    wide: dict[int, list[fx.Node]] = {}
    for value in values:
        if row_length(value) > 1:
            wide.setdefault(row_length(value), []).append(value)
    found = {length: pieces(tuple(same), length) for length, same in wide.items()}
    if not whole:
        return found
    return {length: [half for part in parts for half in halved(*part)] for length, parts in found.items()}


def halved(start: int, stop: int) -> list[tuple[int, int]]:
    """A stretch of 2304 as 2048 and 256; one that fills its block, or is walked in blocks anyway, as it is."""
    half = power_of_two(stop - start) // 2
    if not SMALL <= stop - start <= LONGEST or power_of_two(stop - start - half) > half // 2:
        return [(start, stop)]
    return [(start, start + half), (start + half, stop)]


def place(pointer: str, at: int, column: str) -> str:
    return " + ".join([pointer, *([str(at)] if at else []), *([column] if column else [])])
