"""The functions of a program that follow ``forward``: choosing tokens, and scoring given ones."""

from torch import fx

from ..runtime.artifact.errors import XllmcError
from .ir.dims import symbol
from .ir.program import Function, Program, emit, type_of
from .ir.types import TensorType
from .ops import OPS

SAMPLING_ROW_BYTES = 80
"""Of ``struct xllmc_sampling_row`` (xllmc/sampler.h), which ``runtime.sampling.SAMPLING_ROW`` mirrors."""

ANY = symbol("N")
"""A length that each step chooses; the input is passed by pointer."""


def add_sampling(program: Program) -> None:
    """Add ``sample`` and ``score``, which read the logits that ``forward`` left."""
    rows = symbol("R")
    (output,) = program.forward.outputs
    logits = type_of(output)
    if logits != TensorType("f32", (rows, program.facts.vocab_size)):
        raise XllmcError(
            f"sampling requires logits f32[R, {program.facts.vocab_size}], got {logits}; widen-logits makes them so"
        )
    sample_inputs: dict[str, TensorType] = {
        "logits": logits,
        "rows": TensorType("u8", (rows, SAMPLING_ROW_BYTES)),
        "history": TensorType("i32", (ANY,)),
        "bias_ids": TensorType("i32", (ANY,)),
        "bias_values": TensorType("f32", (ANY,)),
        "bitmask": TensorType("u32", (ANY,)),
    }
    program.functions["sample"] = _function("sample", sample_inputs, ("token", "logprobs", "top_ids", "top_values"))
    score_inputs = {"logits": logits, "targets": TensorType("i32", (rows,))}
    program.functions["score"] = _function("score", score_inputs, ("logprob",), op="token_logprob")


def _function(name: str, inputs: dict[str, TensorType], results: tuple[str, ...], op: str | None = None) -> Function:
    graph = fx.Graph()
    nodes = []
    for input_name, kind in inputs.items():
        node = graph.placeholder(input_name)
        node.meta["type"] = kind
        nodes.append(node)
    called = emit(graph, OPS[op or name], *nodes)
    single = isinstance(called.meta["type"], TensorType)
    graph.output((called,) if single else tuple(emit(graph, OPS["get"], called, index=i) for i in range(len(results))))
    return Function(name, graph, results)
