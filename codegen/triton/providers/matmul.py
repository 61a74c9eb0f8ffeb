"""Matrix products with a weight: one launch for each range of rows, two where K is split among programs."""

from typing import Any

from torch import fx

from ....compiler.ir.dims import Dim, Size
from ....compiler.ir.program import type_of
from ....compiler.ops.linear import GATE_BLOCK
from ....runtime.artifact.schema import Condition, DeviceSize
from ..configs import Variant, variants
from ..epilogues import finish_of
from ..invariant import invariant_variants
from ..kernel import Argument, Config, TritonCall, axis, power_of_two, when, width
from ..predict import Problem, vector
from ..registering import provides

_SUM_COLUMNS = 256
"""Of one program that adds the pieces' sums: one for each thread, so that there are many programs."""


@provides("linear")
def linear(call: TritonCall) -> None:
    problem, rows = problem_of(call.node), call.rows(call.node.args[0])
    chosen = (invariant_variants if call.invariant else variants)(problem, call.machine)
    for variant in chosen:
        conditions = _conditions(rows, variant)
        if conditions is not None:
            launch_product(call, problem, variant, conditions)


def problem_of(node: fx.Node) -> Problem:
    """The product that a call of ``linear`` is, for any number of rows."""
    x = node.args[0]
    return Problem(type_of(x).dtype, width(node), width(x), bool(node.kwargs.get("gated")))


def launch_product(
    call: TritonCall, problem: Problem, variant: Variant, conditions: tuple[Condition, ...] = ()
) -> None:
    """Compute the node with one configuration: what a tuner calls for each candidate."""
    rows, tiles = call.rows(call.node.args[0]), variant.config.tiles
    split = tiles["SPLIT"] > 1 and not tiles["WALK"]
    x, weight, bias, *others = call.node.args
    activation = call.node.kwargs.get("activation", "none")
    finish = finish_of(call, others, activation)
    after = ({"bias": call.value(bias)} if bias is not None else {}) | finish.operands
    operands = {"x": call.value(x), "weight": call.value(weight)}
    partial: dict[str, Argument] = {}
    if split:
        if variant.most is None:
            raise ValueError(
                f"pieces of K can have programs of their own only for a bounded number of rows, got {tiles}"
            )
        shape = (tiles["SPLIT"], problem.halves, variant.most, problem.columns)
        partial["partial"] = call.scratch(f"sums{variant.most}", "f32", shape)
    columns = axis(problem.columns, tiles["BLOCK_N"])
    pieces = axis(tiles["SPLIT"] if split else 1)
    name = f"linear{'_gated' if problem.gated else ''}_{problem.columns}x{problem.inner}"
    shared: dict[str, Any] = {
        "rows": call.count(rows),
        "columns": problem.columns,
        "gated": problem.gated,
        "gate_block": GATE_BLOCK,
        "most": variant.most,
        "biased": bias is not None,
        "activation": activation,
        "finish": finish,
        "functions": finish.functions,
    }
    one_row = tiles["BLOCK_M"] == 1
    call.launch(
        name,
        "linear_row.py.j2" if one_row else "linear.py.j2",
        operands | (partial or after),
        (columns,) if one_row else (axis(rows, tiles["BLOCK_M"]), columns, pieces),
        variant.config,
        when=conditions,
        width=problem.inner,
        split=split,
        walk=bool(tiles["WALK"]),
        vector=vector(problem),
        piece_width=problem.inner // tiles["SPLIT"],
        column_blocks=-(-problem.columns // tiles["BLOCK_N"]),
        precise=problem.dtype == "f32",
        long=problem.columns * problem.halves * problem.inner >= 2**31,
        **shared,
    )
    if split:
        config = Config({"BLOCK_N": min(_SUM_COLUMNS, power_of_two(problem.columns)), "SPLIT": tiles["SPLIT"]}, 4, 1)
        call.launch(
            f"{name}_sum",
            "linear_sum.py.j2",
            partial | after,
            (axis(problem.columns, config.tiles["BLOCK_N"]), axis(rows)),
            config,
            when=conditions,
            part="sum",
            **shared,
        )


def _conditions(rows: Size, variant: Variant) -> tuple[Condition, ...] | None:
    """When a variant is launched, as bounds of the symbol that the rows follow; None where it never is."""
    if not isinstance(rows, Dim):
        inside = variant.least <= rows and (variant.most is None or rows <= variant.most)
        return () if inside else None
    least = -(-variant.least // rows.factor)
    most = None if variant.most is None else variant.most // rows.factor
    if most is not None and most < least:
        return None
    symbol: DeviceSize = rows.symbols[0]  # type: ignore[assignment]
    return (when(symbol, least, most),)
