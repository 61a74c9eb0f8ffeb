"""Every rule of the verifier, broken once."""

import pytest
from torch import fx
from xllmc.compiler.ir.program import Program
from xllmc.compiler.ir.types import TensorType
from xllmc.compiler.ir.verify import VerificationError, verify

from tests.programs import program, symbols_of

WRITES = """
func forward(%k: f32[T, 2, 4], %kv: paged<0>f32[2, 4, 4], %slots: i32[T], %q: f32[T, 2, 4], %bt: i32[S, B],
             %starts: i32[S+1], %pos: i32[T]) -> (y) {
  %one: paged<0>f32[2, 4, 4] = kv_write(%kv, %k, %k, %slots)
  %y: f32[T, 2, 4] = paged_attention(%q, %one, %bt, %starts, %pos, scale=0.5, softcap=0.0, window=0)
  return %y
}"""


@pytest.fixture
def simple() -> Program:
    text = """
    func forward(%x: f32[T, 4]) -> (y) {
      %a: f32[T, 4] = mul(%x, @w)
      %b: f32[T, 4] = exp(%a)
      return %b
    }"""
    return program(text, ["w [4]"])


def node(made: Program, name: str) -> fx.Node:
    return next(n for n in made.forward.graph.nodes if n.name == name)


def refused(made: Program, rule: str) -> None:
    with pytest.raises(VerificationError, match=rule):
        verify(made)


def test_a_wrong_recorded_type(simple):
    node(simple, "b").meta["type"] = TensorType("f32", (4, 4))
    refused(simple, r"%b is recorded as f32\[4, 4\], but exp gives f32\[T, 4\]")


def test_a_baked_symbol_is_a_wrong_type(simple):
    """T must stay general: a pass that writes 7 where the graph says T is caught."""
    node(simple, "a").meta["type"] = TensorType("f32", (7, 4))
    refused(simple, "but mul gives")


def test_operands_that_do_not_fit(simple):
    node(simple, "x").meta["type"] = TensorType("f32", (node(simple, "x").meta["type"].shape[0], 5))
    refused(simple, r"%a .*shapes do not broadcast")


def test_an_undeclared_weight(simple):
    simple.weights.clear()
    refused(simple, "weight @w is not declared")


def test_a_use_before_the_definition(simple):
    node(simple, "b").append(node(simple, "a"))
    refused(simple, "%b uses %a before it is defined")


def test_a_call_of_something_that_is_no_op(simple):
    node(simple, "b").target = abs
    refused(simple, "which is not a registered op")


def test_a_result_too_few(simple):
    simple.forward.results = ("y", "z")
    refused(simple, "returns 1 values for results y, z")


def test_two_changes_of_one_state():
    made = program(WRITES)
    write = node(made, "one")
    with made.forward.graph.inserting_after(write):
        second = made.forward.graph.node_copy(write)
    second.meta = dict(write.meta)
    refused(made, "is changed by %one and %one_1; chain them")


def test_reading_a_state_that_was_changed_since():
    made = program(WRITES)
    node(made, "y").replace_input_with(node(made, "one"), node(made, "kv"))
    refused(made, "%y reads state %kv after %one changed it")


def test_symbols_are_found():
    assert symbols_of(program(WRITES)) == {"T", "S", "S+1", "B"}
