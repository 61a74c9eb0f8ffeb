"""The named mutation operators. Each goes by rules on operands, attributes and types, so that new ops are covered too.

An operator gives edits that keep the call's type, unless it says otherwise. What it could change without changing any
result (two operands that commute, a rounding of what is already narrow) it does not offer; ``equivalents`` holds what
is left of that kind.
"""

from collections.abc import Callable, Iterator
from inspect import signature
from itertools import combinations
from typing import Any, get_args

from torch import fx
from xllmc.compiler.check.samples import Step
from xllmc.compiler.ir.body import Body
from xllmc.compiler.ir.dims import Dim, Size
from xllmc.compiler.ir.op import Op
from xllmc.compiler.ir.program import is_call, is_weight, type_of
from xllmc.compiler.ir.types import TensorType

from tests.mutations.edits import Around, Edit, Make, Writer, fits
from tests.mutations.recipe_edits import other_weights, recipe_edits

Operator = Callable[[fx.Node, Around], Iterator[Edit]]
MOVERS = (
    "slice",
    "concat",
    "reshape",
    "permute",
    "take_rows",
    "amax",
    "neg",
    "abs",
    "relu",
    "maximum",
    "minimum",
    "get",
)
"""Ops whose results are among their operands' values, but for the sign."""
SMALL = 1e-3
"""Float constants below this are guards against division by zero."""


def drop_term(call: fx.Node, around: Around) -> Iterator[Edit]:
    """An operand in place of the whole call; an optional operand, or an attribute other than its default, left out."""
    for index, operand in enumerate(call.args):
        repeated = operand in call.args[:index] or call.target.traits.view
        if isinstance(operand, fx.Node) and type_of(operand) == type_of(call) and not repeated:
            yield Edit("drop a term", f"only its operand {index}", _given(operand))
    given = [i for i in optional_operands(call.target) if i < len(call.args)]
    optional = [i for i in given if call.args[i] is not None]
    for left_out in [(i,) for i in optional] + list(combinations(optional, 2)):
        operands = [None if i in left_out else a for i, a in enumerate(call.args)]
        if fits(call, operands):
            yield Edit("drop a term", f"without operand {left_out}", _again(call, operands))
    if call.target.name.startswith("add_"):
        for index in (0, 1):
            yield Edit("drop a term", f"with nothing for operand {index}", _with_zero(call, index))
    for name, value in call.kwargs.items():
        default = call.target.attributes.get(name)
        if (
            isinstance(default, int | float | str)
            and value != default
            and name != "eps"
            and fits(call, **{name: default})
        ):
            yield Edit("drop a term", f"{name}={default}", _again(call, **{name: default}))


def optional_operands(op: Op) -> list[int]:
    """Positions of operands that may be None."""
    try:
        parameters = signature(op.reference).parameters.values()
    except ValueError:  # torch's own functions have no signature
        return []
    given = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [i for i, p in enumerate(given) if type(None) in get_args(p.annotation)]


def swap_operands(call: fx.Node, around: Around) -> Iterator[Edit]:
    """Two operands of one type in each other's place."""
    nodes = [i for i, a in enumerate(call.args) if isinstance(a, fx.Node)]
    for i, j in combinations(nodes, 2):
        a, b = call.args[i], call.args[j]
        if around.numbers[a] == around.numbers[b] or type_of(a) != type_of(b) or commute(call, i, j):
            continue
        operands = list(call.args)
        operands[i], operands[j] = b, a
        if fits(call, operands):
            yield Edit("swap operands", f"{i} and {j}", _again(call, operands))


def commute(call: fx.Node, i: int, j: int) -> bool:
    """Whether operands i and j may change places: of a commutative op, or of one that begins with an addition."""
    op: Op = call.target
    if op.traits.commutative or (op.name.startswith("add_") and {i, j} == {0, 1}):
        return True
    one, other = (placeholder_of(call, index) for index in (i, j))
    if one is None or other is None:
        return False
    graph = one.graph
    known: dict[fx.Node, tuple[Any, ...]] = {n: (n.name,) for n in graph.nodes if n.op == "placeholder"}
    swapped = {**known, one: known[other], other: known[one]}
    for node in graph.nodes:
        if node.op == "call_function":
            known[node], swapped[node] = _shape(node, known), _shape(node, swapped)
    return all(known[o] == swapped[o] for o in graph.output_node().args[0])


