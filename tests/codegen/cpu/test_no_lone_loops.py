"""No model is left with a kernel for one elementwise op that the kernel before it could have done."""

import pytest
from torch import fx
from xllmc.compiler.driver import family_named
from xllmc.compiler.ir.program import Program, is_call
from xllmc.compiler.memory import Value, source_of
from xllmc.compiler.pipeline.listing import pass_list
from xllmc.compiler.pipeline.run import RunOptions, run
from xllmc.compiler.weight_source import CheckpointSource
from xllmc.models.config import load_config
from xllmc.models.trace import TraceOptions, eos_token_ids, trace

from tests.checkpoints import FAMILIES
from tests.programs import program

TAKES = ("linear", "embedding", "loop", "rms_norm", "layer_norm", "add_rms_norm", "add_layer_norm")


def lone_loops(lowered: Program) -> list[fx.Node]:
    """Loops of one op that read what a kernel made for them alone."""
    return [
        loop
        for loop in lowered.forward.calls
        if is_call(loop, "loop")
        and sum(n.op == "call_function" and n.target.name != "cast" for n in loop.kwargs["body"].graph.nodes) <= 1
        and any(made_for(operand, loop) for operand in loop.all_input_nodes)
    ]


def made_for(operand: fx.Node, reader: fx.Node) -> bool:
    source = source_of(operand)
    return isinstance(source, Value) and is_call(source.node, *TAKES) and set(operand.users) == {reader}


@pytest.mark.parametrize("family", FAMILIES)
def test_no_elementwise_kernel_is_left_alone(family, checkpoint):
    config, source = load_config(checkpoint(family)), CheckpointSource(checkpoint(family))
    options = TraceOptions("bf16", None, family_named(config.model_type)[0].handlers)
    traced, _ = trace(config, options, source.names(), eos_token_ids(checkpoint(family), config))
    lowered, _ = run(traced, pass_list().passes, RunOptions(verification="structure"))
    assert lone_loops(lowered) == []


def test_a_lone_loop_would_be_found():
    text = """
    func forward(%x: f32[T, 16]) -> (y) {
      %l: f32[T, 16] = linear(%x, @w, none)
      %y: f32[T, 16] = loop(%l, body=(%0: f32[T, 16]) { %1: f32[T, 16] = exp(%0); return %1 })
      return %y
    }"""
    assert [n.name for n in lone_loops(program(text, ["w [16, 16]"]))] == ["y"]
