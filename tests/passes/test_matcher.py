"""Patterns: names must agree, commutative ops match either way and go back on a choice that fails later."""

from xllmc.passes.matcher import anything, call, cast, constant, match, number

from tests.programs import program


def last(body: str):
    lines = "\n".join(f"  {line}" for line in body.splitlines())
    made = program(f"func forward(%x: f32[T, 4], %z: f32[T, 4]) -> (y) {{\n{lines}\n  return %y\n}}")
    return made.forward.outputs[0]


def test_one_name_is_one_value():
    pattern = call("sub", call("exp", anything("a")), anything("a"))
    assert match(pattern, last("%e: f32[T, 4] = exp(%x)\n%y: f32[T, 4] = sub(%e, %x)"))
    assert match(pattern, last("%e: f32[T, 4] = exp(%x)\n%y: f32[T, 4] = sub(%e, %z)")) is None


def test_a_choice_is_taken_back_when_it_fails_later():
    """add(a, b) binds a to x first; only the other way round does the second factor agree."""
    pattern = call("mul", call("add", anything("a"), anything("b")), call("exp", anything("b")))
    body = "%s: f32[T, 4] = add(%x, %z)\n%e: f32[T, 4] = exp(%x)\n%y: f32[T, 4] = mul(%s, %e)"
    found = match(pattern, last(body))
    assert found is not None
    assert (found["a"].name, found["b"].name) == ("z", "x")


def test_order_matters_where_an_op_does_not_commute():
    pattern = call("sub", constant(1.0), anything("a"))
    assert match(pattern, last("%y: f32[T, 4] = sub(%x, 1.0)")) is None


def test_casts_are_looked_through_to_the_end():
    body = '%h: bf16[T, 4] = cast(%x, dtype="bf16")\n%f: f32[T, 4] = cast(%h, dtype="f32")\n%y: f32[T, 4] = exp(%f)'
    found = match(call("exp", cast(anything("a"))), last(body))
    assert found is not None and found["a"].name == "x"


def test_numbers_and_attributes():
    node = last("%y: f32[T, 4] = pow(%x, exponent=3.0)")
    assert match(call("pow", anything("a"), exponent=3.0), node)
    assert match(call("pow", anything("a"), exponent=2.0), node) is None
    found = match(call("add", anything("a"), number("n")), last("%y: f32[T, 4] = add(%x, 0.25)"))
    assert found is not None and found["n"] == 0.25
