"""The text form of a program: one statement a line, readable, stable, and parsed back by ``parse``.

    func forward(%token_ids: i32[T], %kv.0: paged<0>bf16[2, 16, 16]) -> (logits) {
      %embed: bf16[T, 64] = embedding(@model.embed_tokens.weight, %token_ids)  // model.embed_tokens
      return %embed
    }

``%name`` is a value of the graph, ``@name`` a weight. What follows ``//`` is the module path the value came from.
"""

import difflib
import json
from typing import Any

from torch import fx

from .dims import Dim
from .op import Op
from .program import Function, Program


def print_program(program: Program) -> str:
    lines = [f"program {program.stage} {program.facts.model_dump_json()}"]
    lines += [f"group {g.index} window={'none' if g.window is None else g.window}" for g in program.groups]
    for name, weight in program.weights.items():
        recipe = json.dumps(weight.recipe.to_json(), sort_keys=True, separators=(",", ":"))
        lines.append(f"weight @{name}: {weight.type} {weight.layout} = {recipe}")
    for function in program.functions.values():
        lines += ["", print_function(function)]
    return "\n".join(lines) + "\n"


def print_function(function: Function) -> str:
    inputs = ", ".join(f"%{n.target}: {n.meta['type']}" for n in function.inputs)
    head = f"func {function.name}({inputs}) -> ({', '.join(function.results)}) {{"
    return "\n".join([head, *(f"  {line}" for line in print_statements(function.graph)), "}"])


def print_statements(graph: fx.Graph, separator: str = "  ") -> list[str]:
    lines = []
    for node in graph.nodes:
        if node.op == "call_function":
            where = f"{separator}// {node.meta['where']}" if node.meta.get("where") and separator else ""
            lines.append(f"%{node.name}: {node.meta['type']} = {print_call(node)}{where}")
        elif node.op == "output":
            lines.append("return " + ", ".join(print_value(v) for v in node.args[0]))
    return lines


def print_call(node: fx.Node) -> str:
    assert isinstance(node.target, Op)
    operands = [print_value(a) for a in node.args]
    attributes = [f"{k}={print_value(v)}" for k, v in sorted(node.kwargs.items())]
    return f"{node.target.name}({', '.join(operands + attributes)})"


def print_value(value: Any) -> str:
    match value:
        case fx.Node():
            if value.op == "get_attr":
                return f"@{value.target}"
            return f"%{value.target if value.op == 'placeholder' else value.name}"
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value)
        case int() | float() | Dim():
            return str(value)
        case tuple() | list():
            return f"[{', '.join(map(print_value, value))}]"
    return print_body(value.graph)


def print_body(graph: fx.Graph) -> str:
    """A loop's body on one line. Its values are numbered, so that equal bodies print equally."""
    numbers = {n: f"%{i}" for i, n in enumerate(n for n in graph.nodes if n.op != "output")}

    def show(value: Any) -> str:
        return numbers[value] if isinstance(value, fx.Node) else print_value(value)

    inputs = ", ".join(f"{numbers[n]}: {n.meta['type']}" for n in graph.nodes if n.op == "placeholder")
    statements = []
    for node in graph.nodes:
        if node.op == "call_function":
            parts = [show(a) for a in node.args] + [f"{k}={print_value(v)}" for k, v in sorted(node.kwargs.items())]
            statements.append(f"{numbers[node]}: {node.meta['type']} = {node.target.name}({', '.join(parts)});")
        elif node.op == "output":
            statements.append(f"return {', '.join(show(v) for v in node.args[0])}")
    return f"({inputs}) {{ {' '.join(statements)} }}"


def diff_programs(before: Program, after: Program) -> str:
    """A unified diff of two text forms; empty where they are the same."""
    lines = difflib.unified_diff(
        print_program(before).splitlines(), print_program(after).splitlines(), before.stage, after.stage, lineterm=""
    )
    return "\n".join(lines)
