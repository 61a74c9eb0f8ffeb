"""Rows of a table by number: embeddings, and the rows whose logits are wanted."""

from torch import fx

from ....compiler.ir.dims import Size, product, whole
from ....compiler.ir.program import type_of
from ..epilogues import finish_of
from ..kernel import Config, TritonCall, axis, power_of_two, width
from ..registering import provides

_MOST_COLUMNS = 1024
"""Of one program: two loads of 16 bytes for each thread of 16-bit numbers, and many programs for few rows."""


@provides("embedding")
def embedding(call: TritonCall) -> None:
    table, ids, *others = call.node.args
    _gather(call, table, ids, call.rows(ids, trailing=0), width(table), others)


@provides("take_rows")
def take_rows(call: TritonCall) -> None:
    x, rows = call.node.args
    _gather(call, x, rows, call.rows(rows, trailing=0), whole(product(type_of(x).shape[1:])), [])


def _gather(
    call: TritonCall, table: fx.Node, numbers: fx.Node, rows: Size, columns: int, others: list[fx.Node]
) -> None:
    finish = finish_of(call, others)
    block = min(power_of_two(columns), _MOST_COLUMNS)
    call.launch(
        call.node.target.name,
        "gather.py.j2",
        {"table": call.value(table), "numbers": call.value(numbers)} | finish.operands,
        (axis(rows), axis(columns, block)),
        Config({"BLOCK_N": block}, warps=4 if block >= 512 else 1, stages=1),
        rows=call.count(rows),
        columns=columns,
        computed="epilogue" in call.node.kwargs,
        finish=finish,
        functions=finish.functions,
    )
