"""The schemas of torch_npu's operators, as a committed snapshot has them, and whether a call fits one.

A positional or keyword argument is a ``Value`` (an expression that gives a tensor), ``Lengths`` (one that gives the
host's integers), or a Python literal.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import torch

from ....runtime.artifact.errors import XllmcError

LONG = 90
"""Characters of a call beyond which each argument has a line of its own."""


@dataclass(frozen=True)
class Value:
    """An expression of the generated module that gives a tensor."""

    code: str

    def __str__(self) -> str:
        return self.code


@dataclass(frozen=True)
class Lengths:
    """An expression that gives a list of integers on the host."""

    code: str

    def __str__(self) -> str:
        return self.code


Argument = Value | Lengths | int | float | bool | str | tuple[int, ...] | None


@cache
def snapshot() -> tuple[str, Mapping[str, Any]]:
    """torch_npu's version, and the parsed schema of each of its operators in the snapshot, by name."""
    held = json.loads(resources.files("xllmc.codegen.ascend").joinpath("schemas.json").read_text())
    return held["torch_npu"], {name: torch._C.parse_schema(text) for name, text in held["operators"].items()}


def check_call(operator: str, positional: Sequence[Argument], named: Mapping[str, Argument]) -> int:
    """How many results a call has. XllmcError where the snapshot lacks the operator, or the arguments do not fit it."""
    version, schemas = snapshot()
    schema = schemas.get(operator)
    if schema is None:
        raise XllmcError(f"torch_npu {version} has no operator {operator} in the snapshot; known: {', '.join(schemas)}")
    by_place = [a for a in schema.arguments if not a.kwarg_only]
    if len(positional) > len(by_place):
        raise _unfit(schema, f"takes {len(by_place)} positional arguments, got {len(positional)}")
    given = dict(zip((a.name for a in by_place), positional, strict=False))
    for name, value in named.items():
        if name in given:
            raise _unfit(schema, f"got {name} twice")
        given[name] = value
    known = {a.name: a for a in schema.arguments}
    if unknown := [name for name in given if name not in known]:
        raise _unfit(schema, f"has no argument {unknown[0]}")
    if missing := [a.name for a in schema.arguments if a.name not in given and not a.has_default_value()]:
        raise _unfit(schema, f"requires {missing[0]}")
    for name, value in given.items():
        if not _fits(value, str(known[name].type)):
            raise _unfit(schema, f"requires {known[name].type} for {name}, got {value!r}")
    return len(schema.returns)


def call_code(operator: str, positional: Iterable[Argument], named: Mapping[str, Argument]) -> str:
    """The call as an expression of the generated module."""
    return python_call(f"npu.{operator}", [*map(_code, positional), *(f"{n}={_code(a)}" for n, a in named.items())])


def python_call(function: str, arguments: Sequence[str]) -> str:
    """A call on one line, or with a line for each argument."""
    on_one_line = f"{function}({', '.join(arguments)})"
    return (
        on_one_line if len(on_one_line) <= LONG else "\n".join([f"{function}(", *(f"    {a}," for a in arguments), ")"])
    )


def _fits(value: Argument, wanted: str) -> bool:
    if wanted.startswith("Optional["):
        return value is None or _fits(value, wanted.removeprefix("Optional[").removesuffix("]"))
    match value:
        case Value():
            return wanted == "Tensor"
        case Lengths() | tuple():
            return wanted == "List[int]"
        case bool():
            return wanted == "bool"
        case int():
            return wanted in ("int", "number")
        case float():
            return wanted in ("float", "number")
        case str():
            return wanted == "str"
    return False


def _unfit(schema: Any, what: str) -> XllmcError:
    return XllmcError(f"{schema.name} of torch_npu {snapshot()[0]} {what}: {schema}")


def _code(argument: Argument) -> str:
    if isinstance(argument, tuple):
        return repr(list(argument))
    return str(argument) if isinstance(argument, Value | Lengths) else repr(argument)
