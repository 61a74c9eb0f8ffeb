"""Sets of calls that could be one kernel: grown by joining, never into a cycle."""

from collections.abc import Iterable

from torch import fx

from ..compiler.ir.program import mutates_state


class Clusters:
    """A partition of a graph's calls. At first every call stands alone.

    Sets of nodes are kept as bits of whole numbers, by their place in the graph.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self.nodes = list(graph.nodes)
        self.index = {n: i for i, n in enumerate(self.nodes)}
        self._members = [1 << i for i in range(len(self.nodes))]
        self._before = [0] * len(self.nodes)
        self._after = [0] * len(self.nodes)
        for i, node in enumerate(self.nodes):
            for j in self._earlier(node):
                self._before[i] |= self._before[j] | 1 << j
        for i in reversed(range(len(self.nodes))):
            for j in self._earlier(self.nodes[i]):
                self._after[j] |= self._after[i] | 1 << i

    def _earlier(self, node: fx.Node) -> list[int]:
        """What must come before ``node``: what it reads, and readers of a state that it changes."""
        earlier = [self.index[n] for n in node.all_input_nodes]
        if node.op == "call_function" and mutates_state(node):
            state = node.args[node.target.traits.mutates]
            earlier += [self.index[u] for u in state.users if self.index[u] < self.index[node]]
        return earlier

    def members(self, node: fx.Node) -> list[fx.Node]:
        """The cluster of ``node``, in graph order."""
        bits = self._members[self.index[node]]
        return [self.nodes[i] for i in _places(bits)]

    def key(self, node: fx.Node) -> int:
        """Equal for calls of one cluster, as long as it does not grow."""
        return self._members[self.index[node]]

    def can_join(self, a: fx.Node, b: fx.Node) -> bool:
        """Whether no path between the clusters of ``a`` and ``b`` leaves them and comes back."""
        i, j = self.index[a], self.index[b]
        between = self._after[i] & self._before[j] | self._after[j] & self._before[i]
        return not between & ~(self._members[i] | self._members[j])

    def join(self, a: fx.Node, b: fx.Node) -> None:
        i, j = self.index[a], self.index[b]
        members = self._members[i] | self._members[j]
        before = (self._before[i] | self._before[j]) & ~members
        after = (self._after[i] | self._after[j]) & ~members
        for k in _places(members):
            self._members[k], self._before[k], self._after[k] = members, before, after
        for k in _places(before):
            self._after[k] |= after | members
        for k in _places(after):
            self._before[k] |= before | members

    def order(self, clusters: Iterable[list[fx.Node]]) -> list[fx.Node]:
        """All nodes in an order in which each of these clusters stands together, else as it was."""
        ends = {n: c[-1] for c in clusters for n in c}
        waiting = {n: c for c in clusters for n in c}
        placed: dict[fx.Node, None] = {}

        def place(node: fx.Node) -> None:
            stack = [node]
            while stack:
                if stack[-1] in placed:
                    stack.pop()
                    continue
                group = waiting.get(stack[-1], [stack[-1]])
                missing = [
                    self.nodes[j]
                    for n in group
                    for j in self._earlier(n)
                    if self.nodes[j] not in placed and self.nodes[j] not in group
                ]
                if missing:
                    stack += reversed(missing)
                else:
                    placed.update(dict.fromkeys(group))
                    stack.pop()

        for node in self.nodes:
            if ends.get(node, node) is node:
                place(node)
        return list(placed)


def _places(bits: int) -> Iterable[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
