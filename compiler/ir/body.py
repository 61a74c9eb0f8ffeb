"""The graph inside one value of another graph: what a loop computes."""

from torch import fx


class Body:
    """The graph of a loop: placeholders stand for the operands; the output returns one value or several.

    Compares and hashes by ``text``, its printed form.
    """

    def __init__(self, graph: fx.Graph, text: str) -> None:
        self.graph = graph
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Body) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"body<{self.text}>"

    @property
    def inputs(self) -> list[fx.Node]:
        return [n for n in self.graph.nodes if n.op == "placeholder"]

    @property
    def outputs(self) -> tuple[fx.Node, ...]:
        return self.graph.output_node().args[0]
