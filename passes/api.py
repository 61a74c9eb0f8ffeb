"""What a pass is, and the tools one is written with.

A pass is a frozen dataclass; its fields are its options. It runs inside a transaction (``compiler.pipeline``): on a
copy, through a ``Rewriter`` that remembers every replacement it makes, so that each can be compared numerically with
what stood there before. A pass that only reorders or annotates replaces nothing and is exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import fx

from ..compiler.ir.op import Op
from ..compiler.ir.program import Function, Program, Weight, emit, emit_weight, mutates_state
from ..compiler.ir.region import Region, extract
from ..compiler.ops import OPS

Numerics = Literal["exact", "reassociating", "lossy"]
Stage = Literal["traced", "canonical", "recognised", "fused", "lowered"]
STAGES: tuple[Stage, ...] = ("traced", "canonical", "recognised", "fused", "lowered")
"""In order. A program is at the furthest stage that a pass has taken it to."""


@dataclass
class Report:
    """What a pass did: how often it matched, and where it nearly did and why not."""

    matches: int = 0
    near_misses: list[str] = field(default_factory=list)

    def miss(self, node: fx.Node, reason: str) -> None:
        place = node.meta.get("where") or node.name
        self.near_misses.append(f"{place}: {reason}")


@dataclass(frozen=True)
class Pass:
    """Base of all passes. ``run`` changes the program through the rewriter and reports."""

    name: ClassVar[str]
    stage: ClassVar[Stage]
    numerics: ClassVar[Numerics] = "exact"

    def run(self, rewriter: "Rewriter") -> Report:
        raise TypeError(f"pass {type(self).__name__} must define run")


class Rewriter:
    """One pass's hands on one function of the program being rewritten."""

    def __init__(self, program: Program, function: Function) -> None:
        self.program = program
        self.function = function
        self.graph = function.graph
        self.regions: dict[str, Region] = {}
        """Replacements made, one for each structure, by the text of both sides."""
        self._created: set[fx.Node] = set()
        """Calls emitted since the last replacement: its new side."""
        self._before: fx.Node | None = None
        self._where = ""

    def at(self, node: fx.Node, like: fx.Node | None = None) -> "Rewriter":
        """Emit before ``node``, as if from its module, or from that of ``like``."""
        self._before, self._where = node, (like or node).meta.get("where", "")
        return self

    def emit(self, op: str | Op, *operands: Any, **attributes: Any) -> fx.Node:
        """A call of the op at the place last given to ``at``."""
        assert self._before is not None, "say where to emit with at(node)"
        with self.graph.inserting_before(self._before):
            target = OPS[op] if isinstance(op, str) else op
            node = emit(self.graph, target, *operands, where=self._where, **attributes)
        self._created.add(node)
        return node

    def weight(self, name: str, weight: Weight) -> fx.Node:
        """Declare a weight (under an unused name like ``name``) and read it. Equal recipes share one weight."""
        for known, other in self.program.weights.items():
            if other == weight:
                return emit_weight(self.graph, self.program, known)
        name = self.program.unused_name(name)
        self.program.weights[name] = weight
        return emit_weight(self.graph, self.program, name)

    def replace(self, replacements: Mapping[fx.Node, fx.Node]) -> None:
        """Let every reader of each old value read its new one. The pair is remembered for comparison."""
        region = extract(self.program, list(replacements), list(replacements.values()), self._created)
        self._created.clear()
        self.regions.setdefault(region.key, region)
        for old, new in replacements.items():
            order = {n: i for i, n in enumerate(self.graph.nodes)}
            old.replace_all_uses_with(new, delete_user_cb=lambda user, new=new, order=order: order[user] > order[new])
            if mutates_state(old) and old is not new:
                self.graph.erase_node(old)

    def erase_dead(self) -> int:
        """Remove calls that nothing reads; a call that changes a state stays. Returns how many went."""
        count = 0
        for node in reversed(list(self.graph.nodes)):
            if node.op in ("call_function", "get_attr") and not node.users and not mutates_state(node):
                self.graph.erase_node(node)
                count += node.op == "call_function"
        return count

    def calls(self, *names: str) -> list[fx.Node]:
        """The calls of the named ops, in order (all calls where none is named)."""
        return [n for n in self.function.calls if not names or n.target.name in names]
