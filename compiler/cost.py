"""The cost model as passes and lowering ask it: seconds of a call, by its op's own count of bytes and operations.

    model = CostModel.even_handed(program)
    model.call_seconds(op, operand_types, attributes, DECODE)

The evaluation and the machine's profile are the runtime's (``runtime.cost``, ``runtime.machine``), so that a scheduler
uses the same numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Any

from torch import fx

from ..runtime.artifact.counts import Sizes
from ..runtime.artifact.schema import Work
from ..runtime.cost import DECODE, PREFILL, StepCost, launch_seconds
from ..runtime.machine import Profile, Rates, generic_profile
from .ir.dims import whole
from .ir.op import Cost, Op
from .ir.program import Program, is_call, is_weight, type_of
from .ir.types import TensorType, ValueType

__all__ = [
    "DECODE",
    "PREFILL",
    "CostModel",
    "StepCost",
    "call_work",
    "node_work",
]

LINE, PANEL_ITEM = 64, 4
"""Bytes of a cache line, and of what a row of a packed matrix has in each: a float, or a pair of bf16."""


def call_work(op: Op, operand_types: Sequence[Any], attributes: Mapping[str, Any]) -> Work | None:
    """What a call moves and computes, or None where its op states no cost."""
    if op.cost_model is None:
        return None
    cost = op.cost_model(*operand_types, **attributes)
    if not isinstance(cost, Cost):
        raise TypeError(f"the cost rule of op {op.name} must give a Cost, got {cost!r}")
    floats = [t.dtype for t in operand_types if isinstance(t, TensorType) and t.is_float]
    return Work(
        op=op.name,
        dtype=floats[0] if floats else "f32",
        streamed=cost.streamed.named(),
        read=cost.read.named(),
        write=cost.write.named(),
        flops=cost.flops.named(),
        tasks=cost.tasks.named(),
    )


def node_work(node: fx.Node, program: Program | None = None) -> Work | None:
    """The same of a call in a graph. ``program``: of a lowered one, to tell how weights are stored."""
    work = call_work(node.target, [type_of(a) for a in node.args], node.kwargs)
    if work is None or program is None or not is_call(node, "embedding") or not is_weight(node.args[0]):
        return work
    if program.weights[str(node.args[0].target)].layout != "panels":
        return work
    scattered = {name: count * LINE // PANEL_ITEM for name, count in work.streamed.items()}
    return work.model_copy(update={"op": "embedding.panels", "streamed": scattered})


@dataclass(frozen=True)
class CostModel:
    """Seconds of calls on the machine that ``profile`` describes."""

    profile: Profile
    footprint: float = float("inf")
    """Bytes that a whole step touches, which decides whether weights come from memory or from a cache."""

    @classmethod
    def even_handed(cls, program: Program) -> "CostModel":
        """For choosing between two ways to compute the same: every kernel gets the same share of the ceilings.

        Calibration tells kinds of kernels apart, and an op of tomorrow is not calibrated; a choice should follow what
        is moved, computed and launched, and come out alike wherever it is made. So the profile is the shipped one.
        """
        profile = generic_profile()
        overhead = median(rates.overhead for rates in profile.kernels.values())
        even = Rates(overhead=overhead, streaming=1, handling=1, arithmetic=1)
        types = (w.type for w in program.weights.values())
        footprint = sum(whole(t.bytes_of(t.shape)) for t in types)
        return cls(profile.model_copy(update={"kernels": {}, "other": even}), footprint)

    def call_seconds(
        self, op: Op, operand_types: Sequence[ValueType | Any], attributes: Mapping[str, Any], sizes: Sizes
    ) -> float:
        """Seconds of one call in a step of these sizes; 0 for a view, a bare launch where the op states no cost.

        ``operand_types``: types of values, immediates and None, as the op takes them. Types without symbols are taken
        for weights.
        """
        if op.traits.view:
            return 0.0
        work = _known_work(op, tuple(operand_types), tuple(attributes.items()))
        if work is None:
            return self.profile.ceilings.launch
        return launch_seconds(work, self.profile, sizes, self.footprint)


@lru_cache(maxsize=4096)
def _known_work(op: Op, types: tuple[Any, ...], attributes: tuple[tuple[str, Any], ...]) -> Work | None:
    return call_work(op, types, dict(attributes))
