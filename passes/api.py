"""What the author of a pass imports.

    from xllmc.passes.api import Float, Number, Value, Weight, example, ops, rewrite

    @rewrite(stage="fused")
    class FuseAddRMSNorm:
        \"\"\"add, then rms_norm  ==>  add_rms_norm\"\"\"

        def pattern(self, x: Float[Value, "T H"], y: Float[Value, "T H"], w: Weight[Value, "H"], eps: Number) -> Values:
            total = x + y
            return total, ops.rms_norm(total, w, eps=eps)

        def replacement(self, x: Value, y: Value, w: Value, eps: float) -> Values:
            both = ops.add_rms_norm(x, y, w, eps=eps)
            return both[0], both[1]

        examples = (example(lambda x, y, w: ops.rms_norm(x + y, w, eps=1e-6), x="bf16[T, 64]", ...),)

``TUTORIAL.md`` beside this file writes one from nothing.
"""

from ..compiler.ir.op import Cost, Traits
from ..compiler.ir.program import Weight as WeightEntry
from ..compiler.ir.program import is_call, is_weight, mutates_state, type_of
from ..compiler.ir.types import PagedType, TensorType
from ..compiler.ops.registry import op
from ..compiler.ops.typing import elements, require, traffic
from .authoring.base import STAGES, Numerics, Pass, Stage, pass_types
from .authoring.examples import Example, check_example, example
from .authoring.gain import SiteCosts
from .authoring.graph_pass import graph_pass
from .authoring.matcher import show
from .authoring.pattern import optional
from .authoring.rewrite import Match, Rewrite, rewrite
from .authoring.rewriter import LimitReached, Rewriter, Site
from .authoring.signature import Attribute, Float, Int, Number, OneOf, Size, State, Tensor, Weight
from .authoring.values import Value, ops, recipes

Values = tuple[Value, ...]
"""Several results."""

__all__ = [
    "STAGES",
    "Attribute",
    "Cost",
    "Example",
    "Float",
    "Int",
    "LimitReached",
    "Match",
    "Number",
    "Numerics",
    "OneOf",
    "PagedType",
    "Pass",
    "Rewrite",
    "Rewriter",
    "Site",
    "SiteCosts",
    "Size",
    "Stage",
    "State",
    "Tensor",
    "TensorType",
    "Traits",
    "Value",
    "Values",
    "Weight",
    "WeightEntry",
    "check_example",
    "elements",
    "example",
    "graph_pass",
    "is_call",
    "is_weight",
    "mutates_state",
    "op",
    "ops",
    "optional",
    "pass_types",
    "recipes",
    "require",
    "rewrite",
    "show",
    "traffic",
    "type_of",
]
