"""Pointwise ops that follow a matrix product or an embedding are done to its values before they are stored.

y = linear(x, w, b);  z = add(r, mul(y, 0.22))     ==>     z = linear(x, w, b, r, epilogue=(%0, %1) { ... })
"""

from torch import fx

from ..compiler.ir.program import type_of
from ..compiler.ops import OPS
from ..compiler.ops.epilogue import suits_epilogue
from .api import Rewriter, example, graph_pass, ops
from .authoring.gain import Call, call_of, pays
from .loop_body import make_body

PRODUCERS = ("linear", "embedding")
LARGEST = 32
"""Calls in one epilogue."""


def epilogue_of(producer: fx.Node) -> list[fx.Node]:
    """The longest chain of calls, in order, that only the last of has readers outside; empty if there is none."""
    if "epilogue" in producer.kwargs:
        return []
    reached = {producer}
    longest: list[fx.Node] = []
    for node in following(producer):
        inputs = node.all_input_nodes
        if not absorbable(node, producer) or not any(i in reached for i in inputs):
            continue
        if all(i in reached or suits_epilogue(type_of(i), type_of(producer)) for i in inputs):
            reached.add(node)
            chain = behind(node, reached)
            if all(set(n.users) <= chain for n in chain - {node}):
                longest = sorted(chain - {producer})
        if len(reached) > LARGEST:
            break
    return longest


def following(producer: fx.Node) -> list[fx.Node]:
    """What comes after it and reads it, directly or through each other, in graph order."""
    found: set[fx.Node] = set()
    pending = [producer]
    while pending and len(found) < 8 * LARGEST:
        users = [u for u in pending.pop().users if u not in found and absorbable(u, producer)]
        found.update(users)
        pending += users
    return sorted(found)


def behind(node: fx.Node, within: set[fx.Node]) -> set[fx.Node]:
    found, pending = {node}, [node]
    while pending:
        new = [i for i in pending.pop().all_input_nodes if i in within and i not in found]
        found.update(new)
        pending += new
    return found


def absorbable(node: fx.Node, producer: fx.Node) -> bool:
    if node.op != "call_function" or not node.target.traits.pointwise or node.target.kernels:
        return False
    kind = type_of(node)
    return kind.shape == type_of(producer).shape and kind.dtype in ("f32", "bf16", "f16")


def fused_call(producer: fx.Node, chain: list[fx.Node]) -> Call:
    made = make_body(chain, chain[-1:], product=producer)
    attributes = {k: v for k, v in producer.kwargs.items() if k != "out_dtype"}
    others = [o for o in made.operands if o is not producer]
    return OPS[producer.target.name], [*producer.args, *others], {**attributes, "epilogue": made.body}


def near_miss(producer: fx.Node) -> str | None:
    """Why pointwise readers of ``producer`` stay apart, if it has any."""
    readers = [u for u in producer.users if u.op == "call_function" and u.target.traits.pointwise]
    if not readers or "epilogue" in producer.kwargs:
        return None
    reader = readers[0]
    if reader.target.kernels:
        return f"{reader.name} has a kernel of its own"
    if not absorbable(reader, producer):
        return f"{reader.name} gives {type_of(reader)}, not the shape of its product"
    for other in reader.all_input_nodes:
        if other is not producer and not suits_epilogue(type_of(other), type_of(producer)):
            return f"{reader.name} also reads {other.name}, {type_of(other)}, which is not read beside the product"
    return f"{producer.name} is read elsewhere too"


@graph_pass(
    stage="fused",
    numerics="reassociating",
    after=(
        "fuse-activation",
        "fuse-add-layer-norm",
        "fuse-add-rms-norm",
        "fuse-gated-linear",
        "fuse-linears",
        "fuse-qkv-write",
    ),
)
class FuseEpilogue:
    """The longest chain of pointwise ops that ends in one value becomes the epilogue of its product or embedding.

    Other operands are read element by element beside the product: of its shape, one row for all, or one number a row.
    """

    def run(self, rewriter: Rewriter) -> None:
        for producer in rewriter.calls(*PRODUCERS):
            if producer in rewriter.erased or not producer.users:
                continue
            chain = epilogue_of(producer)
            if not chain:
                if reason := near_miss(producer):
                    rewriter.miss(producer, reason)
                continue
            apart = [call_of(producer), make_body(chain, chain[-1:]).call]
            if not pays(rewriter.costs, apart, [fused := fused_call(producer, chain)]):
                rewriter.miss(producer, f"{chain[-1].name} costs no less as its epilogue")
                continue
            op, operands, attributes = fused
            new = rewriter.at(chain[-1]).emit(op, *operands, **attributes)
            rewriter.replace({chain[-1]: new})
            rewriter.erase_dead()

    examples = (
        example(
            lambda x, w, r: r + ops.linear(x, w, None) * 0.22,
            x="bf16[T, 64]",
            w="weight bf16[96, 64]",
            r="bf16[T, 96]",
        ),
        example(
            lambda ids, table: ops.embedding(table, ids) * 8.0,
            ids="i32[T]",
            table="weight f32[128, 64]",
        ),
        example(
            lambda x, w: ((y := ops.linear(x, w, None)), ops.tanh(y)),
            x="f32[T, 64]",
            w="weight f32[96, 64]",
            matches=0,
        ),
    )
