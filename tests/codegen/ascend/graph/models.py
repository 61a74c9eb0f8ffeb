"""Programs and weights of the tests' models, and steps of several sequences on both sides: interpreter and module."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from xllmc.compiler.check.samples import to_torch
from xllmc.compiler.driver import family_named
from xllmc.compiler.functions import add_sampling
from xllmc.compiler.ir.interpret import run_function
from xllmc.compiler.ir.program import Program
from xllmc.compiler.ops.attention import PagedCache
from xllmc.compiler.options import DTYPES
from xllmc.compiler.pipeline.order import in_order
from xllmc.compiler.pipeline.run import RunOptions, run
from xllmc.compiler.weight_source import CheckpointSource
from xllmc.models.config import load_config
from xllmc.models.trace import TraceOptions, trace
from xllmc.passes.api import Pass
from xllmc.passes.builtin import PASSES
from xllmc.passes.fuse_epilogue import FuseEpilogue
from xllmc.passes.group_loops import GroupLoops
from xllmc.runtime.artifact.pages import PAGE_TOKENS
from xllmc.runtime.artifact.recipe import Recipe, Tensor, evaluate

from tests.checkpoints import probe_tokens


@dataclass(frozen=True)
class Model:
    program: Program
    weights: dict[str, torch.Tensor]
    """As an engine stores them."""


def model_of(checkpoint: Path, dtype: str) -> Model:
    """The program after the passes that every target has."""
    config, source = load_config(checkpoint), CheckpointSource(checkpoint)
    family, _ = family_named(config.model_type, plugins=False)
    program, _ = trace(config, TraceOptions(DTYPES[dtype], None, family.handlers), source.names(), (0,))
    return _with_weights(program, source, in_order([one() for one in PASSES]))


def grouped(model: Model, checkpoint: Path) -> Model:
    """The same after those that make epilogues and loops, too."""
    return _with_weights(model.program, CheckpointSource(checkpoint), [FuseEpilogue(), GroupLoops()])


def _with_weights(before: Program, source: CheckpointSource, passes: Sequence[Pass]) -> Model:
    program, _ = run(before, passes, RunOptions("off"))
    add_sampling(program)

    def read(leaf: Recipe) -> Tensor:
        return program.constants[leaf.attribute("name")] if leaf.op == "constant" else source.read(leaf)

    return Model(program, {name: to_torch(evaluate(w.stored, read)) for name, w in program.weights.items()})


def load_text(text: str, directory: Path) -> ModuleType:
    """The generated module, imported from a file, as a host imports it."""
    file = directory / f"model_{abs(hash(text))}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


BOUNDS = {"fp32": 4e-6, "bf16": 2**-6}
"""Largest difference of logits, of the largest logit."""

Schedule = list[list[tuple[int, int]]]
"""Steps: which sequences take part, and with how many of their next tokens."""

LENGTHS = (150, 41, 5)
SCHEDULE: Schedule = [
    [(0, 130), (1, 33)],  # prefill, across a page of either size
    [(0, 1), (1, 1)],  # decode
    [(1, 6), (0, 1), (2, 4)],  # all at once, in another order
    [(0, 18), (1, 1), (2, 1)],
]


@dataclass
class StepArrays:
    """One step as arrays of int32 by input name, with pages of ``page_tokens``."""

    inputs: dict[str, np.ndarray]
    query_ends: list[int]
    kv_lengths: list[int]


def steps(program: Program, page_tokens: int, schedule: Schedule = SCHEDULE) -> list[StepArrays]:
    """The schedule's steps. Pages lie scattered; a window's group has -1 where a page is behind it for good."""
    sequences = [probe_tokens(length, seed) for seed, length in enumerate(LENGTHS)]
    columns = -(-max(LENGTHS) // page_tokens)
    tables = np.random.default_rng(5).permutation(len(LENGTHS) * columns).reshape(len(LENGTHS), columns)
    done, made = [0] * len(LENGTHS), []
    for step in schedule:
        spans = [(s, done[s], done[s] + count) for s, count in step]
        places = [(s, p) for s, start, stop in spans for p in range(start, stop)]
        ends = np.cumsum([stop - start for _, start, stop in spans])
        inputs = {
            "token_ids": np.array([sequences[s][p] for s, p in places]),
            "positions": np.array([p for _, p in places]),
            "query_starts": np.array([0, *ends]),
            "logit_rows": np.arange(len(places))[::-1],
        }
        for group in program.groups:
            table = tables[[s for s, _, _ in spans]].copy()
            for row, (_, start, _) in zip(table, spans, strict=True):
                row[: max(0, start - (group.window or start + 1) + 1) // page_tokens] = -1
            inputs[f"block_table.{group.index}"] = table
            inputs[f"slots.{group.index}"] = np.array(
                [tables[s, p // page_tokens] * page_tokens + p % page_tokens for s, p in places]
            )
        arrays = {name: np.ascontiguousarray(values, np.int32) for name, values in inputs.items()}
        made.append(StepArrays(arrays, ends.tolist(), [stop for _, _, stop in spans]))
        done = [stop if (stop := dict((s, e) for s, _, e in spans).get(s)) else d for s, d in enumerate(done)]
    return made


def interpreted(model: Model, schedule: Schedule = SCHEDULE) -> list[torch.Tensor]:
    """Logits of every step, by the interpreter, over pages of xllmc's own size."""
    pages = len(LENGTHS) * -(-max(LENGTHS) // PAGE_TOKENS)
    caches = {}
    for name, kind in model.program.states.items():
        dtype = model.weights[next(iter(model.weights))].dtype if kind.dtype == "bf16" else torch.float32
        shape = (pages * PAGE_TOKENS, kind.kv_heads)
        caches[name] = PagedCache(*(torch.zeros(*shape, d, dtype=dtype) for d in (kind.key_dim, kind.value_dim)))
    results = []
    for step in steps(model.program, PAGE_TOKENS, schedule):
        inputs = {name: torch.from_numpy(values) for name, values in step.inputs.items()}
        results.append(run_function(model.program.forward, inputs | caches, model.weights.__getitem__)["logits"])
    return results


def run_module(module: ModuleType, model: Model, schedule: Schedule = SCHEDULE) -> list[torch.Tensor]:
    """Logits of every step, by the generated module."""
    pages = len(LENGTHS) * -(-max(LENGTHS) // module.PAGE_TOKENS)
    caches = {
        name: module.Pages(
            *(torch.zeros(pages, module.PAGE_TOKENS, c.kv_heads, d, dtype=c.dtype) for d in (c.key_dim, c.value_dim))
        )
        for name, c in module.CACHES.items()
    }
    weights = module.prepare(model.weights, "cpu")
    results = []
    for made in steps(model.program, module.PAGE_TOKENS, schedule):
        inputs = {name: torch.from_numpy(made.inputs[name]) for name in module.INPUTS}
        most = int(np.diff(made.inputs["query_starts"]).max())
        step = module.Step(inputs, made.query_ends, made.kv_lengths, most)
        results.append(module.forward(weights, caches, step)["logits"])
    return results


def largest_difference(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """The largest difference over the largest expected magnitude, of all steps; infinite where any is not a number."""
    top = max(float(e.abs().max()) for e in expected)
    differences = [float((g - e).abs().max()) for g, e in zip(got, expected, strict=True)]
    return max(differences) / top if np.isfinite(differences).all() else float("inf")
