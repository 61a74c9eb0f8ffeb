"""One call of a program as launches of device kernels: what each is given, over which grid, and when it runs.

A provider (``@my_op.kernel("triton")``) gets a ``TritonCall`` and calls ``launch`` once for each kernel that the call
takes. A template is the text of one ``@triton.jit`` function named ``KERNEL``, whose parameters are ``sizes`` and the
operands' names; all else in it is constant. Equal texts are one kernel, however many launches use it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from torch import fx

from ...compiler.ir.dims import Dim, Size, product
from ...compiler.ir.program import Program, is_weight, type_of
from ...compiler.ir.types import PagedType, TensorType
from ...compiler.memory import Scratch, Value, source_of, state_name
from ...runtime.artifact.schema import Axis, Condition, DeviceSize, Pointer, Term
from .architecture import Architecture

DEVICE_SIZES: tuple[DeviceSize, ...] = ("T", "S", "R", "B", "Q")
"""In their order behind the pointer ``sizes``."""

POINTERS = {"f32": "*fp32", "bf16": "*bf16", "f16": "*fp16", "i32": "*i32", "u32": "*u32", "u8": "*u8", "i64": "*i64"}
"""Triton's names of pointers to our dtypes."""

SIZES = Pointer(kind="sizes", name="")


@dataclass(frozen=True)
class Config:
    """Tile sizes, and how many warps and pipeline stages work on them."""

    tiles: Mapping[str, int] = field(default_factory=dict)
    warps: int = 4
    stages: int = 2

    def record(self) -> dict[str, int]:
        return {**self.tiles, "stages": self.stages}


@dataclass(frozen=True)
class Argument:
    """What a parameter points to."""

    pointer: Pointer
    dtype: str


@dataclass(frozen=True)
class KernelSource:
    """A kernel's text and how it is to be compiled."""

    name: str
    text: str
    parameters: tuple[str, ...]
    pointers: tuple[str, ...]
    """Triton's type of each parameter."""
    config: Config


@dataclass(frozen=True)
class PendingLaunch:
    """A launch without its node's origin and work."""

    kernel: KernelSource
    pointers: tuple[Pointer, ...]
    grid: tuple[Axis, Axis, Axis]
    when: tuple[Condition, ...]
    part: str
    """Tells several kernels of one node apart; empty for its only or first one."""


ONE: Axis = (Term(),)


def axis(size: Size, divisor: int = 1) -> Axis:
    """``ceil(size / divisor)`` programs; a size may follow one symbol."""
    if isinstance(size, int):
        return (Term(factor=size, divisor=divisor),)
    if len(size.symbols) != 1:
        raise ValueError(f"a grid cannot follow the size {size}")
    return (Term(symbol=size.symbols[0], factor=size.factor, divisor=divisor),)


def when(symbol: DeviceSize, least: int = 0, most: int | None = None) -> Condition:
    return Condition(symbol=symbol, least=least, most=most)


