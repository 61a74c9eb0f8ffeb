"""Models of the tests, made once per session, with what the interpreter says of their steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pytest
import torch
from xllmc.codegen.ascend.graph.lower import GraphModule, lower_graph

from tests.codegen.ascend.graph.doubles import install
from tests.codegen.ascend.graph.models import Model, grouped, interpreted, model_of


@dataclass(frozen=True)
class Case:
    model: Model
    graph: GraphModule
    expected: list[torch.Tensor]
    """Logits of every step of the schedule."""


class MakeCase(Protocol):
    def __call__(self, family: str, dtype: str, loops: bool = False) -> Case: ...


@pytest.fixture(scope="session")
def case(checkpoint: Callable) -> MakeCase:
    """(Family, ``bf16`` or ``fp32``, whether passes made epilogues and loops) to the model, lowered."""
    install()
    made: dict[tuple[str, str, bool], Case] = {}

    def get(family: str, dtype: str, loops: bool = False) -> Case:
        if (family, dtype, loops) not in made:
            directory = checkpoint(family)
            model = grouped(get(family, dtype).model, directory) if loops else model_of(directory, dtype)
            made[family, dtype, loops] = Case(model, lower_graph(model.program), interpreted(model))
        return made[family, dtype, loops]

    return get
