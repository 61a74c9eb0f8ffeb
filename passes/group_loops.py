"""What no kernel claims becomes generated loops: chains of pointwise ops and row reductions, grouped by what it saves.

y = tanh(div(x, 30.0));  z = mul(y, 30.0)     ==>     z = loop(x, body=(%0) { ...; return %3 })
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from torch import fx

from ..compiler.cost import CostModel
from ..compiler.ir.dims import Dim, Size
from ..compiler.ir.program import is_call, type_of
from ..compiler.ir.types import TensorType
from .api import Rewriter, example, graph_pass, ops
from .authoring.gain import Call, call_of, pays
from .clusters import Clusters
from .loop_body import NORMS, LoopBody, make_body

LARGEST = 64
"""Calls in one loop."""
MOVERS = ("slice", "concat", "reshape")
"""Ops that a loop does by indexing, along the last axis. Alone they stay copies, and views."""


def grouped(graph: fx.Graph, costs: CostModel) -> list[list[fx.Node]]:
    """The groups of calls that become one loop each."""
    clusters = Clusters(graph)
    candidates = [n for n in graph.nodes if rows_of(n) is not None]
    for node in candidates:
        if is_call(node, "get"):
            clusters.join(node.args[0], node)
    apart: set[tuple[int, int]] = set()
    joined = True
    while joined:
        joined = False
        for a, b in pairs(candidates):
            both = clusters.key(a), clusters.key(b)
            if both[0] == both[1] or both in apart:
                continue
            if fits(clusters, a, b, costs):
                clusters.join(a, b)
                joined = True
            else:
                apart.add(both)
    groups = {id(m[0]): m for m in map(clusters.members, candidates)}
    return [m for m in groups.values() if is_loop(m)]


def pairs(candidates: list[fx.Node]) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Calls that may be better together: a producer and its reader first, then readers of one value."""
    known = set(candidates)
    for node in candidates:
        yield from ((producer, node) for producer in node.all_input_nodes if producer in known)
    shared = dict.fromkeys(i for n in candidates for i in n.all_input_nodes)
    for value in shared:
        yield from combinations([u for u in value.users if u in known and not is_call(u, "get")], 2)


def fits(clusters: Clusters, a: fx.Node, b: fx.Node, costs: CostModel) -> bool:
    """Whether the groups of ``a`` and ``b`` may be one, and pay as one."""
    left, right = clusters.members(a), clusters.members(b)
    both = sorted(left + right)
    if len(both) > LARGEST or not any(map(computes, both)):
        return False
    spaces = {rows for rows in map(rows_of, both) if rows}
    if len(spaces) > 1 or not clusters.can_join(a, b):
        return False
    constant = [n for n in both if rows_of(n) == ()]
    if spaces and any(is_result(n, both) or n.target.traits.reduction for n in constant):
        return False  # one row for all: every row may compute it again, but none may store it
    for one, other in ((left, right), (right, left)):
        if all(is_call(n, "reshape") for n in one):
            return is_loop(other)  # a view costs nothing on either side, but may lead on to another call
    return pays(costs, [*calls_of(left), *calls_of(right)], calls_of(both))


def is_loop(members: list[fx.Node]) -> bool:
    """Whether the group will be a loop as it stands; a norm alone, a copy and a view will not."""
    return any(map(computes, members)) and not only_norm(members)


def calls_of(members: list[fx.Node]) -> list[Call]:
    """What a group comes to. A norm alone is counted as a loop too, so that like is held against like."""
    return [loop_of(members).call] if any(map(computes, members)) else [call_of(n) for n in members]


def loop_of(members: list[fx.Node]) -> LoopBody:
    results = dict.fromkeys(behind_views(n, members) for n in members if is_result(n, members))
    return make_body(members, list(results))


def is_result(node: fx.Node, members: list[fx.Node]) -> bool:
    """Whether the group has to give the value to others. A view of an outside value stays a view there."""
    if not isinstance(type_of(node), TensorType) or set(node.users) <= set(members):
        return False
    return not is_call(behind_views(node, members), "reshape")


def behind_views(node: fx.Node, members: list[fx.Node]) -> fx.Node:
    while is_call(node, "reshape") and node.args[0] in members:
        node = node.args[0]
    return node


def computes(node: fx.Node) -> bool:
    return not is_call(node, "get", *MOVERS)


