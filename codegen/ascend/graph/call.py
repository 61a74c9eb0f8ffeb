"""What a provider of an op is given to write torch code: ``@OPS["my_op"].kernel("npu")`` gets an ``NpuCall``."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

from torch import fx

from ....compiler.ir.body import Body
from ....compiler.ir.op import Op
from ....compiler.ir.program import type_of
from ....compiler.ir.types import TupleType
from ....compiler.ops import OPS
from ....runtime.artifact.errors import XllmcError
from .schemas import Argument, Value, call_code, check_call, python_call
from .writer import Cache, FunctionWriter, Held

Provider = Callable[["NpuCall"], None]


def provides(*ops: str) -> Callable[[Provider], Provider]:
    """Register the decorated function as what writes these ops: ``@provides("rms_norm")``."""

    def register(provider: Provider) -> Provider:
        for name in ops:
            OPS[name].kernel("npu")(provider)
        return provider

    return register


LOOSE: dict[str, Provider] = {}
"""What writes ops that generated loops may compute, and views. They are not registered with the ops: an op that has a
kernel of its own is kept out of loops, on every target.
"""


def writes(*ops: str) -> Callable[[Provider], Provider]:
    """The same for an op of ``LOOSE``."""

    def register(provider: Provider) -> Provider:
        LOOSE.update(dict.fromkeys(ops, provider))
        return provider

    return register


class NpuCall:
    """One call of an op. A provider reads operands, says statements, and gives the result once."""

    def __init__(self, writer: FunctionWriter, node: fx.Node) -> None:
        self.writer = writer
        self.node = node
        self.given: Held | None = None

    @property
    def op(self) -> Op:
        op = self.node.target
        assert isinstance(op, Op)
        return op

    def type(self, index: int) -> Any:
        """The type of an operand; an immediate or None as it is."""
        return type_of(self.node.args[index])

    @property
    def result_type(self) -> Any:
        return self.node.meta["type"]

    def attribute(self, name: str) -> Any:
        """The value of an attribute: the call's, or its default."""
        return self.op.attribute(self.node.kwargs, name)

    def tensor(self, index: int) -> Value:
        """A tensor operand, or an immediate number, as an expression."""
        value = self.held(index)
        assert isinstance(value, Value), f"operand {index} of {self.op.name} is no tensor"
        return value

    def optional(self, index: int) -> Value | None:
        """The same, where an operand may be None, or is not given."""
        given = self.node.args[index] if index < len(self.node.args) else None
        return None if given is None else self.tensor(index)

    def cache(self, index: int) -> Cache:
        value = self.held(index)
        assert isinstance(value, Cache), f"operand {index} of {self.op.name} is no cache"
        return value

    def held(self, index: int) -> Held:
        value = self.node.args[index]
        if isinstance(value, fx.Node):
            return self.writer.held(value)
        return Value(repr(value) if isinstance(value, int) or isfinite(value) else f"float('{value}')")

    def expression(self, template: str) -> Value:
        """``template`` with ``{0}``, ``{1}`` and so on for the operands, all of them tensors or numbers."""
        return Value(template.format(*(self.tensor(i) for i in range(len(self.node.args)))))

    def operator(self, name: str, *positional: Argument, **named: Argument) -> Value:
        """A call of torch_npu's operator, checked against its schema, as the expression of its one result."""
        return Value(self._checked(name, 1, positional, named))

    def results_of(
        self, name: str, hints: Sequence[str | None], *positional: Argument, **named: Argument
    ) -> tuple[Value, ...]:
        """The same for an operator with several results: a variable for each, named by its hint, where it has one."""
        code = self._checked(name, len(hints), positional, named)
        names = [self.writer.variable(hint) if hint else "_" for hint in hints]
        self.writer.say(f"{', '.join(names)} = {code}")
        return tuple(map(Value, names))

    def run(self, name: str, *positional: Argument, **named: Argument) -> None:
        """The same for an operator without results, which changes what it is given."""
        self.writer.say(self._checked(name, 0, positional, named))

    def _checked(self, name: str, count: int, positional: tuple[Argument, ...], named: Mapping[str, Argument]) -> str:
        if (results := check_call(name, positional, named)) != count:
            raise XllmcError(f"{name} of torch_npu has {results} results, and {self.op.name} takes {count} of it")
        self.writer.module.operators[name] = self.writer.module.operators.get(name, 0) + 1
        return call_code(name, positional, named)

    def let(self, hint: str, expression: Value | str) -> Value:
        return self.writer.let(hint, expression)

    def helper(self, function: Callable[..., Any], *arguments: object) -> Value:
        """A call of a function that the generated module then carries. ``arguments``: expressions."""
        self.writer.module.helpers[function.__name__] = function
        return Value(python_call(function.__name__, list(map(str, arguments))))

    def plainly(self, why: str) -> None:
        """Note that no operator of torch_npu fits this call, and why."""
        plain, site = self.writer.module.plain, f"{self.op.name}: {why}"
        plain[site] = plain.get(site, 0) + 1

    def inline(self, body: Body, operands: Sequence[Value]) -> tuple[Held, ...]:
        """Write a body's calls on these operands; returns what stands for its results."""
        for node, operand in zip(body.inputs, operands, strict=True):
            self.writer.bind(node, operand)
        for node in body.graph.nodes:
            if node.op == "call_function":
                write_call(self.writer, node)
        return tuple(self.writer.held(node) for node in body.outputs)

    def give(self, *results: Held) -> None:
        """What the call gives: as many as the op has results."""
        self.given = results if isinstance(self.result_type, TupleType) else results[0]


def write_call(writer: FunctionWriter, node: fx.Node) -> None:
    """Let the op's provider write the call, and bind its results. XllmcError where the op has no provider."""
    op, where = node.target, node.meta.get("where") or node.name
    assert isinstance(op, Op)
    provider = op.kernels.get("npu") or LOOSE.get(op.name)
    if provider is None:
        raise XllmcError(
            f"nothing writes op {op.name} ({where}) for torch_npu; "
            f'register a provider with @{op.name}.kernel("npu"), or a pass that rewrites the op'
        )
    call = NpuCall(writer, node)
    try:
        provider(call)
    except XllmcError:
        raise
    except Exception as error:  # providers may be a plugin's
        raise XllmcError(
            f"cannot write {node.name} ({where}) for torch_npu: "
            f"{error if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'}"
        ) from error
    if call.given is None:
        raise XllmcError(f"the torch_npu provider of op {op.name} ({where}) says nothing; it must call give")
    writer.bind(node, _named(writer, node.name, call.given))


def _named(writer: FunctionWriter, hint: str, held: Held) -> Held:
    """Expressions as variables, so that they are computed once."""
    if isinstance(held, tuple):
        return tuple(_named(writer, f"{hint}_{i}", item) for i, item in enumerate(held))
    if isinstance(held, Cache) or writer.is_variable(held):
        return held
    return writer.let(hint, held)
