"""Compute only the rows whose logits are wanted: row selection moves up through ops that keep rows apart."""

from torch import fx

from ..compiler.ir.op import Op
from .api import Rewriter, TensorType, example, graph_pass, is_call, ops, type_of


@graph_pass(stage="canonical", after="fold-weights")
class SelectRows:
    """``take_rows(linear(norm(x)), rows)``   ==>   ``linear(norm(take_rows(x, rows)))``

    It stops where rows mix (attention), where every row is wanted by someone else, and at inputs.
    """

    def run(self, rewriter: Rewriter) -> None:
        while movable := [s for s in rewriter.calls("take_rows") if self.movable(*s.args)]:
            value, rows = movable[0].args
            selections = list(value.users)
            rewriter.replace(dict.fromkeys(selections, self.moved(rewriter, selections[0], value, rows)))
            rewriter.erase_dead()
        for selection in rewriter.calls("take_rows"):
            rewriter.miss(selection, f"stops at {selection.args[0].name}")

    def movable(self, value: object, rows: object) -> bool:
        """Whether ``value`` is computed row by row and nothing else reads it."""
        if not isinstance(value, fx.Node) or value.op != "call_function":
            return False
        if not all(is_call(u, "take_rows") and u.args[1] is rows for u in value.users):
            return False
        assert isinstance(value.target, Op)
        if is_call(value, "reshape"):
            return type_of(value).shape[0] == type_of(value.args[0]).shape[0]
        kind = type_of(value)
        return value.target.traits.rowwise and isinstance(kind, TensorType) and len(kind.shape) > 1

    def moved(self, rewriter: Rewriter, selection: fx.Node, value: fx.Node, rows: fx.Node) -> fx.Node:
        tokens = type_of(value).shape[0]
        rewriter.at(selection, like=value)
        chosen: dict[fx.Node, fx.Node] = {}
        operands = []
        for operand in value.args:
            kind = type_of(operand)
            if isinstance(kind, TensorType) and kind.shape[:1] == (tokens,):
                if operand not in chosen:
                    chosen[operand] = rewriter.emit("take_rows", operand, rows)
                operand = chosen[operand]
            operands.append(operand)
        attributes = dict(value.kwargs)
        if is_call(value, "reshape"):
            attributes["shape"] = (type_of(selection).shape[0], *value.kwargs["shape"][1:])
        return rewriter.emit(value.target, *operands, **attributes)

    examples = (
        example(
            lambda x, y, w, head, logit_rows: ops.take_rows(
                ops.linear(ops.rms_norm(x + y, w, eps=1e-6), head, None), logit_rows
            ),
            matches=3,
            x="bf16[T, 64]",
            y="bf16[T, 64]",
            w="weight bf16[64]",
            head="weight bf16[96, 64]",
            logit_rows="i32[R]",
        ),
        example(
            lambda x, logit_rows: ops.take_rows(
                ops.exp(ops.reshape(ops.mean(ops.neg(x)), shape=(x.shape[0], 1, 1))), logit_rows
            ),
            matches=4,
            x="f32[T, 64]",
            logit_rows="i32[R]",
        ),
        example(
            lambda x, logit_rows: (ops.take_rows(y := ops.exp(x), logit_rows), y),
            x="f32[T, 64]",
            logit_rows="i32[R]",
            rejects="stops at exp",
        ),
    )
