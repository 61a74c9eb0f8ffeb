"""From an exported ATen graph to a program of registered ops.

The trace runs T tokens as [T, 1, ...], so most axes of size one are an artefact. The importer drops them: a value is a
node together with the axes of the traced tensor that its node keeps. An axis that is missing is one of size one, or one
that broadcasting repeats; elementwise ops insert it where operands meet.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ..compiler.ir.dims import Dim, Size, product
from ..compiler.ir.program import emit, type_of
from ..compiler.ir.types import DTYPE_NAMES, TensorType
from ..compiler.ops import OPS
from ..runtime.artifact.errors import CheckpointError


@dataclass(frozen=True)
class Imported:
    """A traced tensor as a node: ``axes[i]`` is the traced axis that the node's axis i stands for, ascending."""

    node: fx.Node
    axes: tuple[int, ...]

    @property
    def type(self) -> TensorType:
        return type_of(self.node)


EMPTY = object()
"""A traced tensor without elements: what a concatenation may have among its parts."""


class Importer:
    """Turns traced nodes into ops in ``graph``, one by one, by the handler of each traced operation's name."""

    def __init__(self, graph: fx.Graph, tokens: str, handlers: "Mapping[str, Handler]") -> None:
        self.graph = graph
        self.tokens = tokens
        """Name of the traced symbol of the token axis (``s44``)."""
        self.handlers = handlers
        self.values: dict[fx.Node, Any] = {}
        self.where = ""

    def run(self, traced: fx.Graph, owner: torch.nn.Module) -> Any:
        """Import every node; returns the value of the graph's output."""
        for node in traced.nodes:
            if node.op == "placeholder" and node in self.values:
                continue
            if node.op == "output":
                return self.value(node.args[0])
            if node.op == "get_attr":
                self.values[node] = operator.attrgetter(node.target)(owner)
                continue
            if node.op != "call_function":
                raise CheckpointError(f"cannot import a traced {node.op} node {node.name}")
            self.where = module_path(node) or self.where
            self.values[node] = self.call(node)
        raise CheckpointError("the traced graph has no output")

    def call(self, node: fx.Node) -> Any:
        name = str(node.target)
        if node.target is operator.getitem:
            return self.value(node.args[0])[node.args[1]]
        if name == "wrap_with_set_grad_enabled":
            return self.inline(node)
        handler = self.handlers.get(name)
        if handler is None:
            raise CheckpointError(
                f"the model uses {name} in {self.where or 'its top level'}, which has no import rule: a handler in "
                f"models/aten.py, and where it is a new computation an op in compiler/ops, are missing"
            )
        if name != "aten.cat.default" and any(self.values.get(n) is EMPTY for n in node.all_input_nodes):
            raise CheckpointError(f"{name} of an empty tensor in {self.where} has no import rule")
        try:
            return self.checked(node, handler(self, node))
        except TypeError as error:
            raise CheckpointError(f"cannot import {name} in {self.where}: {error}") from error

    def checked(self, node: fx.Node, value: Any) -> Any:
        """``value``, if the axes it keeps have the sizes that the trace recorded."""
        if isinstance(value, Imported):
            shape = self.shape(node)
            expected = tuple(shape[a] if type_of(value.node).shape[i] != 1 else 1 for i, a in enumerate(value.axes))
            if value.type.shape != expected:
                raise TypeError(f"it became {value.type} on axes {value.axes} of {list(map(str, shape))}")
        return value

    def inline(self, node: fx.Node) -> Any:
        submodule = self.values[node.args[1]]
        for inner, outer in zip(
            [n for n in submodule.graph.nodes if n.op == "placeholder"], node.args[2:], strict=True
        ):
            self.values[inner] = self.value(outer)
        strip(submodule.graph)
        return self.run(submodule.graph, submodule)

    # --- values

    def value(self, traced: Any) -> Any:
        if isinstance(traced, fx.Node):
            return self.values[traced]
        if isinstance(traced, list | tuple):
            return [self.value(t) for t in traced]
        return traced

    def emit(self, name: str, *operands: Any, **attributes: Any) -> fx.Node:
        return emit(self.graph, OPS[name], *operands, where=self.where, **attributes)

    def size(self, size: int | torch.SymInt) -> Size:
        """A traced size as a whole number or a multiple of the token symbol."""
        if isinstance(size, int):
            return size
        factor, rest = size.node.expr.as_coeff_Mul()
        if str(rest) != self.tokens:
            raise CheckpointError(f"size {size} in {self.where} is not a multiple of the number of tokens")
        return Dim(int(factor), ("T",))

    def shape(self, node: fx.Node) -> tuple[Size, ...]:
        return tuple(self.size(s) for s in node.meta["val"].shape)

    def dtype(self, node: fx.Node) -> str:
        """Of a traced tensor; whole numbers, which torch keeps in 64 bits, are i32."""
        name = DTYPE_NAMES[node.meta["val"].dtype]
        return "i32" if name == "i64" else name

    # --- moving between traced and kept axes

    def with_axes(self, value: Imported, axes: tuple[int, ...]) -> fx.Node:
        """The value's node with unit axes inserted, so that it keeps exactly ``axes`` (a superset of its own)."""
        if axes == value.axes:
            return value.node
        sizes = dict(zip(value.axes, value.type.shape, strict=True))
        return self.reshape(value.node, tuple(sizes.get(a, 1) for a in axes))

    def meeting(self, value: Imported, axes: tuple[int, ...]) -> fx.Node:
        """The value's node ready to broadcast with others over ``axes``; leading unit axes are left implicit."""
        return self.with_axes(value, tuple(a for a in axes if value.axes and a >= value.axes[0]))

    def reshape(self, node: fx.Node, shape: tuple[Size, ...]) -> fx.Node:
        return node if type_of(node).shape == shape else self.emit("reshape", node, shape=shape)

    def viewed(self, value: Imported, shape: tuple[Size, ...]) -> Imported:
        """The value under another traced shape of as many elements; unit axes are dropped."""
        if product(shape) != value.type.elements:
            raise CheckpointError(f"cannot view {value.type} as {list(map(str, shape))} in {self.where}")
        axes = tuple(i for i, s in enumerate(shape) if s != 1)
        return Imported(self.reshape(value.node, tuple(shape[i] for i in axes)), axes)


Handler = Callable[[Importer, fx.Node], Any]
"""Gives a traced node's value: ``Imported``, several of them, a number, or ``EMPTY``."""


def strip(graph: fx.Graph) -> None:
    """Drop metadata assertions, then everything nothing reads (transformers' unused mask arithmetic)."""
    for node in list(graph.nodes):
        if "_assert_tensor_metadata" in str(node.target):
            graph.erase_node(node)
    graph.eliminate_dead_code()


def module_path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values() if isinstance(entry[0], str)]
    return paths[-1] if paths else ""
