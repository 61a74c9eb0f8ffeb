"""Examples of a pass: small graphs that it changes, or leaves alone for a stated reason. Every one is a test."""

import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from ...compiler.ir.program import Function, Group, Program, Weight, emit_weight
from ...compiler.ir.types import PagedType, TensorType, parse_type
from ...compiler.ir.verify import VerificationError, verify
from ...runtime.artifact.recipe import Recipe
from ...runtime.artifact.schema import ModelFacts
from .base import Pass
from .recording import Recorder, write
from .rewriter import Rewriter
from .values import Value

WEIGHT = "weight "


@dataclass(frozen=True)
class Example:
    """A graph as a function of its inputs, and what the pass makes of it.

    ``inputs``: for each parameter of ``build`` a type in text form, ``weight `` before it for a weight. Inputs named
    as a step's are (``positions``, ``slots``, ``block_table``, ``query_starts``) get values that such have.
    """

    build: Callable[..., Any]
    inputs: tuple[tuple[str, str], ...]
    matches: int = 1
    rejects: str = ""
    """Part of the reason that a near miss must give; then ``matches`` is 0."""

    @property
    def label(self) -> str:
        return self.rejects or ", ".join(kind for _, kind in self.inputs)

    def program(self) -> Program:
        """A program of this graph alone, before any pass. TypeError where its ops refuse their operands."""
        program = Program(FACTS, {}, {}, {}, (), "traced")
        function = Function("forward", fx.Graph(), ())
        program.functions["forward"] = function
        recorder = Recorder(program)
        values = {name: recorder.value(_input(program, function.graph, name, kind)) for name, kind in self.inputs}
        returned = self.build(**values)
        results = returned if isinstance(returned, tuple) else (returned,)
        output = function.graph.output(())
        rewriter = Rewriter(program, function).at(output)
        written: dict[Any, fx.Node] = {}
        for call in recorder.calls:
            write(rewriter, call, written)
        output.args = (tuple(write(rewriter, v.handle, written) for v in results),)
        function.results = tuple(f"result_{i}" for i in range(len(results)))
        groups = {k.group for k in map(_type, function.inputs) if isinstance(k, PagedType)}
        program.groups = tuple(Group(i, None) for i in sorted(groups))
        return program


def example(
    build: Callable[..., Value | tuple[Value, ...]],
    inputs: Mapping[str, str] | None = None,
    *,
    matches: int = 1,
    rejects: str = "",
    **more: str,
) -> Example:
    """``example(lambda x, y: ops.add(x, y), x="bf16[T, 64]", y="bf16[T, 64]")``; see ``Example``.

    ``inputs``: types that several examples share.
    """
    inputs = {**(inputs or {}), **more}
    names = tuple(inspect.signature(build).parameters)
    if set(names) != set(inputs):
        raise TypeError(f"an example requires a type for each of {', '.join(names)}, got {', '.join(inputs)}")
    return Example(build, tuple((n, inputs[n]) for n in names), 0 if rejects else matches, rejects)


def check_example(one: Pass, shown: Example, number: int) -> Program:
    """Run one example on types alone; the rewritten program. TypeError where it is not as the example says."""
    what = f"pass {one.name}, example {number} ({shown.label})"
    try:
        program = shown.program()
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} is not a graph: {error}") from error
    rewriter = Rewriter(program, program.forward)
    try:
        one.run(rewriter)
    except Exception as error:  # a pass is foreign code: say where it was
        line = traceback.extract_tb(error.__traceback__)[-1]
        raised = f"{type(error).__name__}: {error} ({line.filename}:{line.lineno})"
        raise TypeError(f"{what}: the pass raised {raised}") from error
    found = sum(s.matched for s in rewriter.sites)
    reasons = "; ".join(s.reason for s in rewriter.sites if not s.matched)
    if found != shown.matches:
        raise TypeError(f"{what}: {found} matches, not {shown.matches}; near misses: {reasons or 'none'}")
    if shown.rejects and shown.rejects not in reasons:
        raise TypeError(f"{what}: the reason should say {shown.rejects!r}, got {reasons or 'no near miss'}")
    try:
        verify(program)
    except VerificationError as error:
        raise TypeError(f"{what}: it makes an invalid program: {error}") from error
    return program


def _input(program: Program, graph: fx.Graph, name: str, text: str) -> fx.Node:
    kind = parse_type(text.removeprefix(WEIGHT))
    if text.startswith(WEIGHT):
        if not isinstance(kind, TensorType):
            raise TypeError(f"a weight must be a tensor, got {kind}")
        program.weights[f"{name}.weight"] = Weight(kind, Recipe.source(f"{name}.weight", kind.sizes, kind.dtype))
        if not list(graph.nodes):
            node = graph.create_node("get_attr", f"{name}.weight")
            node.meta.update(type=kind, where="")
            return node
        return emit_weight(graph, program, f"{name}.weight")
    node = graph.placeholder(name)
    node.target = name
    node.meta.update(type=kind, where="")
    return node


def _type(node: fx.Node) -> Any:
    return node.meta["type"]


FACTS = ModelFacts(
    architecture="Example",
    family="example",
    vocab_size=64,
    hidden_size=64,
    layers=1,
    max_context=4096,
    dtype="bf16",
    eos_token_ids=(),
    parameters=0,
)
