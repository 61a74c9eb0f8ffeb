"""A pass with one fault: at one of its sites, one edit is made to what it puts in."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx
from xllmc.compiler.ir.body import Body
from xllmc.compiler.ir.program import is_weight
from xllmc.passes.api import Pass, Rewriter

from tests.mutations.edits import Around, Edit, calls_of, numbered, put_in_place, with_body
from tests.mutations.operators import OPERATORS, wrong_reads


@dataclass(frozen=True)
class Placed:
    """An edit of a call of the new side, or (``call`` None) of what the replaced value ``old`` becomes."""

    edit: Edit
    old: fx.Node
    call: fx.Node | None
    unread: bool = False
    """Nothing reads what is edited: ``old`` has no readers but what is replaced with it."""


@dataclass(frozen=True)
class Seen:
    """What one site offered."""

    site: int
    """Number among the pass's matches, from 1."""
    where: str
    key: str
    """Of the region that the pass makes there."""
    edits: tuple[Placed, ...]


class MutatingRewriter(Rewriter):
    """Works on in place of ``rewriter``. At site ``site`` it makes the edit of that number; at others it only looks."""

    def __init__(self, rewriter: Rewriter, site: int, number: int, look: Callable[[Seen], None] | None = None) -> None:
        super().__init__(rewriter.program, rewriter.function, rewriter._limit, rewriter.costs)
        self.sites, self.regions, self.erased = rewriter.sites, rewriter.regions, rewriter.erased
        self.ledger = rewriter.ledger
        self._given = frozenset(self.program.weights)
        self._site, self._number, self._look = site, number, look

    def replace(self, replacements: Mapping[fx.Node, fx.Node], inputs: Iterable[fx.Node] = ()) -> None:
        site = sum(s.matched for s in self.sites) + 1
        if site == self._site:
            replacements = self._mutated(dict(replacements))
        if self._look is None:
            super().replace(replacements, inputs)
            return
        edits = tuple(self._edits(replacements))
        others, self.regions = self.regions, {}
        super().replace(replacements, inputs)
        ((key, region),) = self.regions.items()
        others.setdefault(key, region)
        self.regions = others
        self._look(Seen(site, region.where, key, edits))

    def _mutated(self, replacements: dict[fx.Node, fx.Node]) -> dict[fx.Node, fx.Node]:
        placed = list(self._edits(replacements))[self._number]
        if placed.call is None:
            value, made = put_in_place(self.graph, placed.old, placed.edit, self.program, readers=False)
            self._created.update(made)
            return {**replacements, placed.old: value}
        value, made = put_in_place(self.graph, placed.call, placed.edit, self.program)
        self._created.update(made)
        if not placed.call.users:
            self._created.discard(placed.call)
            self.graph.erase_node(placed.call)
        return {old: value if new is placed.call else new for old, new in replacements.items()}

    def _edits(self, replacements: Mapping[fx.Node, fx.Node]) -> Iterator[Placed]:
        numbers = numbered(self.graph)
        side = new_side(replacements.values(), self._created)
        near = set(side) | {i for n in side for i in n.all_input_nodes}
        values = tuple(n for n in self.graph.nodes if n in near)
        first = next(iter(replacements))
        for call in side:
            around = Around(self.program, values, numbers, self._given)
            yield from (Placed(edit, first, call) for edit in edits_of(call, around))
        everything = Around(self.program, tuple(numbers), numbers, self._given)
        for old, new in replacements.items():
            unread = set(old.users) <= set(replacements)
            if is_weight(new):
                for operator, what, make in wrong_reads(new, everything):
                    yield Placed(Edit(operator, what, make), old, None)
                continue
            for other in everything.others(new, old):
                if numbers[other] != numbers[old] and not is_weight(other):
                    make = lambda writer, other=other: other  # noqa: E731
                    edit = Edit("stale alias", f"%{other.name} in place of the result", make)
                    yield Placed(edit, old, None, unread)


def new_side(roots: Any, created: set[fx.Node]) -> list[fx.Node]:
    """The created calls that the roots are made of, in graph order."""
    found: set[fx.Node] = set()
    pending = [r for r in roots if r in created]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending += [n for n in node.all_input_nodes if n in created]
    return sorted(found)


def edits_of(call: fx.Node, around: Around) -> Iterator[Edit]:
    """All edits of a call, and of the calls in its body."""
    for operator in OPERATORS.values():
        yield from operator(call, around)
    for name, body in call.kwargs.items():
        if isinstance(body, Body):
            yield from edits_inside(call, name, body)


def edits_inside(call: fx.Node, name: str, body: Body) -> Iterator[Edit]:
    for place, inner in enumerate(calls_of(body)):
        for number, edit in enumerate(edits_of(inner, around_of(body.graph))):

            def change(graph: fx.Graph, place: int = place, number: int = number) -> None:
                copied = [n for n in graph.nodes if n.op == "call_function"][place]
                put_in_place(graph, copied, list(edits_of(copied, around_of(graph)))[number], None)

            yield Edit(edit.operator, f"in the {name}, {inner.name}: {edit.what}", with_body(call, name, change))


def around_of(graph: fx.Graph) -> Around:
    numbers = numbered(graph)
    return Around(None, tuple(numbers), numbers)


def with_fault(one: Pass, site: int, number: int) -> Pass:
    """The pass with edit ``number`` made at its site ``site`` (from 1)."""
    return _wrapped(one, lambda rewriter: MutatingRewriter(rewriter, site, number))


def looking(one: Pass, look: Callable[[Seen], None]) -> Pass:
    """The pass as it is; ``look`` sees each site and the edits that could be made there."""
    return _wrapped(one, lambda rewriter: MutatingRewriter(rewriter, 0, 0, look))


def _wrapped(one: Pass, wrap: Callable[[Rewriter], Rewriter]) -> Pass:
    kind = type(one)

    def run(self: Pass, rewriter: Rewriter) -> None:
        kind.run(self, wrap(rewriter))

    made = type(kind.__name__, (kind,), {"run": run, "__doc__": kind.__doc__, "__module__": kind.__module__})
    return made(**one.options)
