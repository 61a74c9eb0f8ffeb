"""It leaves a graph whose types do not fit."""

from xllmc.passes.api import Rewriter, graph_pass


@graph_pass(stage="recognised")
class FaultyTypes:
    """Sums become float32, whatever reads them."""

    def run(self, rewriter: Rewriter) -> None:
        for node in rewriter.calls("add")[:1]:
            rewriter.replace({node: rewriter.at(node).emit("cast", node.args[0], dtype="i32")})


PASSES = (FaultyTypes,)
