"""What a family expects of passes is a number of sites by the model's configuration."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, LlamaConfig, PretrainedConfig
from xllmc.models.families import FAMILIES
from xllmc.models.family import Family, evaluate


def of_layers(layers: int, **settings: bool) -> PretrainedConfig:
    return LlamaConfig(num_hidden_layers=layers, **settings)


@pytest.mark.parametrize(
    ("formula", "layers", "number"),
    [
        ("0", 5, 0),
        ("12", 5, 12),
        ("layers", 5, 5),
        ("2 * layers", 5, 10),
        ("2 * layers + 1", 5, 11),
        ("10 * layers - 3", 5, 47),
        ("layers + 1", 5, 6),
        ("layers - 1", 1, 0),
    ],
)
def test_formulas(formula, layers, number):
    assert evaluate(formula, of_layers(layers)) == number
    assert Family("f", {"a-pass": formula}).expected_matches(of_layers(layers)) == {"a-pass": number}


@given(st.integers(1, 99), st.integers(-99, 99), st.integers(1, 200))
def test_any_line_is_a_formula(factor, more, layers):
    tail = f" {'-' if more < 0 else '+'} {abs(more)}" if more else ""
    assert evaluate(f"{factor} * layers{tail}", of_layers(layers)) == factor * layers + more


def test_the_layers_of_a_model_that_names_them_otherwise():
    assert evaluate("2 * layers", GPT2Config(n_layer=7)) == 14


@pytest.mark.parametrize("formula", ["3", "layers", "2 * layers + 1"])
def test_a_setting_may_take_the_expectation_back(formula):
    guarded = f"{formula} unless mlp_bias"
    assert evaluate(guarded, of_layers(2, mlp_bias=True)) == 0
    assert evaluate(guarded, of_layers(2, mlp_bias=False)) == evaluate(formula, of_layers(2)) > 0
    assert evaluate(guarded, GPT2Config(n_layer=2)) > 0  # which has no such setting


@pytest.mark.parametrize(
    "formula",
    [
        "",
        "layer",
        "2*layers",
        "layers * 2",
        "layers / 2",
        "-1",
        "2 * layers + layers",
        "1.5 * layers",
        "layers + 1 + 1",
        "layers unless",
        "layers unless not mlp_bias",
        "unless mlp_bias",
    ],
)
def test_what_is_no_formula_is_refused_when_the_family_is_made(formula):
    with pytest.raises(
        ValueError, match=r"family f expects a-pass: .*; write 12, layers or 2 \* layers \+ 1"
    ) as caught:
        Family("f", {"a-pass": formula})
    assert repr(formula) in str(caught.value)


def test_our_families_expect_something_of_every_layer():
    assert [f.name for f in FAMILIES] == ["llama", "qwen3", "gemma2", "gpt2"]
    for family in FAMILIES:
        few, many = (family.expected_matches(of_layers(layers)) for layers in (1, 30))
        assert few and all(many[name] > few[name] > 0 for name in few)
