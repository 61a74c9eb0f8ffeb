"""Read back what ``text`` prints."""

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import fx

from ...runtime.artifact.errors import XllmcError
from ...runtime.artifact.recipe import Recipe
from ...runtime.artifact.schema import ModelFacts
from .body import Body
from .dims import parse_size
from .op import Op
from .program import Function, Group, Program, Weight
from .text import print_body
from .types import TensorType, ValueType, parse_type

TOKEN = re.compile(
    r"""\s*(?:
      (?P<comment>//[^\n]*) | (?P<string>"(?:[^"\\]|\\.)*") | (?P<value>%[\w.\-]+) | (?P<weight>@[\w.\-]+)
    | (?P<number>-?(?:\d+\.?\d*(?:e[+-]?\d+)?|inf)(?![\w*])|nan(?!\w))
    | (?P<dim>\d+\*[\w*]+) | (?P<name>[A-Za-z_][\w*]*)
    | (?P<arrow>->) | (?P<mark>[(){}\[\]<>:,=;])
    )""",
    re.VERBOSE,
)


class GraphSyntaxError(XllmcError):
    """The text is not a program; the message names the line."""


class Parser:
    """A recursive-descent parser over one text."""

    def __init__(self, text: str, ops: Mapping[str, Op]) -> None:
        self.text = text
        self.ops = ops
        self.position = 0

    def program(self) -> Program:
        self.expect("program")
        stage = self.take("name")
        try:
            facts = ModelFacts.model_validate_json(self.rest_of_line())
        except ValidationError as error:
            return self.fail(f"not the facts of a model: {error.errors()[0]['msg']}")
        program = Program(facts, {}, {}, {}, (), stage)
        while (token := self.peek()) is not None:
            if token[1] == "group":
                program.groups += (self.group(),)
            elif token[1] == "weight":
                name, weight = self.weight()
                program.weights[name] = weight
            elif token[1] == "func":
                function = self.function(program)
                program.functions[function.name] = function
            else:
                self.fail("expected group, weight or func")
        return program

    def group(self) -> Group:
        self.expect("group")
        index = int(self.take("number"))
        self.expect("window", "=")
        window = self.value({}, None)
        return Group(index, window)

    def weight(self) -> tuple[str, Weight]:
        self.expect("weight")
        name = self.take("weight")[1:]
        self.expect(":")
        kind = self.type()
        layout = self.take("name")
        self.expect("=")
        recipe = Recipe.from_json(json.loads(self.rest_of_line()))
        if isinstance(kind, TensorType):
            return name, Weight(kind, recipe, layout)
        return self.fail(f"a weight must be a tensor, got {kind}")

    def function(self, program: Program) -> Function:
        self.expect("func")
        name = self.take("name")
        graph = fx.Graph()
        values = self.inputs(graph)
        self.expect("->", "(")
        results = [self.take("name")]
        while self.accept(","):
            results.append(self.take("name"))
        self.expect(")")
        self.statements(graph, values, program)
        return Function(name, graph, tuple(results))

    def inputs(self, graph: fx.Graph) -> dict[str, fx.Node]:
        values: dict[str, fx.Node] = {}
        self.expect("(")
        while not self.accept(")"):
            name = self.take("value")[1:]
            self.expect(":")
            node = graph.placeholder(name)
            node.target = name
            node.meta["type"] = self.type()
            values[name] = node
            self.accept(",")
        return values

    def statements(self, graph: fx.Graph, values: dict[str, fx.Node], program: Program | None) -> None:
        self.expect("{")
        while not self.accept("return"):
            name = self.take("value")[1:]
            self.expect(":")
            kind = self.type()
            self.expect("=")
            op_name = self.take("name")
            if op_name not in self.ops:
                self.fail(f"unknown op {op_name!r}; known: {', '.join(sorted(self.ops))}")
            operands, attributes = self.arguments(graph, values, program)
            node = graph.create_node("call_function", self.ops[op_name], tuple(operands), attributes, name=name)
            node.meta["type"] = kind
            self.accept(";")
            node.meta["where"] = self.comment()
            values[name] = node
        returned = [self.value(values, (graph, program))]
        while self.accept(","):
            returned.append(self.value(values, (graph, program)))
        graph.output(tuple(returned))
        self.expect("}")

    def arguments(
        self, graph: fx.Graph, values: dict[str, fx.Node], program: Program | None
    ) -> tuple[list[Any], dict[str, Any]]:
        operands: list[Any] = []
        attributes: dict[str, Any] = {}
        self.expect("(")
        while not self.accept(")"):
            if keyword := re.compile(r"\s*(\w+)\s*=").match(self.text, self.position):
                self.position = keyword.end()
                attributes[keyword[1]] = self.value(values, (graph, program))
            else:
                operands.append(self.value(values, (graph, program)))
            self.accept(",")
        return operands, attributes

    def value(self, values: dict[str, fx.Node], context: tuple[fx.Graph, Program | None] | None) -> Any:
        kind, text = self.next()
        match kind:
            case "value":
                if text[1:] not in values:
                    self.fail(f"{text} is used before it is defined")
                return values[text[1:]]
            case "weight":
                return self.weight_node(text[1:], values, context)
            case "string":
                return json.loads(text)
            case "number":
                return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
            case "dim":
                return parse_size(text)
            case "name":
                constants = {"none": None, "true": True, "false": False}
                return constants[text] if text in constants else parse_size(text)
        if text == "[":
            items = []
            while not self.accept("]"):
                items.append(self.value(values, context))
                self.accept(",")
            return tuple(items)
        if text == "(":
            self.position -= 1
            return self.body()
        return self.fail(f"expected a value, got {text!r}")

    def weight_node(self, name: str, values: dict[str, fx.Node], context: Any) -> fx.Node:
        if context is None or context[1] is None or name not in context[1].weights:
            self.fail(f"weight @{name} is not declared")
        graph, program = context
        if "@" + name not in values:
            placed = [n for n in graph.nodes if n.op in ("placeholder", "get_attr")]
            with graph.inserting_after(placed[-1] if placed else graph._root):
                node = graph.create_node("get_attr", name)
            node.meta.update(type=program.weights[name].type, where="")
            values["@" + name] = node
        return values["@" + name]

    def body(self) -> Any:
        graph = fx.Graph()
        values = self.inputs(graph)
        self.statements(graph, values, None)
        return Body(graph, print_body(graph))

    def type(self) -> ValueType:
        match = re.compile(r"\s*(\((?:[^()]|\[[^\]]*\])*\)|(?:paged<\d+>)?\w+\[[^\]]*\])").match(
            self.text, self.position
        )
        if not match:
            self.fail("expected a type")
        assert match is not None
        self.position = match.end()
        try:
            return parse_type(match[1])
        except ValueError as error:
            return self.fail(str(error))

    # --- tokens

    def peek(self) -> tuple[str, str] | None:
        start = self.position
        try:
            return self.next() if self.text[self.position :].strip() else None
        finally:
            self.position = start

    def next(self) -> tuple[str, str]:
        match = TOKEN.match(self.text, self.position)
        if not match or match.lastgroup is None:
            self.fail("unexpected character")
        assert match is not None
        self.position = match.end()
        return match.lastgroup or "", match[match.lastgroup or 0]

    def take(self, kind: str) -> str:
        found, text = self.next()
        if found != kind:
            self.fail(f"expected a {kind}, got {text!r}")
        return text

    def expect(self, *texts: str) -> None:
        for text in texts:
            if not self.accept(text):
                self.fail(f"expected {text!r}")

    def accept(self, text: str) -> bool:
        match = TOKEN.match(self.text, self.position)
        if match and match.lastgroup and match[match.lastgroup] == text:
            self.position = match.end()
            return True
        return False

    def comment(self) -> str:
        match = re.compile(r"[ \t]*// ?([^\n]*)").match(self.text, self.position)
        if not match:
            return ""
        self.position = match.end()
        return match[1].strip()

    def rest_of_line(self) -> str:
        end = self.text.find("\n", self.position)
        end = len(self.text) if end < 0 else end
        line, self.position = self.text[self.position : end], end
        return line.strip()

    def fail(self, reason: str) -> Any:
        line = self.text.count("\n", 0, self.position) + 1
        shown = self.text.splitlines()[line - 1][:100] if self.text else ""
        raise GraphSyntaxError(f"line {line}: {reason}: {shown.strip()}")


def parse_program(text: str, ops: Mapping[str, Op]) -> Program:
    """The program of a text form. Constants (arrays) are not in the text and stay empty."""
    return Parser(text, ops).program()
