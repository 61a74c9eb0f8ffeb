"""Whether fusing pays: the one place that decides it, by the cost model."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from torch import fx

from ..compiler.cost import DECODE, PREFILL, CostModel
from ..compiler.ir.op import Op
from ..compiler.ir.program import type_of

SIZES = (DECODE, PREFILL)

Call = tuple[Op, Sequence[Any], dict[str, Any]]
"""An op, its operands (nodes, immediates, None) and its attributes."""


def call_of(node: fx.Node) -> Call:
    return node.target, node.args, dict(node.kwargs)


def pays(costs: CostModel, before: Iterable[Call], after: Iterable[Call]) -> bool:
    """Whether the calls ``after`` take less time than those ``before``, for one token and for many."""

    def seconds(calls: Iterable[Call]) -> list[float]:
        each = [_seconds(costs, op, tuple(map(type_of, o)), tuple(a.items())) for op, o, a in calls]
        return [sum(column) for column in zip(*each, strict=True)]

    return all(b < a for a, b in zip(seconds(before), seconds(after), strict=True))


@lru_cache(maxsize=4096)
def _seconds(
    costs: CostModel, op: Op, types: tuple[Any, ...], attributes: tuple[tuple[str, Any], ...]
) -> tuple[float, ...]:
    return tuple(costs.call_seconds(op, types, dict(attributes), sizes) for sizes in SIZES)
