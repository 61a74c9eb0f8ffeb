"""Running the examples of passes: on types, and on numbers."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ...passes.api import Pass, check_example
from ...runtime.artifact.errors import XllmcError
from .run import run_pass


@dataclass(frozen=True)
class ExampleResult:
    pass_name: str
    number: int
    label: str
    fault: str
    """What is not as declared; empty where all is."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_examples(one: Pass) -> Iterator[ExampleResult]:
    """Run each example of the pass: its matches and reasons, its types, and its numbers as in a compile."""
    for number, shown in enumerate(one.examples):
        fault = ""
        try:
            check_example(one, shown, number)
            run_pass(shown.program(), one)
        except (TypeError, XllmcError) as error:
            fault = str(error)
        yield ExampleResult(one.name, number, shown.label, fault)
