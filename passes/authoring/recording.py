"""Writing a replacement: its calls are typed as they are made, and only then put into the graph, or dropped."""

from dataclasses import dataclass
from typing import Any

from torch import fx

from ...compiler.ir.op import Op
from ...compiler.ir.program import Program, Weight
from ...compiler.ir.recipe_types import recipe_type
from ...compiler.ir.types import ValueType
from ...compiler.ops import OPS
from ...runtime.artifact.recipe import Recipe
from .rewriter import Rewriter
from .values import Value


class IllTyped(TypeError):
    """An op's type rule refused its operands; a replacement that hits it does not fit its place."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """A call that is not in a graph yet."""

    op: Op
    operands: tuple[Any, ...]
    attributes: dict[str, Any]
    type: ValueType


@dataclass(frozen=True, eq=False)
class RecordedWeight:
    name: str
    weight: Weight


class Recorder:
    """Builds typed calls over nodes of ``program``. Wrong operands raise TypeError, as the ops' type rules do."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.calls: list[Recorded] = []

    def value(self, node: fx.Node) -> Value:
        return Value(self, node)

    def call(self, op: Any, operands: tuple[Any, ...], attributes: dict[str, Any]) -> Value:
        handles = tuple(o.handle if isinstance(o, Value) else o for o in operands)
        types = [o.type if isinstance(o, Value) else o for o in operands]
        target = OPS[op]
        try:
            kind = target.result_type(*types, **attributes)
        except TypeError as error:
            raise IllTyped(str(error)) from error
        recorded = Recorded(target, handles, attributes, kind)
        self.calls.append(recorded)
        return Value(self, recorded)

    def recipe(self, operation: str, weights: tuple[Value, ...], attributes: dict[str, Any]) -> Value:
        parts = [w.weight for w in weights]
        try:
            kind = recipe_type(operation, [p.type for p in parts], attributes)
        except TypeError as error:
            raise IllTyped(str(error)) from error
        weight = Weight(kind, Recipe.of(operation, *(p.recipe for p in parts), **attributes))
        return Value(self, RecordedWeight(joined_name([self._name(w) for w in weights], operation), weight))

    def type_of(self, value: Value) -> Any:
        match value.handle:
            case fx.Node():
                return value.handle.meta["type"]
            case RecordedWeight(weight=weight):
                return weight.type
            case Recorded(type=kind):
                return kind
        return value.handle

    def weight_of(self, value: Value) -> Weight:
        if isinstance(value.handle, RecordedWeight):
            return value.handle.weight
        if isinstance(value.handle, fx.Node) and value.handle.op == "get_attr":
            return self.program.weights[str(value.handle.target)]
        raise TypeError(f"a recipe is made of weights, got a computed {value.type}")

    def _name(self, value: Value) -> str:
        return value.handle.name if isinstance(value.handle, RecordedWeight) else str(value.handle.target)


def write(rewriter: Rewriter, handle: Any, written: dict[Any, fx.Node]) -> Any:
    """Put a recorded value, and what it is made of, into the graph at the rewriter's place."""
    if isinstance(handle, RecordedWeight):
        return rewriter.weight(handle.name, handle.weight)
    if not isinstance(handle, Recorded):
        return handle
    if handle not in written:
        operands = [write(rewriter, operand, written) for operand in handle.operands]
        written[handle] = rewriter.emit(handle.op, *operands, **handle.attributes)
    return written[handle]


def joined_name(names: list[str], operation: str) -> str:
    """``mlp.gate_up.weight`` of ``mlp.gate_proj.weight`` and ``mlp.up_proj.weight``."""
    if len(names) == 1:
        return f"{names[0]}.{operation}"
    *_, leaf = names[0].split(".")
    owners = [n.removesuffix(f".{leaf}").split(".") for n in names]
    module = ".".join(owners[0][:-1])
    joined = "_".join(o[-1].removesuffix("_proj") for o in owners)
    return ".".join(filter(None, [module, joined, leaf]))
