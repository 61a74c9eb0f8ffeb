"""A pass's hands on one function: it emits, replaces, and says where it matched and where it nearly did."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from ...compiler.cost import CostModel
from ...compiler.ir.op import Op
from ...compiler.ir.program import Function, Program, Weight, emit, emit_weight, mutates_state
from ...compiler.ir.region import Region, extract
from ...compiler.ops import OPS
from .ledger import Ledger


@dataclass(frozen=True)
class Site:
    """One place in the model that a pass changed, or would have but for ``reason``."""

    where: str
    """The module path it came from, or the value's name."""
    reason: str = ""

    @property
    def matched(self) -> bool:
        return not self.reason

    def __str__(self) -> str:
        return self.where if self.matched else f"{self.where}: {self.reason}"


class LimitReached(Exception):
    """The rewriter was told to stop after so many sites. Not an error: ``bisect`` runs passes in part."""


class Rewriter:
    """Changes one function of the program, and remembers every replacement so that it can be compared."""

    def __init__(
        self, program: Program, function: Function, limit: int | None = None, costs: CostModel | None = None
    ) -> None:
        self.program = program
        self.function = function
        self.graph = function.graph
        self.costs = costs or CostModel.even_handed(program)
        """What gains are predicted with; by default the shipped machine's, so that passes do everywhere the same."""
        self.sites: list[Site] = []
        self.regions: dict[str, Region] = {}
        """Replacements made, one for each structure, by the text of both sides."""
        self.erased: set[fx.Node] = set()
        self.ledger = Ledger(program, self.graph)
        self._limit = limit
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
        if self._before is None:
            raise TypeError("say where to emit with at(node) first")
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

    def replace(self, replacements: Mapping[fx.Node, fx.Node], inputs: Iterable[fx.Node] = ()) -> None:
        """Let every reader of each old value read its new one: one match, whose pair is remembered for comparison.

        ``inputs``: values that both sides are computed from, where the new side may do without some of them.
        """
        region = extract(self.program, list(replacements), list(replacements.values()), self._created, inputs)
        try:
            self.matched(next(iter(replacements)))
        except LimitReached:
            for node in sorted(self._created - self.erased, reverse=True):
                if not node.users:  # a change of state among them would else never be dead
                    self.erase(node)
            raise
        for old, new in replacements.items():
            self.ledger.replaced(old, new, self._created)
        self._created.clear()
        self.regions.setdefault(region.key, region)
        for old, new in replacements.items():
            order = {n: i for i, n in enumerate(self.graph.nodes)}
            old.replace_all_uses_with(new, delete_user_cb=lambda user, new=new, order=order: order[user] > order[new])
            if mutates_state(old) and old is not new:
                self.erase(old)

    def matched(self, node: fx.Node) -> None:
        """Count a match that replaces nothing."""
        if self._limit is not None and sum(s.matched for s in self.sites) >= self._limit:
            raise LimitReached
        self.sites.append(Site(node.meta.get("where") or node.name))

    def miss(self, node: fx.Node, reason: str) -> None:
        """Say that ``node`` nearly matched."""
        self.sites.append(Site(node.meta.get("where") or node.name, reason))

    def erase_dead(self) -> int:
        """Remove calls that nothing reads; a call that changes a state stays. Returns how many went."""
        count = 0
        for node in reversed(list(self.graph.nodes)):
            if node.op in ("call_function", "get_attr") and not node.users and not mutates_state(node):
                self.erase(node)
                count += node.op == "call_function"
        return count

    def erase(self, node: fx.Node) -> None:
        """Remove a node that nothing reads."""
        self.graph.erase_node(node)
        self.erased.add(node)

    def calls(self, *names: str) -> list[fx.Node]:
        """The calls of the named ops, in order (all calls where none is named)."""
        return [n for n in self.function.calls if not names or n.target.name in names]