def placeholder_of(call: fx.Node, index: int) -> fx.Node | None:
    """What stands for the operand in the call's body: a loop's are all of them, an epilogue's the last ones."""
    for name, body in call.kwargs.items():
        if isinstance(body, Body):
            inputs = body.inputs[name == "epilogue" :]
            place = index - (len(call.args) - len(inputs))
            return inputs[place] if place >= 0 else None
    return None


def _shape(node: fx.Node, values: dict[fx.Node, tuple[Any, ...]]) -> tuple[Any, ...]:
    operands = [str(values[a]) if isinstance(a, fx.Node) else str(a) for a in node.args]
    if node.target.traits.commutative:
        operands.sort()
    return (node.target.name, *operands, str(sorted(node.kwargs.items(), key=str)))


def wrong_eps(call: fx.Node, around: Around) -> Iterator[Edit]:
    """Another float constant: a small one ten times as large or small, others a percent off."""
    for name, value in call.kwargs.items():
        if isinstance(value, float):
            for wrong in wrong_floats(value):
                yield Edit("wrong eps", f"{name}={wrong:g}", _again(call, **{name: wrong}))
    for index, value in enumerate(call.args):
        if isinstance(value, float):
            for wrong in wrong_floats(value):
                operands = [*call.args[:index], wrong, *call.args[index + 1 :]]
                yield Edit("wrong eps", f"constant {value:g} as {wrong:g}", _again(call, operands))


def wrong_floats(value: float) -> list[float]:
    if value == 0:  # as an attribute: there is none
        return []
    return [value * 10, value / 10] if abs(value) < SMALL else [value * 1.01]


def wrong_axis(call: fx.Node, around: Around) -> Iterator[Edit]:
    """Another axis attribute; a result, or what is reduced, laid out as if two fixed axes were the other way round."""
    for name, value in call.kwargs.items():
        if name == "axis":
            for axis in range(len(type_of(call).shape)):
                if axis != value and fits(call, axis=axis):
                    yield Edit("wrong axis", f"axis={axis}", _again(call, axis=axis))
        if name == "axes":
            for i, j in combinations(range(len(value)), 2):
                axes = list(value)
                axes[i], axes[j] = axes[j], axes[i]
                if fits(call, axes=tuple(axes)):
                    yield Edit("wrong axis", f"axes={axes}", _again(call, axes=tuple(axes)))
    if two_fixed_axes(type_of(call)):
        yield Edit("wrong axis", "last two axes the other way round", lambda w: turned(w, call))
    elif call.target.traits.reduction and two_fixed_axes(type_of(call.args[0])):
        yield Edit("wrong axis", "over the other axis", lambda w: w.again(call, [turned(w, call.args[0])]))


def two_fixed_axes(kind: Any) -> bool:
    return isinstance(kind, TensorType) and sum(isinstance(s, int) and s > 1 for s in kind.shape[-2:]) == 2


def turned(writer: Writer, value: fx.Node) -> fx.Node:
    """``value`` as if its last two axes had been stored the other way round: of its type."""
    *outer, rows, columns = type_of(value).shape
    axes = (*range(len(outer)), len(outer) + 1, len(outer))
    return writer.emit("permute", writer.emit("reshape", value, shape=(*outer, columns, rows)), axes=axes)


def off_by_one(call: fx.Node, around: Around) -> Iterator[Edit]:
    """A slice that begins one off, a window one longer or shorter, the neighbour of one of several results."""
    for by in (-1, 1):
        if {"start", "stop"} <= call.kwargs.keys():
            moved = {name: call.kwargs[name] + by for name in ("start", "stop")}
            if fits(call, **moved):
                yield Edit("off-by-one window", f"from {moved['start']}", _again(call, **moved))
        for name in ("window", "index"):
            value = call.kwargs.get(name)
            if (
                value is not None
                and value + by >= 0
                and (value or name == "index")
                and fits(call, **{name: value + by})
            ):
                yield Edit("off-by-one window", f"{name}={value + by}", _again(call, **{name: value + by}))


