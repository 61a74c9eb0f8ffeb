"""The cost model as passes and lowering ask it: seconds of a call, by its op's own count of bytes and operations.

    model = CostModel.for_program(program)
    model.node_seconds(node, DECODE) + model.node_seconds(node, PREFILL)

The evaluation and the machine's profile are the runtime's (``runtime.cost``, ``runtime.machine``), so that a scheduler
uses the same numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from torch import fx

from ..runtime.artifact.counts import Sizes
from ..runtime.artifact.schema import Work
from ..runtime.cost import DECODE, PREFILL, StepCost, launch_seconds, predict_step
from ..runtime.machine import Profile, Rates, choose_profile, generic_profile
from .ir.dims import whole
from .ir.op import Op
from .ir.program import Program, is_call, is_weight, type_of
from .ir.types import TensorType, ValueType

__all__ = [
    "DECODE",
    "PREFILL",
    "CostModel",
    "Sizes",
    "StepCost",
    "call_work",
    "node_work",
    "predict_step",
]

LINE, PANEL_ITEM = 64, 4
"""Bytes of a cache line, and of what a row of a packed matrix has in each: a float, or a pair of bf16."""


def call_work(op: Op, operand_types: Sequence[Any], attributes: Mapping[str, Any]) -> Work | None:
    """What a call moves and computes, or None where its op states no cost."""
    if op.cost_model is None:
        return None
    cost = op.cost_model(*operand_types, **attributes)
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


@dataclass(frozen=True, eq=False)
class CostModel:
    """Seconds of calls on the machine that ``profile`` describes."""

    profile: Profile = field(default_factory=lambda: choose_profile().profile)
    footprint: float = float("inf")
    """Bytes that a whole step touches, which decides whether weights come from memory or from a cache."""

    @classmethod
    def for_program(cls, program: Program, profile: Profile | None = None) -> "CostModel":
        """For calls of ``program``, whose weights are the footprint."""
        types = (w.type for w in program.weights.values())
        footprint = sum(whole(t.bytes_of(t.shape)) for t in types)
        return cls(profile or choose_profile().profile, footprint)

    @classmethod
    def even_handed(cls, program: Program, profile: Profile | None = None) -> "CostModel":
        """For choosing between two ways to compute the same: every kernel gets the same share of the ceilings.

        Calibration tells kinds of kernels apart, and an op of tomorrow is not calibrated; a choice should follow what
        is moved, computed and launched, and come out alike on every machine. ``profile``: default the shipped one.
        """
        profile = profile or generic_profile()
        overheads = [rates.overhead for rates in profile.kernels.values()]
        even = Rates(overhead=median(overheads or [profile.ceilings.launch]), streaming=1, handling=1, arithmetic=1)
        return cls.for_program(program, profile.model_copy(update={"kernels": {}, "other": even}))

    def call_seconds(
        self, op: Op, operand_types: Sequence[ValueType | Any], attributes: Mapping[str, Any], sizes: Sizes
    ) -> float:
        """Seconds of one call in a step of these sizes; 0 for a view, a bare launch where the op states no cost.

        ``operand_types``: types of values, immediates and None, as the op takes them. Types without symbols are taken
        for weights.
        """
        if op.traits.view:
            return 0.0
        work = call_work(op, operand_types, attributes)
        if work is None:
            return self.profile.ceilings.launch
        return launch_seconds(work, self.profile, sizes, self.footprint)

    def node_seconds(self, node: fx.Node, sizes: Sizes) -> float:
        """Seconds of a call in a graph."""
        return self.call_seconds(node.target, [type_of(a) for a in node.args], node.kwargs, sizes)
