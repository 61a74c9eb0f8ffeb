"""One kernel call: which header template it instantiates, or which text it is, and what it is given.

A call's operands become the launch's operands in the plan; its C++ text becomes the body of an exported function.
Equal texts are one kernel, however many launches use it. Each method that takes an argument returns its C++ expression.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import jinja2
from torch import fx

from ...compiler.ir.dims import Dim, Size, product
from ...compiler.ir.program import Program, is_weight, type_of
from ...compiler.ir.types import PagedType, TensorType
from ...compiler.memory import Value, source_of, state_name
from ...runtime.artifact.schema import Integer, Operand, Pointer, Real, Scalar

C_TYPES = {"f32": "float", "bf16": "bf16", "i32": "int32_t", "u32": "uint32_t", "u8": "uint8_t"}


@dataclass
class KernelCall:
    """Collects arguments in order. ``function`` is the plan function's name, which prefixes buffer names."""

    program: Program
    function: str
    node: fx.Node
    given: Mapping[str, str] = field(default_factory=dict)
    """Inputs of the function that are buffers of another one: input name to buffer name."""
    template: str = ""
    parameters: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    operands: list[Operand] = field(default_factory=list)
    definition: str = ""
    """Text of a generated kernel, where it is more than a call of a header's function."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers that it brings, by path (``acme/clip.h``): they are included, and shipped with the engine."""

    def instantiate(self, template: str, *parameters: object) -> None:
        self.template = template
        self.parameters = [str(p) for p in parameters]

    def define(self, name: str, template: str, **values: object) -> None:
        """Make the body from a jinja2 template; ``name`` begins the kernel's name. An unknown value is an error.

        ``worker`` is the thread's share of the work; namespace ``xllmc`` is open (``share``, ``F16``, ``load_some``).
        """
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
        self.template = name
        self.definition = environment.from_string(template).render(values).strip("\n")

    def include(self, path: str, text: str) -> None:
        """Bring a header of one's own."""
        self.headers[path] = text

    # --- arguments

    def value(self, node: fx.Node | None, packed: bool = False) -> str:
        """A pointer to a value, weight, input or state; null where there is none.

        ``packed``: the kernel reads panels, which only a weight can be stored in; otherwise it reads rows.
        """
        if node is None:
            return self.literal("nullptr")
        layout = self.program.weights[str(node.target)].layout if is_weight(node) else "rows"
        if layout != ("panels" if packed else "rows"):
            raise ValueError(
                f"{self.template or 'a generated loop'} reads %{node.name} in {'panels' if packed else 'rows'}, "
                f"but it is stored in {layout}"
            )
        kind = type_of(node)
        if isinstance(kind, PagedType):
            if kind.key_dim % 2:
                raise ValueError(f"attention on the CPU requires an even head size, got {kind.key_dim}")
            return self._operand(Pointer(kind="state", name=state_name(node)), "a[{}].p")
        return self._operand(self._pointer(node), f"static_cast<{self.ctype(node)}*>(a[{{}}].p)")

    def result(self, index: int = -1) -> str:
        """A pointer to this call's result (or one of several)."""
        kind = type_of(self.node)
        item: TensorType = kind.items[index] if index >= 0 else kind
        name = f"{self.function}:{Value(self.node, index).name}"
        return self._operand(Pointer(kind="buffer", name=name), f"static_cast<{c_type(item)}*>(a[{{}}].p)")

    def rows(self, node: fx.Node, trailing: int = 1) -> str:
        """How many rows of its ``trailing`` last axes a value has."""
        return self.size(product(type_of(node).shape[: len(type_of(node).shape) - trailing]))

    def size(self, size: Size) -> str:
        if isinstance(size, int):
            return self._operand(Integer(kind="int", value=size), "a[{}].i")
        if len(size.symbols) != 1:
            raise ValueError(f"a kernel cannot be given the size {size}")
        factor = f" * {size.factor}" if size.factor != 1 else ""
        return self._operand(Scalar(kind="symbol", name=size.symbols[0]), f"a[{{}}].i{factor}")

    def real(self, value: float) -> str:
        return self._operand(Real(kind="real", value=value), "float(a[{}].f)")

    def literal(self, text: str) -> str:
        self.arguments.append(text)
        return text

    # --- what it comes to

    def ctype(self, node: fx.Node) -> str:
        return c_type(type_of(node))

    @property
    def text(self) -> str:
        """The body of the exported function."""
        if self.definition:
            return self.definition
        return f"{self.function_name}({', '.join([*self.arguments, '*worker'])});"

    @property
    def function_name(self) -> str:
        """The header's function with its parameters."""
        return f"{self.template}<{', '.join(self.parameters)}>" if self.parameters else self.template

    def _pointer(self, node: fx.Node) -> Pointer:
        source = source_of(node)
        if isinstance(source, Value):
            return Pointer(kind="buffer", name=f"{self.function}:{source.name}")
        if source.op == "placeholder" and source.target in self.given:
            return Pointer(kind="buffer", name=self.given[str(source.target)])
        kind = "weight" if source.op == "get_attr" else "input"
        return Pointer(kind=kind, name=str(source.target))

    def _operand(self, operand: Operand, expression: str) -> str:
        if operand not in self.operands:
            self.operands.append(operand)
        return self.literal(expression.format(self.operands.index(operand)))


def c_type(kind: TensorType) -> str:
    if kind.dtype not in C_TYPES:
        raise ValueError(f"CPU kernels compute in {', '.join(C_TYPES)}, not in {kind}")
    return C_TYPES[kind.dtype]


def fixed(size: Size, what: str) -> int:
    """A size that a kernel has as a constant."""
    if isinstance(size, Dim):
        raise ValueError(f"{what} must be a fixed size, got {size}")
    return size


def width(node: fx.Node) -> int:
    kind = type_of(node)
    assert isinstance(kind, TensorType)
    return fixed(kind.shape[-1], f"the last axis of {node.name}")
