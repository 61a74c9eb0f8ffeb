"""The adapter's IR computes what its kernel says, touches nothing else, and faults of a kernel are noticed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from xllmc.codegen.ascend.adapter import lower_ttir
from xllmc.codegen.triton.compile import function_in
from xllmc.codegen.triton.ttir import make_ttir

from tests.codegen.ascend.adapter import kernels
from tests.codegen.ascend.adapter.adapted import ALIGNED
from tests.codegen.ascend.adapter.jit import ForeignMemoryError, run_ir

HEADING = "import triton\nimport triton.language as tl\n\n\n@triton.jit\n"


@dataclass(frozen=True)
class Case:
    """A kernel, what it is given, and what it shall make of that."""

    text: str
    pointers: tuple[str, ...]
    grid: tuple[int, int, int]
    make: Callable[[np.random.Generator], tuple[list[np.ndarray], list[np.ndarray]]]
    """Arguments, and those as they shall be afterwards."""
    bound: float
    """Largest error, relative to the largest element."""
    faults: tuple[tuple[str, str], ...] = ()
    """Texts, and wrong ones to put in their place."""

    @property
    def name(self) -> str:
        return self.text.split("(")[0].split()[-1]


def bf16(values: np.ndarray) -> np.ndarray:
    """Rounded to nearest, ties to even, as uint16."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def floats(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.uint32) << 16).view(np.float32) if values.dtype == np.uint16 else values


def normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def silu_mul(random: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    x, y, out = bf16(normal(random, 3, 48)), bf16(normal(random, 3, 48)), bf16(np.zeros((3, 48)))
    a = floats(x).astype(np.float64)
    return [sizes(3), x, y, out], [sizes(3), x, y, bf16(a / (1 + np.exp(-a)) * floats(y))]


def add_norm(random: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    x, r, weight = normal(random, 3, 96), normal(random, 3, 96), normal(random, 96)
    total = x + r
    wide = total.astype(np.float64)
    out = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6) * weight
    given = [sizes(3), x, r, weight, np.zeros_like(x), np.zeros_like(x)]
    return given, [*given[:4], total, out.astype(np.float32)]


def product(random: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    x, weight, out = bf16(normal(random, 20, 72)), bf16(normal(random, 40, 72)), np.zeros((20, 40), np.float32)
    return [sizes(20), x, weight, out], [sizes(20), x, weight, floats(x) @ floats(weight).T]


def gather(random: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    table, ids = normal(random, 10, 32), random.integers(0, 10, 12).astype(np.int32)
    return [sizes(12), table, ids, np.zeros((12, 32), np.float32)], [sizes(12), table, ids, table[ids]]


def softmax(random: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    x = normal(random, 5, 32)
    e = np.where(np.tri(5, 32), np.exp(x), 0.0)
    return [sizes(5), x, np.zeros_like(x)], [sizes(5), x, (e / e.sum(-1, keepdims=True)).astype(np.float32)]


def sum_to_tail(random: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    x = normal(random, 100)
    return [sizes(100), x, np.zeros(4, np.float32)], [sizes(100), x, np.array([x.sum(dtype=np.float64), 0, 0, 0])]


def sizes(tokens: int) -> np.ndarray:
    return np.array([tokens, 1, 1, 1, tokens], np.int32)


CASES = {
    case.name: case
    for case in (
        Case(
            kernels.SILU_MUL,
            ("*i32", "*bf16", "*bf16", "*bf16"),
            (5, 1, 1),
            silu_mul,
            2**-8,
            (
                ("if row >= tl.load(sizes):\n        return", "tl.load(sizes)"),
                ("y + row * 48 + column", "y + row * 48 + column + 1"),
                ("column < 48", "column < 49"),
                ("column < 48", "column < 47"),
                ("tl.exp(-a)", "tl.exp(a)"),
                ("1.0 + tl", "1.01 + tl"),
                (".to(tl.bfloat16), mask=inside", ".to(tl.bfloat16)"),
            ),
        ),
        Case(
            kernels.ADD_NORM,
            ("*i32", "*fp32", "*fp32", "*fp32", "*fp32", "*fp32"),
            (3, 1, 1),
            add_norm,
            1e-6,
            (
                ("column < 96", "column < 128"),
                ("/ 96", "/ 128"),
                ("1e-6", "1e-2"),
                ("x + at, mask=inside", "x + at + 16, mask=inside"),
                ("weight + column, mask=inside, other=0.0", "weight + column"),
            ),
        ),
        Case(
            kernels.PRODUCT,
            ("*i32", "*bf16", "*bf16", "*fp32"),
            (2, 2, 1),
            product,
            1e-6,
            (
                ("mask=(row < rows)[:, None] & (k < 72)[None, :]", "mask=(row < rows)[:, None]"),
                ("mask=(row < rows)[:, None] & (k < 72)[None, :]", "mask=(k < 72)[None, :]"),
                ("range(0, 72, 32)", "range(0, 64, 32)"),
                ("(column < 40)[:, None] & (k < 72)[None, :]\n", "(k < 72)[None, :]\n"),
                ("(row < rows)[:, None] & (column < 40)[None, :]\n", "(row < rows)[:, None]\n"),
                ("out + row[:, None] * 40", "out + row[:, None] * 41"),
            ),
        ),
        Case(
            kernels.GATHER,
            ("*i32", "*fp32", "*i32", "*fp32"),
            (2, 1, 1),
            gather,
            0.0,
            (
                ("mask=inside, other=0)", "mask=inside, other=10)"),
                ("index[:, None] * 32", "row[:, None] * 32"),
                ("value, mask=inside[:, None]", "value"),
                ("ids + row, mask=inside, other=0", "ids + row"),
            ),
        ),
        Case(
            kernels.SOFTMAX,
            ("*i32", "*fp32", "*fp32"),
            (1, 1, 1),
            softmax,
            1e-6,
            (
                ("column[None, :] <= row[:, None]", "column[None, :] < row[:, None] + 2"),
                ("tl.sum(value, 1)[:, None]", "(tl.sum(value, 1)[:, None] + 1e-3)"),
                ("x + at, mask=(row < rows)[:, None], other=0.0", "x + at"),
            ),
        ),
        Case(
            kernels.SUM_TO_TAIL,
            ("*i32", "*fp32", "*fp32"),
            (1, 1, 1),
            sum_to_tail,
            1e-6,
            (
                ("other=0.0", "other=1e-3"),
                (", mask=at < tl.load(sizes), other=0.0", ""),
                (", other=0.0", ""),
                ("tl.load(sizes), 64", "tl.load(sizes) - 40, 64"),
            ),
        ),
    )
}


def run(case: Case, text: str, work: Path) -> None:
    """AssertionError where the kernel of this text does not do what the case's does."""
    path = work / f"{case.name}.py"
    path.write_text(HEADING + text.lstrip())
    function = function_in(path, case.name)
    signature = dict(zip(function.arg_names, case.pointers, strict=True))
    ttir = make_ttir(function, signature, attrs={(index,): ALIGNED for index in range(len(signature))})
    given, expected = case.make(np.random.default_rng(0))
    run_ir(lower_ttir(ttir, case.name), given, case.grid)
    for name, found, wanted in zip(signature, given, expected, strict=True):
        a, b = floats(found).astype(np.float64), floats(wanted).astype(np.float64)
        error = np.abs(a - b).max()
        assert error <= case.bound * np.abs(b).max(), f"{name}: error {error}"


@pytest.mark.parametrize("name", CASES)
def test_the_ir_computes_what_its_kernel_says(name: str, tmp_path: Path):
    run(CASES[name], CASES[name].text, tmp_path)


@pytest.mark.parametrize(
    ("name", "right", "wrong"), [(case.name, *fault) for case in CASES.values() for fault in case.faults]
)
def test_a_fault_of_a_kernel_is_noticed(name: str, right: str, wrong: str, tmp_path: Path):
    text = CASES[name].text
    assert right in text
    with pytest.raises(AssertionError):
        run(CASES[name], text.replace(right, wrong), tmp_path)


def test_reading_beyond_the_end_is_noticed_though_no_number_shows_it(tmp_path: Path):
    """The rows too many are masked at the store, so only the guard page tells."""
    text = kernels.SOFTMAX.replace("x + at, mask=(row < rows)[:, None], other=0.0", "x + at")
    with pytest.raises(ForeignMemoryError):
        run(CASES["softmax"], text, tmp_path)


def test_reading_before_the_beginning_is_noticed(tmp_path: Path):
    text = kernels.GATHER.replace("other=0)", "other=-1)")
    with pytest.raises(ForeignMemoryError):
        run(CASES["gather"], text, tmp_path)


def test_programs_that_need_an_order_are_noticed(tmp_path: Path):
    text = "def chained(sizes, out):\n    at = tl.program_id(0)\n    tl.store(out + at + 1, tl.load(out + at) + 1.0)\n"
    case = Case(text, ("*i32", "*fp32"), (3, 1, 1), lambda random: ([sizes(1), np.zeros(4, np.float32)], []), 0.0)
    with pytest.raises(AssertionError, match="order of programs"):
        run(case, text, tmp_path)
