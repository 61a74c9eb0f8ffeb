"""Graphs of a few rows, as text, and the annotations and types that rewrites of them share."""

from xllmc.passes.api import Float, Value

Row = Float[Value, "... H"]
ROW = "f32[T, 4]"


def forward(body: str, returned: str = "%y", inputs: str = "%x: f32[T, 4], %z: f32[T, 4]") -> str:
    """A function of these statements, a line each. ``returned``: the values of its results, by comma."""
    lines = "\n".join(f"  {line.strip()}" for line in body.strip().splitlines())
    results = ", ".join(f"r{i}" for i in range(returned.count("%")))
    return f"func forward({inputs}) -> ({results}) {{\n{lines}\n  return {returned}\n}}"