@dataclass
class TritonCall:
    """A node to be computed, and the launches that a provider has given for it."""

    program: Program
    function: str
    """The plan function's name, which prefixes buffer names."""
    node: fx.Node
    machine: Architecture
    invariant: bool = False
    """One kernel for every number of tokens, so that no result depends on what else is in a step."""
    given: Mapping[str, str] = field(default_factory=dict)
    """Inputs of the function that are buffers of another one: input name to buffer name."""
    launches: list[PendingLaunch] = field(default_factory=list)
    scratches: list[Scratch] = field(default_factory=list)

    # --- what a kernel is given

    def value(self, node: fx.Node, dtype: str | None = None) -> Argument:
        """A value, weight, input or state. ``dtype``: to be read as, where that is not its own."""
        kind = type_of(node)
        if isinstance(kind, PagedType):
            return Argument(Pointer(kind="state", name=state_name(node)), dtype or kind.dtype)
        if is_weight(node) and self.program.weights[str(node.target)].layout != "rows":
            raise ValueError(f"device kernels read plain rows, but {node.target} is stored in panels")
        return Argument(self._pointer(node), dtype or kind.dtype)

    def result(self, index: int = -1, dtype: str | None = None) -> Argument:
        """This call's result, or one of several."""
        kind = type_of(self.node)
        item: TensorType = kind.items[index] if index >= 0 else kind
        name = f"{self.function}:{Value(self.node, index).name}"
        return Argument(Pointer(kind="buffer", name=name), dtype or item.dtype)

    def scratch(self, name: str, dtype: str, shape: tuple[Size, ...]) -> Argument:
        """Memory of this node's kernels alone, with any content at first. ``shape`` may follow one symbol."""
        made = Scratch(self.node, name, TensorType(dtype, shape))
        self.scratches.append(made)
        return Argument(Pointer(kind="buffer", name=f"{self.function}:{made.value_name}"), dtype)

    def launch(
        self,
        name: str,
        template: str,
        operands: Mapping[str, Argument],
        grid: tuple[Axis, ...],
        config: Config | None = None,
        *,
        when: tuple[Condition, ...] = (),
        part: str = "",
        **values: Any,
    ) -> None:
        """Launch a kernel of ``template``: a file of xllmc's (``norm.py.j2``), or a plugin's text.

        ``values`` and the config's tiles are what the template names; one that it does not know is an error.
        """
        config = config or Config()
        context = {"call": self, **config.tiles, **values}
        text = render(template, tuple(operands), context)
        source = named_source(name, text, operands, config)
        axes = (*grid, ONE, ONE, ONE)[:3]
        pointers = (SIZES, *(argument.pointer for argument in operands.values()))
        self.launches.append(PendingLaunch(source, pointers, (axes[0], axes[1], axes[2]), when, part))

    # --- what a template is told

    def count(self, size: Size) -> str:
        """A size of this step as a Triton expression, which reads it behind ``sizes``."""
        if isinstance(size, int):
            return str(size)
        if len(size.symbols) != 1 or size.symbols[0] not in DEVICE_SIZES:
            raise ValueError(f"a device kernel cannot be given the size {size}")
        load = f"tl.load(sizes + {DEVICE_SIZES.index(size.symbols[0])})"
        return load if size.factor == 1 else f"{load} * {size.factor}"

    def rows(self, node: fx.Node, trailing: int = 1) -> Size:
        """How many rows of its ``trailing`` last axes a value has."""
        shape = type_of(node).shape
        return product(shape[: len(shape) - trailing])

    def _pointer(self, node: fx.Node) -> Pointer:
        source = source_of(node)
        if isinstance(source, Value):
            return Pointer(kind="buffer", name=f"{self.function}:{source.name}")
        if source.op == "placeholder" and source.target in self.given:
            return Pointer(kind="buffer", name=self.given[str(source.target)])
        return Pointer(kind="weight" if source.op == "get_attr" else "input", name=str(source.target))


def width(node: fx.Node) -> int:
    """The last axis, which must be of fixed size."""
    size = type_of(node).shape[-1]
    if isinstance(size, Dim):
        raise ValueError(f"the last axis of {node.name} must be a fixed size, got {size}")
    return int(size)


def power_of_two(number: int) -> int:
    """The least power of two that is not below ``number``: Triton's blocks have such lengths."""
    return 1 << max(number - 1, 0).bit_length()


@cache
def environment() -> jinja2.Environment:
    """Where templates find each other; an unknown value is an error."""

    def load(name: str) -> str | None:
        file = resources.files(__package__).joinpath("templates", name)
        return file.read_text() if file.is_file() else None

    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(load),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters["constant"] = constant
    return made


def render(template: str, parameters: tuple[str, ...], values: Mapping[str, Any]) -> str:
    """The kernel's text; ``signature`` in a template is its ``def`` line."""
    known = environment()
    found = known.get_template(template) if template.endswith(".j2") else known.from_string(template)
    signature = f"def KERNEL({', '.join(['sizes', *parameters])}):"
    return found.render({"signature": signature, **values}).strip() + "\n"


def named_source(name: str, text: str, operands: Mapping[str, Argument], config: Config) -> KernelSource:
    """``text`` under a name of its own: what it is called after, and a digest of all that it was made from."""
    unknown = [a.dtype for a in operands.values() if a.dtype not in POINTERS]
    if unknown:
        raise ValueError(f"device kernels read {', '.join(POINTERS)}, not {unknown[0]}")
    pointers = ("*i32", *(POINTERS[a.dtype] for a in operands.values()))
    made_from = repr((text, pointers, sorted(config.tiles.items()), config.warps, config.stages))
    full = f"xk_{name}_{hashlib.sha256(made_from.encode()).hexdigest()[:10]}"
    return KernelSource(full, text.replace("KERNEL", full), ("sizes", *operands), pointers, config)


def constant(value: float | bool | int | None) -> str:
    """A number as Triton source; what is not finite is spelt out."""
    if isinstance(value, float):
        return repr(value) if abs(value) != float("inf") and value == value else f'float("{value}")'
    return repr(value)
