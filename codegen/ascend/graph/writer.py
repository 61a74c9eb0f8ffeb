"""Writes one function of the generated module, statement by statement."""

import builtins
import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from ....compiler.ir.program import Program, type_of
from ....compiler.ir.types import PagedType
from . import carried
from .schemas import Value

RESERVED = {
    *keyword.kwlist,
    *dir(builtins),
    *vars(carried),
    *("torch", "functional", "npu", "weights", "caches", "step", "PAGE_TOKENS"),
}
"""Names that statements read, and so no variables may have."""


@dataclass(frozen=True)
class Cache:
    """A layer's cache: expressions of its keys and values, [pages, PAGE_TOKENS, kv_heads, dim] each."""

    keys: Value
    values: Value


Held = Value | Cache | tuple["Held", ...]
"""What stands for a value of the graph: a tensor, a cache, or the several results of one op."""


@dataclass
class Module:
    """What all functions of the module share."""

    program: Program
    prepared: dict[str, str] = field(default_factory=dict)
    """Name in ``weights`` to the expression over ``stored`` that makes it when weights are loaded."""
    helpers: dict[str, Callable[..., Any]] = field(default_factory=dict)
    """Functions whose source the module carries, by name."""
    plain: dict[str, int] = field(default_factory=dict)
    """What torch's own operators do for want of one of torch_npu, with the reason, and how often."""
    operators: dict[str, int] = field(default_factory=dict)
    """Operators of torch_npu, and how often each is called."""


class FunctionWriter:
    """Statements so far, and what stands for each value."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.lines: list[str] = []
        self._values: dict[fx.Node, Held] = {}
        self._shared: dict[str, Value] = {}
        self._variables: set[str] = set()

    def bind(self, node: fx.Node, held: Held) -> None:
        self._values[node] = held

    def held(self, node: fx.Node) -> Held:
        """What stands for a value. A function's inputs are read where the first call wants them."""
        if node in self._values:
            return self._values[node]
        name = str(node.target)
        if node.op == "get_attr":
            return self.weight(name)
        if isinstance(type_of(node), PagedType):
            pages = [self.share(f"{part}_{name}", f"caches[{name!r}].{part}") for part in ("keys", "values")]
            return Cache(*pages)
        return self.share(name, f"step.inputs[{name!r}]")

    def weight(self, name: str, made: str | None = None) -> Value:
        """A weight as it is stored, or another that ``made``, an expression over ``stored``, makes when loading."""
        self.module.prepared.setdefault(name, made or f"stored[{name!r}]")
        return Value(f"weights[{name!r}]")

    def is_variable(self, value: Value) -> bool:
        return value.code in self._variables

    def variable(self, hint: str) -> str:
        """A name that is not taken yet."""
        base = re.sub(r"\W", "_", hint)
        wanted, number = base, 2
        while wanted in self._variables or wanted in RESERVED:
            wanted, number = f"{base}_{number}", number + 1
        self._variables.add(wanted)
        return wanted

    def say(self, line: str) -> None:
        self.lines.append(line)

    def let(self, hint: str, expression: Value | str) -> Value:
        name = self.variable(hint)
        self.say(f"{name} = {expression}")
        return Value(name)

    def share(self, hint: str, expression: Value | str) -> Value:
        """A variable that calls of several ops want: made where the first one does."""
        code = str(expression)
        if code not in self._shared:
            self._shared[code] = self.let(hint, code)
        return self._shared[code]

    def body(self) -> list[str]:
        """The statements, with each variable given up after the last one that names it: its memory is used again."""
        last: Mapping[str, int] = {
            name: i for i, line in enumerate(self.lines) for name in _names_in(line) if name in self._variables
        }
        out = []
        for i, line in enumerate(self.lines):
            out.append(line)
            done = sorted(name for name, at in last.items() if at == i)
            if done and not line.startswith("return"):
                out.append(f"del {', '.join(done)}")
        return out


def _names_in(line: str) -> list[str]:
    return [] if line.startswith("#") else re.findall(r"[A-Za-z_]\w*", re.sub(r"'[^']*'", "", line))
