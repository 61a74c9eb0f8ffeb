"""Elementary functions of device kernels against double precision, and their values where it is easy to go wrong.

The interpreter's exp, exp2 and log are numpy's: a device's differ in the last places, as templates/activations.py.j2
says.
"""

import math

import numpy as np
import pytest
import torch
from xllmc.codegen.triton.expressions import NEEDS, functions_of
from xllmc.codegen.triton.kernel import render

from tests.codegen.triton.interpreted import Interpreted
from tests.codegen.triton.lowered_stage import for_device
from tests.programs import program

WIDTH = 4000
INF, NAN = math.inf, math.nan
ROOT = math.sqrt(2 / math.pi)
ERF, ERFC = np.vectorize(math.erf), np.vectorize(math.erfc)


CASES = {
    "exp": (-87, 88, np.exp),
    "log": (1e-30, 1e30, np.log),
    "tanh": (-10, 10, np.tanh),
    "erf": (-4, 4, ERF),
    "sigmoid": (-30, 30, lambda x: 1 / (1 + np.exp(-x))),
    "silu": (-20, 20, lambda x: x / (1 + np.exp(-x))),
    "gelu_tanh": (-1, 10, lambda x: 0.5 * x * (1 + np.tanh(ROOT * (x + 0.044715 * x**3)))),
    "gelu_erf": (-1, 10, lambda x: 0.5 * x * ERFC(-x / math.sqrt(2))),
    "gelu_tanh:": (-8, -1, lambda x: 0.5 * x * (1 + np.tanh(ROOT * (x + 0.044715 * x**3)))),
    "gelu_erf:": (-8, -1, lambda x: 0.5 * x * ERFC(-x / math.sqrt(2))),
    "sin": (-1e5, 1e5, np.sin),
    "cos": (-1e5, 1e5, np.cos),
    "rsqrt": (1e-6, 1e6, lambda x: 1 / np.sqrt(x)),
    "pow:0.75": (0, 1e12, lambda x: x**0.75),
    "pow:-1.3": (1e-6, 1e6, lambda x: x**-1.3),
    "pow:11.0": (-10, 10, lambda x: x**11),
    "pow:19.0": (0.5, 2, lambda x: x**19),
    "pow:2.6": (0, 1e4, lambda x: x**2.6),
    "pow:-2.0": (-10, 10, lambda x: x**-2.0),
    "pow:7.0": (-10, 10, lambda x: x**7),
    "pow:0.0": (-10, 10, np.ones_like),
    "pow:1.0": (-10, 10, lambda x: x),
    "pow:0.5": (0, 10, np.sqrt),
    "pow:-0.5": (1e-3, 10, lambda x: x**-0.5),
}
NEAR = {
    "sin": 0.01,
    "cos": 0.01,
    "gelu_erf": 0.01,
    "gelu_tanh": 0.01,
    "log": 0.01,
    "gelu_erf:": 0.17,
    "gelu_tanh:": 0.17,
}
"""By case, what a smaller result is measured against instead of itself."""
SPECIAL = {
    "exp": ([0, -0.0, -INF, INF, -1000, 1000, NAN], [1, 1, 0, INF, 0, INF, NAN]),
    "log": ([0, 1, INF, -1, NAN], [-INF, 0, INF, NAN, NAN]),
    "tanh": ([0, -INF, INF, -3e38, 3e38, NAN], [0, -1, 1, -1, 1, NAN]),
    "erf": ([0, -INF, INF, -3e38, 3e38, NAN], [0, -1, 1, -1, 1, NAN]),
    "sigmoid": ([0, -INF, INF, -3e38, 3e38, NAN], [0.5, 0, 1, 0, 1, NAN]),
    "silu": ([0, -INF, INF, -3e38, 3e38, NAN], [0, 0, INF, 0, 3e38, NAN]),
    "gelu_tanh": ([0, -INF, INF, -3e38, 3e38, NAN], [0, 0, INF, 0, 3e38, NAN]),
    "gelu_erf": ([0, -INF, INF, -3e38, 3e38, NAN], [0, 0, INF, 0, 3e38, NAN]),
    "sin": ([0, INF, -INF, NAN], [0, NAN, NAN, NAN]),
    "cos": ([0, INF, -INF, NAN], [1, NAN, NAN, NAN]),
    "pow:0.75": ([0, 1, INF, -1, NAN], [0, 1, INF, NAN, NAN]),
    "pow:-1.3": ([0, 1, INF, -1, NAN], [INF, 1, 0, NAN, NAN]),
    "pow:11.0": ([0, -1, INF, -INF, NAN], [0, -1, INF, -INF, NAN]),
    "pow:19.0": ([0, -1, INF, -INF, NAN], [0, -1, INF, -INF, NAN]),
    "pow:2.6": ([0, 1, INF, -1, NAN], [0, 1, INF, NAN, NAN]),
    "pow:0.0": ([0, NAN, INF], [1, 1, 1]),
}


