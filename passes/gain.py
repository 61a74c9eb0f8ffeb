"""What a replacement saves, as ``gain`` is told it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import fx

from ..compiler.cost import DECODE, PREFILL, CostModel
from ..compiler.ir.op import Op
from ..compiler.ir.program import type_of
from .recording import Recorded, RecordedWeight


class SiteCosts(NamedTuple):
    """Seconds a token, in a step that decodes one and in one that prefills many, added."""

    before: float
    """Of the calls that the replacement makes superfluous."""
    after: float
    """Of the calls that it brings."""

    @property
    def saved(self) -> float:
        return self.before - self.after


def site_costs(model: CostModel, old: Sequence[fx.Node], new: Sequence[Recorded]) -> SiteCosts:
    """Predict both sides of a replacement."""
    before = sum(_seconds(model, n.target, [type_of(a) for a in n.args], n.kwargs) for n in old)
    after = sum(_seconds(model, c.op, [_type(o) for o in c.operands], c.attributes) for c in new)
    return SiteCosts(before, after)


def _seconds(model: CostModel, op: Op, types: list[Any], attributes: dict[str, Any]) -> float:
    return sum(model.call_seconds(op, types, attributes, sizes) / sizes["T"] for sizes in (DECODE, PREFILL))


def _type(operand: Any) -> Any:
    if isinstance(operand, RecordedWeight):
        return operand.weight.type
    return operand.type if isinstance(operand, Recorded) else type_of(operand)