def baked_t(call: fx.Node, around: Around) -> Iterator[Edit]:
    """A size that follows the step becomes its number in the first sample, in the result's type as well or not."""
    for name, value in call.kwargs.items():
        if isinstance(value, tuple) and any(isinstance(s, Dim) for s in value):
            baked = tuple(map(bake, value))
            fixed = type_of(call).with_shape(*map(bake, type_of(call).shape))
            for kind in (type_of(call), fixed):
                yield Edit(
                    "baked T", f"{name}={list(map(str, baked))} as {kind}", _unchecked(call, kind, {name: baked})
                )


def bake(size: Size) -> int:
    return Step().size_of(size)


def lost_cast(call: fx.Node, around: Around) -> Iterator[Edit]:
    """A float32 value rounded to bf16 on the way."""
    kind = type_of(call)
    rounded_next = call.users and all(is_call(u, "cast") and u.kwargs["dtype"] == "bf16" for u in call.users)
    if isinstance(kind, TensorType) and kind.dtype == "f32" and not is_narrow(call) and not rounded_next:
        yield Edit(
            "lost cast", "rounded to bf16", lambda w: w.emit("cast", w.emit("cast", call, dtype="bf16"), dtype="f32")
        )


def is_narrow(value: Any) -> bool:
    """Whether rounding it to bf16 changes nothing."""
    if not isinstance(value, fx.Node):
        return False
    kind = type_of(value)
    if isinstance(kind, TensorType) and kind.dtype in ("bf16", "bool", "u8"):
        return True
    return is_call(value, "cast", *MOVERS) and all(map(is_narrow, value.all_input_nodes))


def wrong_weight_row(call: fx.Node, around: Around) -> Iterator[Edit]:
    """A weight whose rows stand elsewhere, or another weight of its type."""
    if around.program is None:
        return
    for index, operand in enumerate(call.args):
        if is_weight(operand):
            for operator, what, make in wrong_reads(operand, around):
                yield Edit(operator, f"operand {index}: {what}", _reading(call, index, make))


def wrong_reads(operand: fx.Node, around: Around) -> Iterator[tuple[str, str, Make]]:
    """Operator, what it does, and the read of a wrong weight in place of ``operand``."""
    program = around.program
    assert program is not None
    weight = program.weights[operand.target]
    for name, other in other_weights(weight, program):
        yield "wrong weight row", f"@{name}", lambda w, other=other: w.read(other)
    for edit in recipe_edits(weight.recipe, program, made=operand.target not in around.given):
        wrong = type(weight)(weight.type, edit.recipe, weight.layout)
        yield edit.operator, edit.what, lambda w, wrong=wrong: w.read(wrong)


def stale_alias(call: fx.Node, around: Around) -> Iterator[Edit]:
    """An operand replaced by another value of its type: a neighbour's, or what it was before a change."""
    for index, operand in enumerate(call.args):
        if isinstance(operand, fx.Node) and not is_weight(operand):
            for other in around.others(operand, call):
                if is_weight(other) or (other in call.args and commute(call, index, call.args.index(other))):
                    continue
                operands = [*call.args[:index], other, *call.args[index + 1 :]]
                if fits(call, operands):
                    yield Edit("stale alias", f"operand {index} is %{other.name}", _again(call, operands))


OPERATORS: dict[str, Operator] = {
    "drop a term": drop_term,
    "swap operands": swap_operands,
    "wrong eps": wrong_eps,
    "wrong axis": wrong_axis,
    "off-by-one window": off_by_one,
    "baked T": baked_t,
    "lost cast": lost_cast,
    "wrong weight row": wrong_weight_row,
    "stale alias": stale_alias,
}


def _given(value: fx.Node) -> Make:
    return lambda writer: value


def _again(call: fx.Node, operands: Any = None, **attributes: Any) -> Make:
    return lambda writer: writer.again(call, operands, **attributes)


def _unchecked(call: fx.Node, kind: TensorType, attributes: dict[str, Any]) -> Make:
    return lambda writer: writer.unchecked(call, kind, **attributes)


def _with_zero(call: fx.Node, index: int) -> Make:
    def make(writer: Writer) -> fx.Node:
        nothing = writer.emit("mul", call.args[index], 0.0)
        return writer.again(call, [*call.args[:index], nothing, *call.args[index + 1 :]])

    return make


def _reading(call: fx.Node, index: int, read: Make) -> Make:
    return lambda writer: writer.again(call, [*call.args[:index], read(writer), *call.args[index + 1 :]])
