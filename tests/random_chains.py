"""Random graphs of pointwise ops, row reductions and moves along a row, as text."""

from hypothesis import strategies as st

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
def chain_functions(draw: st.DrawFn, dtypes: tuple[str, ...]) -> tuple[str, str, int]:
    """Text of a function of several chains, its dtype and the width of its inputs."""
    dtype = draw(st.sampled_from(dtypes))
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
