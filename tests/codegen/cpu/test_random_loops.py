"""Whatever pointwise ops and row reductions are put together, the loops they become compute them."""

import tempfile
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from xllmc.compiler.check.compare import relative_error
from xllmc.compiler.ir.interpret import run_function

from tests.lowering import Lowered
from tests.programs import program

TOKENS = 7
UNARY = ("neg", "abs", "tanh", "sigmoid", "relu", "gelu_tanh")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
REDUCTIONS = ("mean", "sum", "amax")


class Chain:
    """A random graph in text form; every value in it is of the same rows, and stays of a moderate size."""

    def __init__(self, draw: st.DrawFn, name: str, dtype: str, width: int) -> None:
        self.draw, self.name, self.dtype = draw, name, dtype
        self.lines: list[str] = []
        self.values = {"%x": width, "%z": width, "%r": 1, "@w": width}
        self.axis = 1

    def emit(self, width: int, text: str) -> None:
        value = f"%{self.name}.{len(self.lines)}"
        self.lines.append(f"  {value}: {self.dtype}[T, {width}] = {text}")
        self.values[value] = width

    def pick(self, width: int | None = None, computed: bool = False) -> str:
        choices = [v for v, w in self.values.items() if width in (None, w) and not (computed and v == "@w")]
        return self.draw(st.sampled_from(choices))

    def grow(self) -> None:
        kind = self.draw(st.sampled_from(["unary", "binary", "binary", "reduce", "slice", "concat"]))
        a = self.pick(computed=True)
        width = self.values[a]
        if kind == "unary":
            self.emit(width, f"{self.draw(st.sampled_from(UNARY))}({a})")
        elif kind == "binary":
            b = self.draw(st.sampled_from(["1.5", *(v for v, w in self.values.items() if w in (1, width))]))
            self.emit(width, f"{self.draw(st.sampled_from(BINARY))}({a}, {b})")
        elif kind == "reduce":
            self.emit(1, f"{self.draw(st.sampled_from(REDUCTIONS))}({a})")
            # A sum that cancels leaves nothing but roundings to compare.
            self.emit(1, f"sigmoid(%{self.name}.{len(self.lines) - 1})")
        elif kind == "slice" and width > 2:
            start = self.draw(st.integers(0, width - 2))
            stop = self.draw(st.integers(start + 1, width))
            self.emit(stop - start, f"slice({a}, axis=1, start={start}, stop={stop})")
        elif kind == "concat":
            b = self.pick(computed=True)
            self.emit(width + self.values[b], f"concat({a}, {b}, axis=1)")


@st.composite
def programs(draw: st.DrawFn) -> tuple[str, str, int]:
    """Text of a function of several chains, its dtype and the width of its inputs."""
    dtype = draw(st.sampled_from(["f32", "bf16"]))
    width = draw(st.sampled_from([3, 16, 19, 70]))
    lines, results = [], []
    for number in range(6):
        chain = Chain(draw, f"c{number}", dtype, width)
        for _ in range(draw(st.integers(2, 9))):
            chain.grow()
        made = [v for v in chain.values if v.startswith("%c")]
        if made:
            lines += chain.lines
            results += draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
    names = ", ".join(f"r{i}" for i in range(len(results)))
    head = f"func forward(%x: {dtype}[T, {width}], %z: {dtype}[T, {width}], %r: {dtype}[T, 1]) -> ({names}) {{"
    return "\n".join([head, *lines, f"  return {', '.join(results)}", "}"]), dtype, width


# Every example is compiled, so few are tried, and a failing one is shown as it came.
@settings(max_examples=4, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(programs())
def test_loops_compute_what_the_interpreter_does(case):
    text, dtype, width = case
    random = torch.Generator().manual_seed(width)
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    inputs = {n: torch.randn(TOKENS, w, generator=random).to(kind) for n, w in (("x", width), ("z", width), ("r", 1))}
    weight = torch.randn(width, generator=random).to(kind)
    with tempfile.TemporaryDirectory() as work:
        lowered = Lowered(program(text, [f"w [{width}]"], dtype), {"w": weight}, Path(work))
        computed = {threads: lowered(inputs, TOKENS, threads) for threads in (1, 2)}
        alone = lowered({n: v[3:4] for n, v in inputs.items()}, 1)
    expected = run_function(lowered.program.forward, inputs, lambda name: weight)
    for name, value in computed[1].items():
        assert relative_error(expected[name], value) <= (2e-5 if dtype == "f32" else 2**-7), name
        assert torch.equal(value.view(torch.uint8), computed[2][name].view(torch.uint8)), name
        assert torch.equal(value[3:4].contiguous().view(torch.uint8), alone[name].view(torch.uint8)), name
