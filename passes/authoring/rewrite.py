"""``@rewrite``: a pass that says what to look for and what to put there. All else is done for it.

At every place the pattern has its root, the first way of matching counts that is legal (``when``), worth it (``gain``)
and well typed: the replacement must have the types of what it replaces. Where none does, the best reason is reported.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import fx

from ...compiler.ir.program import Program, is_call, mutates_state, type_of
from ...compiler.ir.types import PagedType
from ...compiler.ops import OPS
from .base import Numerics, Pass, Stage, declare, several
from .examples import check_example
from .gain import SiteCosts, site_costs
from .matcher import Attempt, Bound, Matcher, show
from .pattern import Call, Pattern, argument_names, build_pattern
from .recording import IllTyped, Recorder, write
from .rewriter import Rewriter
from .values import Value

NEAR = 0.5
"""The part of a pattern's calls that must match for a place to count as a near miss."""


@dataclass(frozen=True, eq=False)
class Match:
    """One way in which a pattern matched: its parameters and named sizes as attributes, ``m.x``, ``m.H``."""

    program: Program
    bound: Mapping[str, Any]
    """Values, numbers and sizes by name; a size that only an absent part has is None."""
    outputs: tuple[fx.Node, ...]
    """What the replacement will stand for, in the pattern's order."""
    inside: tuple[fx.Node, ...]
    """Every call between the outputs and the parameters, in graph order."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self.bound:
            raise AttributeError(f"the match has no {name!r}; it has {', '.join(self.bound)}")
        return self.bound[name]

    def dying(self) -> list[fx.Node]:
        """The calls that nothing will read once the outputs are replaced."""
        dead: set[fx.Node] = set()
        for node in reversed(self.inside):
            if node in self.outputs or set(node.users) <= dead:
                dead.add(node)
        return [n for n in self.inside if n in dead]


class Refused(Exception):
    """A match that is not taken, with the reason."""


@dataclass(frozen=True)
class Rewrite(Pass):
    """Base of what ``@rewrite`` makes. An author writes ``pattern`` and ``replacement``, and may write the others."""

    through: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[bool] = False
    landmark: ClassVar[str] = ""

    def pattern(self, *parameters: Any) -> Any:
        raise TypeError(f"rewrite {self.name} must define pattern")

    def replacement(self, *parameters: Any) -> Any:
        raise TypeError(f"rewrite {self.name} must define replacement")

    def when(self, m: Match) -> str | None:
        """Why a match is not legal, or None."""
        return None

    def gain(self, m: Match, costs: SiteCosts) -> float:
        """Seconds saved, often ``costs.saved``; a match that saves none is not taken. Without it, all are."""
        return float("inf")

    def run(self, rewriter: Rewriter) -> None:
        matcher = Matcher(build_pattern(type(self).pattern, self), self.through)
        left: dict[fx.Node, Attempt] = {}
        made: set[fx.Node] = set()
        for node in reversed(rewriter.calls()):
            if node in rewriter.erased or not matcher.could_match(node):
                continue
            attempt = Attempt()
            for bound in matcher.matches(node, attempt):
                if new := self._taken(rewriter, matcher.pattern, node, bound, attempt):
                    made |= new
                    break
            else:
                if attempt.depth:
                    left[node] = attempt
        rewriter.erase_dead()
        self._report(rewriter, matcher.pattern, left, made)

    def _taken(
        self, rewriter: Rewriter, pattern: Pattern, root: fx.Node, bound: Bound, attempt: Attempt
    ) -> set[fx.Node] | None:
        """Replace a match if it is legal, and return what it became; otherwise leave the reason in ``attempt``."""
        m = _match(rewriter.program, pattern, root, bound)
        try:
            self._check_readers(m, bound)
            if reason := self.when(m):
                raise Refused(reason)
            recorder = Recorder(rewriter.program)
            news = self._replacement(m, recorder)
            before = _place(m)
            if type(self).gain is not Rewrite.gain:
                gained = self.gain(m, site_costs(rewriter.costs, m.dying(), news))
                if gained <= 0:
                    raise Refused(f"it would cost {-gained * 1e6:.2g} us" if gained < 0 else "it saves nothing")
        except (Refused, IllTyped) as refused:
            if attempt.depth <= pattern.calls:
                attempt.depth, attempt.reason, attempt.reached = pattern.calls + 1, str(refused), calls_of(bound)
            return None
        rewriter.at(before, like=root)
        written: dict[Any, fx.Node] = {}
        sides = {old: write(rewriter, new.handle, written) for old, new in zip(m.outputs, news, strict=True)}
        rewriter.replace(sides, inputs=[v for v in m.bound.values() if isinstance(v, fx.Node)])
        for node in reversed(m.inside):
            if node not in rewriter.erased and not node.users and not mutates_state(node):
                rewriter.erase(node)
        return {*written.values(), *m.outputs}

    def _check_readers(self, m: Match, bound: Bound) -> None:
        calls = set(calls_of(bound))
        if both := [name for name, value in m.bound.items() if isinstance(value, fx.Node) and value in calls]:
            raise Refused(f"{show(m.bound[both[0]])} is {both[0]}, and part of the pattern itself")
        if self.shared:
            return
        for node in m.inside:
            if node in calls or (is_call(node, *self.through) and node.args[0] in calls):
                calls.add(node)
                others = [] if node in m.outputs else [u for u in node.users if u not in m.inside]
                if others:
                    raise Refused(f"{show(node)} is read elsewhere too, by {show(others[0])}")

    def _replacement(self, m: Match, recorder: Recorder) -> tuple[Value, ...]:
        arguments: dict[str, Any] = {}
        for name in argument_names(type(self).replacement):
            value = m if name == "m" else getattr(m, name)
            arguments[name] = recorder.value(value) if isinstance(value, fx.Node) else value
        returned = self.replacement(**arguments)
        news = returned if isinstance(returned, tuple) else (returned,)
        if wrong := [n for n in news if not isinstance(n, Value)]:
            raise TypeError(f"{self.name}: the replacement must return values, got {wrong[0]!r}")
        if len(news) != len(m.outputs):
            raise TypeError(f"{self.name}: the pattern has {len(m.outputs)} outputs, the replacement {len(news)}")
        for old, new in zip(m.outputs, news, strict=True):
            if new.type != type_of(old):
                raise Refused(f"the replacement is {new.type} where {type_of(old)} is needed")
        return news

    def _report(
        self, rewriter: Rewriter, pattern: Pattern, left: Mapping[fx.Node, Attempt], explained: set[fx.Node]
    ) -> None:
        """Near misses among the attempts, and landmarks that neither they nor a match (``explained``) account for."""
        told: set[frozenset[fx.Node]] = set()
        for node, attempt in left.items():
            gone = rewriter.erased & {node, *attempt.reached}  # it was part of another match after all
            again = attempt.reached in told  # the same calls, looked at through a cast first
            if not gone and not again and attempt.depth >= NEAR * pattern.calls:
                rewriter.miss(node, attempt.reason)
                told.add(attempt.reached)
                explained |= attempt.reached
        for node in rewriter.calls(self.landmark) if self.landmark else ():
            if node not in explained:
                near = [left[n] for n in readers(node, pattern.calls) if n in left]
                reason = max(near, key=lambda a: a.depth).reason if near else "nothing around it matches"
                rewriter.miss(node, f"{self.landmark} is left: {reason}")


def calls_of(bound: Bound) -> frozenset[fx.Node]:
    """The calls of the graph that stand for calls of the pattern."""
    return frozenset(node for term, node in bound.items() if isinstance(term, Call))


def readers(node: fx.Node, steps: int) -> set[fx.Node]:
    """``node`` and what reads it, directly or through at most ``steps`` calls."""
    found = edge = {node}
    for _ in range(steps):
        edge = {u for n in edge for u in n.users} - found
        found = found | edge
    return found


def _match(program: Program, pattern: Pattern, root: fx.Node, bound: Bound) -> Match:
    sizes = {d: None for p in pattern.parameters for d in getattr(p.spec, "dims", ()) if isinstance(d, str)}
    named = sizes | {name: value for name, value in bound.items() if isinstance(name, str)}
    outputs = tuple(root if o is pattern.root else bound[o] for o in pattern.outputs)
    ends = {v for v in named.values() if isinstance(v, fx.Node)}
    inside: set[fx.Node] = set()
    stack: list[fx.Node] = list(outputs)
    while stack:
        node = stack.pop()
        if node.op == "call_function" and node not in inside and node not in ends:
            inside.add(node)
            stack.extend(node.all_input_nodes)
    return Match(program, named, outputs, tuple(sorted(inside)))


def _place(m: Match) -> fx.Node:
    """The node before which the replacement can stand: after all it reads, before all that read it."""
    inputs = [v for v in m.bound.values() if isinstance(v, fx.Node) and v.op == "call_function"]
    readers = [u for o in m.outputs for u in o.users if u not in m.inside]
    first, latest = min(m.outputs), max(inputs, default=None)
    place = first if latest is None or latest < first else min(readers, default=first)
    if latest is not None and not latest < place:
        raise Refused(f"{show(latest)}, which it reads, stands after {show(place)}, which reads its results")
    for call in filter(mutates_state, m.inside):
        state = call.args[call.target.traits.mutates]
        late = [u for u in state.users if u not in m.inside and not u < place]
        if late:
            raise Refused(f"{show(late[0])} reads the state before {show(call)} changes it")
    for state in {n for call in m.inside for n in call.all_input_nodes if isinstance(type_of(n), PagedType)}:
        for change in (u for u in state.users if mutates_state(u) and u not in m.inside):
            if not place < change:
                raise Refused(f"{show(change)} changes a state that the replacement would read after it")
    return place


def rewrite(
    *,
    stage: Stage,
    numerics: Numerics = "exact",
    tolerance: float = 0.0,
    before: str | tuple[str, ...] = (),
    after: str | tuple[str, ...] = (),
    counts_as: str | tuple[str, ...] = (),
    through: tuple[str, ...] | None = None,
    shared: bool = False,
    landmark: str = "",
    name: str | None = None,
) -> Callable[[type[Any]], type[Pass]]:
    """Make a pass of a class with ``pattern`` and ``replacement``, and if need be ``when``, ``gain``, ``examples``.

    ``through``: ops that may stand anywhere in the pattern; by default ``cast`` unless the pass is exact.
    ``shared``: calls inside the pattern may have other readers; they then stay for those.
    ``landmark``: an op that has no business outside this pattern; every one left is a near miss.

    The pattern is built and every example is run on types at once, so that a rewrite whose sides disagree cannot be
    imported: TypeError says which example and why. So what the class uses stands above it in its module.
    """
    through = (("cast",) if numerics != "exact" else ()) if through is None else through
    for op in (*(through if isinstance(through, tuple) else (through,)), *filter(None, [landmark])):
        if op not in OPS:
            raise TypeError(f"through and landmark name ops, through a tuple of them; there is no op {op!r}")
    decorate = declare(
        Rewrite,
        stage=stage,
        numerics=numerics,
        tolerance=tolerance,
        before=before,
        after=after,
        counts_as=counts_as,
        name=name,
        through=several(through),
        shared=shared,
        landmark=landmark,
    )

    def make(written: type[Any]) -> type[Pass]:
        made = decorate(written)
        _check_written(made)
        return made

    return make


RESERVED = {"m", "dying", *(f.name for f in fields(Match))}
"""Names that mean something else of a match."""


def _check_written(made: type[Pass]) -> None:
    assert issubclass(made, Rewrite)
    for method in ("pattern", "replacement"):
        if getattr(made, method) is getattr(Rewrite, method):
            raise TypeError(f"rewrite {made.name} requires a method {method}")
    one = made()
    pattern = build_pattern(made.pattern, one)
    known = {p.name for p in pattern.parameters}
    for parameter in pattern.parameters:
        known |= set(getattr(parameter.spec, "dims", ()))
    if taken := known & RESERVED:
        raise TypeError(f"rewrite {one.name} cannot have a parameter or size named {', '.join(sorted(taken))}")
    if unknown := [n for n in argument_names(made.replacement) if n not in known | {"m"}]:
        raise TypeError(f"rewrite {one.name}: the pattern has no {', '.join(unknown)} for its replacement")
    if not any(e.matches for e in one.examples):
        raise TypeError(f"rewrite {one.name} requires an example that it changes: examples = (example(...),)")
    for number, shown in enumerate(one.examples):
        check_example(one, shown, number)
