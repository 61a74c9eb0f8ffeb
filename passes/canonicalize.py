"""Remove what does nothing, say the same thing one way, compute the same thing once."""

from torch import fx

from ..compiler.ir.text import print_value
from .api import Rewriter, example, graph_pass, is_call, mutates_state, ops, type_of


@graph_pass(stage="canonical", each_stage=True)
class Canonicalize:
    """What says nothing goes.

    reshape(reshape(x, A), B)  ==>  reshape(x, B)          cast(x: f32, f32), mul(x, 1.0), add(x, 0.0)  ==>  x
    f(x), f(x)                 ==>  f(x)                   what nothing reads                            ==>  gone
    """

    def run(self, rewriter: Rewriter) -> None:
        changed = True
        while changed:
            changed = False
            seen: dict[str, fx.Node] = {}
            for node in rewriter.calls():
                same = self.simpler(rewriter, node)
                if same is None:
                    key = f"{node.target.name}({', '.join(map(print_value, node.args))}; {node.kwargs})"
                    known = seen.setdefault(key, node)
                    same = known if known is not node and not mutates_state(node) else None
                if same is not None:
                    rewriter.replace({node: same})
                    rewriter.erase(node)
                    changed = True
            rewriter.erase_dead()

    def simpler(self, rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
        """A value that already equals ``node``, or a simpler one made for it."""
        if not node.args:
            return None
        x = node.args[0]
        if is_call(node, "reshape", "cast", "slice") and type_of(x) == type_of(node):
            return x
        identity = {"mul": 1.0, "div": 1.0, "add": 0.0, "sub": 0.0}
        if is_call(node, *identity) and node.args[1] == identity[node.target.name]:
            return x
        if is_call(node, "reshape") and is_call(x, "reshape"):
            return rewriter.at(node).emit("reshape", x.args[0], shape=node.kwargs["shape"])
        return None

    examples = (
        example(lambda x: ops.exp(ops.cast(x, dtype="bf16") * 1.0), matches=2, x="bf16[T, 64]"),
        example(lambda x: ops.exp(ops.slice(x, axis=1, start=0, stop=64) + 0.0), matches=2, x="f32[T, 64]"),
        example(
            lambda x: ops.neg(
                ops.reshape(ops.reshape(x, shape=(x.shape[0], 8, 8)), shape=(x.shape[0], 4, 16)),
            ),
            x="bf16[T, 64]",
        ),
        example(lambda x, y: (ops.exp(x) + y) * (ops.exp(x) + y), matches=2, x="f32[T, 64]", y="f32[T, 64]"),
        example(
            lambda k, state, slots: ops.kv_write(ops.kv_write(state, k, k, slots), k, k, slots),
            matches=0,
            k="f32[T, 2, 8]",
            state="paged<0>f32[2, 8, 8]",
            slots="i32[T]",
        ),
        example(lambda x: ops.cast(x, dtype="f32") * 2.0 + 1.0, matches=0, x="bf16[T, 64]"),
    )
