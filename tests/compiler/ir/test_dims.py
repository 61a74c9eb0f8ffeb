"""Sizes multiply, divide and print as numbers with symbols should."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.compiler.ir.dims import Dim, divide, evaluate, parse_size, product, symbol, whole

sizes = st.one_of(
    st.integers(1, 64),
    st.builds(lambda f, s: Dim(f, tuple(sorted(s))), st.integers(1, 64), st.lists(st.sampled_from("TSRB"), min_size=1)),
)
VALUES = {"T": 3, "S": 5, "R": 7, "B": 2}


@given(sizes)
def test_a_printed_size_parses_back(size):
    assert parse_size(str(size)) == size


@given(st.lists(sizes))
def test_a_product_is_the_product_of_the_values(parts):
    expected = 1
    for part in parts:
        expected *= evaluate(part, VALUES)
    assert evaluate(product(parts), VALUES) == expected


@given(sizes, sizes)
def test_division_undoes_multiplication(a, b):
    assert divide(product([a, b]), b) == a


def test_what_does_not_divide_has_no_quotient():
    assert divide(6, 4) is None
    assert divide(symbol("T"), symbol("S")) is None


def test_a_symbol_is_no_fixed_size():
    with pytest.raises(ValueError, match="fixed size is required, got 4\\*T"):
        whole(4 * symbol("T"))