@pytest.fixture(scope="module")
def functions(tmp_path_factory) -> Interpreted:
    """A program that computes each case of an input of its own, whose rows are accuracy's and special values."""
    lines, inputs, results = [], [], []
    for number, case in enumerate(CASES):
        op, _, exponent = case.partition(":")
        attribute = f", exponent={exponent}" if exponent else ""
        inputs.append(f"%x{number}: f32[T, {WIDTH}]")
        lines.append(f"%y{number}: f32[T, {WIDTH}] = {op}(%x{number}{attribute})")
        results.append(f"y{number}")
    text = f"func forward({', '.join(inputs)}) -> ({', '.join(results)}) {{\n" + "\n".join(lines)
    made = program(f"{text}\nreturn {', '.join('%' + r for r in results)}\n}}")
    return Interpreted(for_device(made), {}, tmp_path_factory.mktemp("functions"))


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    random = np.random.default_rng(0)
    made = {}
    for number, (case, (low, high, _)) in enumerate(CASES.items()):
        x = random.uniform(low, high, (2, WIDTH)).astype(np.float32)
        special = SPECIAL.get(case, ([], []))[0]
        x[1, : len(special)] = special
        made[f"x{number}"] = torch.from_numpy(x)
    return made


@pytest.fixture(scope="module")
def computed(functions, inputs) -> dict[str, np.ndarray]:
    found = functions(inputs, {"T": 2})
    return {case: found[f"y{number}"].numpy() for number, case in enumerate(CASES)}


@pytest.mark.parametrize("case", CASES)
def test_accuracy(case, computed, inputs):
    x = inputs[f"x{list(CASES).index(case)}"][0].numpy()
    with np.errstate(all="ignore"):
        exact = CASES[case][2](x.astype(np.float64))
    error, near = np.abs(computed[case][0] - exact), np.abs(exact) < NEAR.get(case, 0.0)
    assert (error[~near] <= 2e-6 * np.abs(exact[~near])).all()
    assert (error[near] <= 2e-6 * NEAR.get(case, 0.0)).all()


@pytest.mark.parametrize("case", SPECIAL)
def test_special_values(case, computed):
    wanted = np.asarray(SPECIAL[case][1], np.float32)
    assert np.allclose(computed[case][1, : len(wanted)], wanted, rtol=1e-6, atol=0, equal_nan=True)


def test_only_what_is_called_is_rendered():
    text = render('{% include "activations.py.j2" %}', (), {"functions": functions_of("silu", "none")})
    assert [line for line in text.splitlines() if line.startswith("def")] == ["def sigmoid(x):", "def silu(x):"]
    everything = render('{% include "activations.py.j2" %}', (), {"functions": functions_of(*NEEDS)})
    names = [line.split()[1].partition("(")[0] for line in everything.splitlines() if line.startswith("def")]
    assert sorted(names) == sorted(NEEDS)
    assert all(names.index(needed) < names.index(name) for name in NEEDS for needed in NEEDS[name])
