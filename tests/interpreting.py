"""Running a program's forward graph with the ops' references, as one prefill."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from xllmc.compiler.check.samples import to_torch
from xllmc.compiler.ir.interpret import run_function
from xllmc.compiler.ir.program import Program
from xllmc.compiler.ops.attention import PagedCache
from xllmc.compiler.weight_source import CheckpointSource
from xllmc.runtime.artifact.pages import PAGE_TOKENS
from xllmc.runtime.artifact.recipe import Recipe, Tensor, evaluate


def interpreted_logits(
    program: Program, source: CheckpointSource, tokens: Sequence[int], constant: Callable[[str], Tensor]
) -> np.ndarray:
    """float32 [T, vocab]: the logits after each token. ``constant`` gives the arrays that no checkpoint has."""

    def weight(name: str) -> torch.Tensor:
        def read(leaf: Recipe) -> Tensor:
            return constant(leaf.attribute("name")) if leaf.op == "constant" else source.read(leaf)

        return to_torch(evaluate(program.weights[name].recipe, read))

    length = len(tokens)
    order = torch.arange(length, dtype=torch.int32)
    inputs: dict[str, torch.Tensor | PagedCache] = {
        "token_ids": torch.tensor(tokens, dtype=torch.int32),
        "positions": order,
        "logit_rows": order,
        "query_starts": torch.tensor([0, length], dtype=torch.int32),
    }
    pages = -(-length // PAGE_TOKENS)
    for group in program.groups:
        inputs[f"slots.{group.index}"] = order
        inputs[f"block_table.{group.index}"] = torch.arange(pages, dtype=torch.int32)[None]
    for name, kind in program.states.items():
        shape = (pages * PAGE_TOKENS, kind.kv_heads)
        inputs[name] = PagedCache(torch.zeros(*shape, kind.key_dim), torch.zeros(*shape, kind.value_dim))
    return run_function(program.forward, inputs, weight)["logits"].numpy()
