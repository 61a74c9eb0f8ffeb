"""It wants to run before a pass that there is not."""

from xllmc.passes.api import Rewriter, graph_pass


@graph_pass(stage="recognised", before="fuse-everything")
def faulty_order(rewriter: Rewriter) -> None:
    """Nothing."""


PASSES = (faulty_order,)
