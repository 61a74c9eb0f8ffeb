"""What a replacement saves, by the cost model: what ``gain`` is told, and whether fusing pays."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import fx

from ...compiler.cost import DECODE, PREFILL, CostModel
from ...compiler.ir.op import Op
from ...compiler.ir.program import type_of
from .recording import Recorded, RecordedWeight
from .values import Value

Call = tuple[Op, Sequence[Any], dict[str, Any]]
"""An op, its operands (nodes, recorded calls, immediates, None) and its attributes."""


class SiteCosts(NamedTuple):
    """Seconds a token, in a step that decodes one and in one that prefills many, added."""

    before: float
    """Of the calls that the replacement makes superfluous."""
    after: float
    """Of the calls that it brings."""

    @property
    def saved(self) -> float:
        return self.before - self.after


def site_costs(model: CostModel, old: Iterable[fx.Node], new: Iterable[Value]) -> SiteCosts:
    """Predict both sides of a replacement: the calls that die, and those that its results are made of."""
    before, after = (_seconds(model, calls) for calls in (map(call_of, old), _recorded(new)))
    tokens = (DECODE["T"], PREFILL["T"])
    return SiteCosts(*(sum(s / t for s, t in zip(side, tokens, strict=True)) for side in (before, after)))


def pays(model: CostModel, before: Iterable[Call], after: Iterable[Call]) -> bool:
    """Whether the calls ``after`` take less time than those ``before``, both for one token and for many."""
    return all(b < a for a, b in zip(_seconds(model, before), _seconds(model, after), strict=True))


def call_of(node: fx.Node) -> Call:
    return node.target, node.args, dict(node.kwargs)


def _seconds(model: CostModel, calls: Iterable[Call]) -> tuple[float, float]:
    """In a decoding step, and in a prefilling one."""
    typed = [(op, tuple(map(_type, operands)), attributes) for op, operands, attributes in calls]
    decode, prefill = (sum(model.call_seconds(*call, sizes) for call in typed) for sizes in (DECODE, PREFILL))
    return decode, prefill


def _type(operand: Any) -> Any:
    if isinstance(operand, RecordedWeight):
        return operand.weight.type
    return operand.type if isinstance(operand, Recorded) else type_of(operand)


def _recorded(values: Iterable[Value]) -> list[Call]:
    """The recorded calls that these values are made of, each once."""
    found: dict[Recorded, None] = {}
    stack = [v.handle for v in values]
    while stack:
        handle = stack.pop()
        if isinstance(handle, Recorded) and handle not in found:
            found[handle] = None
            stack += handle.operands
    return [(c.op, c.operands, c.attributes) for c in found]
