"""What stands between a fused projection and attention becomes one op, which reads the projection once.

    k' = rope(rms_norm(heads(slice(y, k)), wk), table);   v' = heads(slice(y, v))
    s' = kv_write(s, k', v', slots)                        ==>   q', s' = qkv_write(y, table, wq, wk, s, slots)
    q' = rope(rms_norm(heads(slice(y, q)), wq), table)

Norms and rotation may both be absent.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import fx

from ..compiler.ir.program import is_call, is_weight, type_of
from .api import Numerics, Pass, Report, Rewriter, Stage
from .matcher import look_through


@dataclass(frozen=True)
class Branch:
    """How one of q, k and v comes out of the projection ``source``."""

    source: Any
    start: int
    stop: int
    table: fx.Node | None
    norm: fx.Node | None
    eps: float


@dataclass(frozen=True)
class FuseQKVWrite(Pass):
    name: ClassVar[str] = "fuse-qkv-write"
    stage: ClassVar[Stage] = "fused"
    numerics: ClassVar[Numerics] = "reassociating"

    def run(self, rewriter: Rewriter) -> Report:
        report = Report()
        for write in rewriter.calls("kv_write"):
            readers = [u for u in write.users if is_call(u, "paged_attention")]
            if len(readers) != 1:
                report.miss(write, f"is read by {len(readers)} attention ops, not one")
                continue
            query = readers[0].args[0]
            q, k, v = (branch(n) for n in (query, write.args[1], write.args[2]))
            if reason := refuses(q, k, v):
                report.miss(write, reason)
                continue
            assert q is not None and k is not None
            rewriter.at(write)
            fused = rewriter.emit(
                "qkv_write", q.source, q.table, q.norm, k.norm, write.args[0], write.args[3],
                heads=type_of(query).shape[1], eps=q.eps,
            )  # fmt: skip
            queries = rewriter.emit("get", fused, index=0)
            rewriter.replace({query: queries, write: rewriter.emit("get", fused, index=1)})
            report.matches += 1
        rewriter.erase_dead()
        return report


def branch(node: Any) -> Branch | None:
    table = norm = None
    eps = 0.0
    dim = type_of(node).shape[-1]
    node = look_through(node, "reshape")
    if is_call(node, "rope"):
        node, table = node.args
    node = look_through(node, "reshape")
    if is_call(node, "rms_norm") and is_weight(node.args[1]) and type_of(node).shape[-1] == dim:
        eps = node.kwargs["eps"]
        node, norm = node.args
    node = look_through(node, "reshape")
    if not is_call(node, "slice") or len(type_of(node).shape) != 2 or node.kwargs["axis"] != 1:
        return None
    return Branch(node.args[0], node.kwargs["start"], node.kwargs["stop"], table, norm, eps)


def refuses(q: Branch | None, k: Branch | None, v: Branch | None) -> str | None:
    if q is None or k is None or v is None:
        return "queries, keys or values are not heads of slices of one projection"
    if not q.source is k.source is v.source:
        return "queries, keys and values come from different projections"
    if (q.start, q.stop, k.stop, v.stop) != (0, k.start, v.start, type_of(q.source).shape[1]):
        return "the projection is not queries, then keys, then values"
    if q.table is not k.table or v.table is not None or v.norm is not None:
        return "queries and keys are rotated differently, or values are rotated or normed"
    if (q.norm is None) != (k.norm is None) or q.eps != k.eps:
        return "queries and keys are normed differently"
    return None
