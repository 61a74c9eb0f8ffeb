"""Rotary embeddings. The operator rotates all of a head, in float32 here; what is behind the rotated part stays."""

from torch import fx

from .....compiler.ir.program import is_call
from ..call import NpuCall, provides
from ..carried import rotated
from ..schemas import Value


@provides("rope_table")
def rope_table(call: NpuCall) -> None:
    angles = call.let("angles", call.expression("{0}.float()[:, None] * {1}"))
    scale = call.attribute("scale")
    scaled = "" if scale == 1.0 else f" * {scale!r}"
    call.give(Value(f"torch.cat([{angles}.cos(), {angles}.sin()], -1){scaled}"))


@provides("rope")
def rope(call: NpuCall) -> None:
    kind = call.type(0)
    x = call.let("x", f"{call.tensor(0)}.float()")
    call.give(Value(f"{rotate(call, x, kind.shape[-1], 1)}.to({kind.torch_dtype})"))


def rotate(call: NpuCall, x: Value, dim: int, table: int) -> Value:
    """x, f32 [T, heads, dim], rotated by the table that operand ``table`` is.

    torch_npu documents its operator for factors within [-1, 1] alone, and heads of an even size below 896.
    """
    node, angles = call.node.args[table], call.tensor(table)
    width = call.type(table).shape[1]
    low, high = f"{angles}[:, :{width // 2}]", f"{angles}[:, {width // 2}:]"
    cos = call.writer.share("cos", f"torch.cat([{low}, {low}], -1)[None, :, None]")
    sin = call.writer.share("sin", f"torch.cat([{high}, {high}], -1)[None, :, None]")
    first = x if width == dim else call.let("turning", f"{x}.narrow(-1, 0, {width}).contiguous()")
    if within_one(node) and width < 896:
        turned = Value(f"{call.operator('npu_rotary_mul', Value(f'{first}[None]'), cos, sin, rotary_mode='half')}[0]")
    else:
        call.plainly("a rotation whose factors may be beyond 1, or too wide a one")
        turned = call.helper(rotated, first, cos, sin)
    return turned if width == dim else Value(f"torch.cat([{turned}, {x}.narrow(-1, {width}, {dim - width})], -1)")


def within_one(table: fx.Node) -> bool:
    """Whether it is known that a table holds nothing beyond 1."""
    return is_call(table, "rope_table") and abs(table.kwargs["scale"]) <= 1.0
