"""``@graph_pass``: a pass that walks the graph itself."""

from collections.abc import Callable
from typing import Any

from .base import Numerics, Pass, Stage, declare
from .examples import check_example
from .rewriter import Rewriter


def graph_pass(
    *,
    stage: Stage,
    numerics: Numerics = "exact",
    tolerance: float = 0.0,
    before: str | tuple[str, ...] = (),
    after: str | tuple[str, ...] = (),
    counts_as: str | tuple[str, ...] = (),
    each_stage: bool = False,
    name: str | None = None,
) -> Callable[[Any], type[Pass]]:
    """Make a pass of a class with ``run(self, rewriter)``, whose fields are its options, or of a function
    ``f(rewriter)``, which has none.

    Whatever ``run`` puts in through ``rewriter.replace`` is one match, and is compared with what stood there.
    ``examples`` of a class are run on types at once, as a rewrite's are: TypeError where one does not hold. So what
    the class uses stands above it in its module.
    """
    if each_stage and (before or after):
        raise TypeError("a pass of each stage runs at its beginning; before and after say nothing of it")
    decorate = declare(
        Pass,
        stage=stage,
        numerics=numerics,
        tolerance=tolerance,
        before=before,
        after=after,
        counts_as=counts_as,
        name=name,
        each_stage=each_stage,
    )

    def make(written: Any) -> type[Pass]:
        made = decorate(written if isinstance(written, type) else _class_of(written))
        if made.run is Pass.run:
            raise TypeError(f"graph pass {made.name} requires a method run(self, rewriter)")
        for number, shown in enumerate(made.examples):
            check_example(made(), shown, number)
        return made

    return make


def _class_of(function: Callable[[Rewriter], None]) -> type[Any]:
    def run(self: Pass, rewriter: Rewriter) -> None:
        function(rewriter)

    namespace = {"run": run, "__doc__": function.__doc__, "__module__": function.__module__}
    return type(function.__name__, (), namespace)