def only_norm(members: list[fx.Node]) -> bool:
    return is_call(members[0], *NORMS) and all(is_call(n, "get") for n in members[1:])


def rows_of(node: fx.Node) -> tuple[Size, ...] | None:
    """The sizes of the axes of the rows that a loop would compute ``node`` in, ones left out; None if none can."""
    if node.op != "call_function":
        return None
    x = type_of(node.args[0]) if node.args else None
    if is_call(node, "get"):
        return rows_of(node.args[0]) if is_call(node.args[0], *NORMS) else None
    if not isinstance(x, TensorType) or (not isinstance(type_of(node), TensorType) and not is_call(node, *NORMS)):
        return None
    if is_call(node, *NORMS):
        return axes_of_rows(x)
    kind = type_of(node)
    if node.target.kernels and not is_call(node, *MOVERS):
        return None  # it is computed by a kernel of its own
    if node.target.traits.reduction:
        return axes_of_rows(x) if x.shape and not isinstance(x.shape[-1], Dim) else None
    if is_call(node, "slice", "concat"):
        last = node.kwargs["axis"] == len(kind.shape) - 1
        return axes_of_rows(kind) if last and readable(kind) and not isinstance(kind.shape[-1], Dim) else None
    if is_call(node, "reshape"):
        keeps = axes_of_rows(x) == axes_of_rows(kind) and length(x) == length(kind)
        return axes_of_rows(kind) if keeps and readable(kind) else None
    return axes_of_rows(kind) if node.target.traits.pointwise and kind.shape else None


def readable(kind: TensorType) -> bool:
    return kind.dtype in ("f32", "bf16", "f16") or (kind.dtype == "i32" and length(kind) == 1)


def axes_of_rows(kind: TensorType) -> tuple[Size, ...]:
    axes = kind.shape if length(kind) == 1 and (not kind.shape or isinstance(kind.shape[-1], Dim)) else kind.shape[:-1]
    return tuple(size for size in axes if size != 1)


def length(kind: TensorType) -> Any:
    """Elements of a row: along the last axis, or one where that grows with the step."""
    return 1 if not kind.shape or isinstance(kind.shape[-1], Dim) else kind.shape[-1]


def arrange(graph: fx.Graph, groups: list[list[fx.Node]]) -> list[list[fx.Node]]:
    """Bring the graph into an order in which each group stands together."""
    order = Clusters(graph).order(groups)
    end = graph.output_node()
    for node in order:
        if node is not end:
            end.prepend(node)
    return [sorted(group) for group in groups]


def replace_group(rewriter: Rewriter, members: list[fx.Node]) -> None:
    made = loop_of(members)
    op, operands, attributes = made.call
    loop = rewriter.at(members[-1]).emit(op, *operands, **attributes)
    several = len(made.results) > 1
    values = {n: rewriter.emit("get", loop, index=i) if several else loop for i, n in enumerate(made.results)}
    wanted = [n for n in members if is_result(n, members)]
    for node in wanted:
        if node not in values:
            values[node] = rewriter.emit("reshape", values[behind_views(node, members)], shape=type_of(node).shape)
    rewriter.replace({n: values[n] for n in wanted})


@graph_pass(stage="lowered", numerics="reassociating")
class GroupLoops:
    """Pointwise ops, row reductions and what moves elements along a row become loops, several results each if need be.

    Two groups become one where they run over the same rows, one reads the other or both read one value, no path leads
    out of them and back, and bytes and launches are saved. Norms join groups too; alone they keep their own kernels.
    """

    def run(self, rewriter: Rewriter) -> None:
        rewriter.erase_dead()
        for members in arrange(rewriter.graph, grouped(rewriter.graph, rewriter.costs)):
            replace_group(rewriter, members)
        rewriter.erase_dead()

    examples = (
        example(lambda x: ops.tanh(x / 30.0) * 30.0, x="bf16[T, 64]"),
        example(lambda x: x * ops.rsqrt(ops.mean(x * x) + 1e-6), x="f32[T, 64]"),
        example(lambda x, y: ((s := x + y), ops.exp(s)), x="f32[T, 64]", y="f32[T, 1]"),
        example(lambda x, w: ops.rms_norm(x, w, eps=1e-6), x="f32[T, 64]", w="weight f32[64]", matches=0),
    )
