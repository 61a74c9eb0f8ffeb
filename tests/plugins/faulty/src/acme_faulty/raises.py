"""It replaces one site, and raises at the next."""

from xllmc.passes.api import Rewriter, graph_pass


@graph_pass(stage="recognised")
class FaultyRaises:
    """Every second product of matrices is too much for it."""

    def run(self, rewriter: Rewriter) -> None:
        for number, node in enumerate(rewriter.calls("linear")):
            if number == 1:
                raise KeyError(f"no such thing: {node.name}")
            rewriter.replace({node: rewriter.at(node).emit("linear", *node.args, **node.kwargs)})


PASSES = (FaultyRaises,)
