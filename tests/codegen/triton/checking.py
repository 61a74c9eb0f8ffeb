"""Holding kernels, run by the interpreter, against the references of their ops."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from xllmc.compiler.ir.interpret import run_function
from xllmc.compiler.ir.program import Program, type_of
from xllmc.compiler.ir.types import PagedType, TensorType
from xllmc.compiler.ops.attention import PagedCache
from xllmc.runtime.artifact.pages import PAGE_TOKENS

from tests.codegen.triton.interpreted import Interpreted
from tests.programs import program

BOUNDS = {"f32": 2e-6, "bf16": 2**-7, "f16": 2**-10, "i32": 0.0}
"""Largest error by dtype of the result, relative to its largest element: a rounding of the last place, or sums in
another order."""


def random(kind: TensorType, tokens: int, generator: torch.Generator) -> torch.Tensor:
    """Normal values of the type, its symbols being ``tokens``."""
    shape = [s if isinstance(s, int) else s.factor * tokens for s in kind.shape]
    return torch.randn(shape, generator=generator).to(kind.torch_dtype)


def check_op(
    op: str,
    operands: Sequence[str],
    inputs: Mapping[str, str],
    weights: Mapping[str, str],
    attributes: Mapping[str, Any],
    dtype: str,
    work: Path,
    *,
    tokens: int = 3,
    captured: int | None = None,
    values: Mapping[str, torch.Tensor] | None = None,
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Check one call. ``operands``: ``%input``, ``@weight`` or ``none``, in order; ``inputs``: types, ``f32[T, 16]``;
    ``weights``: sizes, ``[16]``; ``values`` of operands that are not random. Returns the kernel's results.
    """
    words = [f"{name}={_attribute(value)}" for name, value in attributes.items()]
    called = f"{op}({', '.join([*operands, *words])})"
    heading = ", ".join(f"%{name}: {kind}" for name, kind in inputs.items())
    text = f"func forward({heading}) -> (OUT) {{\n  %y: KIND = {called}\n  return %y\n}}"
    made = _typed(text, op, operands, inputs, weights, attributes, dtype)
    return check_program(made, work, tokens=tokens, captured=captured, values=values, **options)


def _typed(
    text: str,
    op: str,
    operands: Sequence[str],
    inputs: Mapping[str, str],
    weights: Mapping[str, str],
    attributes: Mapping[str, Any],
    dtype: str,
) -> Program:
    """The program, with the type of the call's result as the op's own rule gives it."""
    from xllmc.compiler.ir.types import TupleType, parse_type
    from xllmc.compiler.ops import OPS

    kinds = {f"%{n}": parse_type(k) for n, k in inputs.items()}
    kinds |= {f"@{n}": parse_type(dtype + s) for n, s in weights.items()}
    kind = OPS[op].result_type(*(kinds.get(o) for o in operands), **attributes)
    if isinstance(kind, TupleType):
        gets = [f"  %y{i}: {item} = get(%y, index={i})" for i, item in enumerate(kind.items)]
        names = [f"y{i}" for i in range(len(kind.items))]
        text = text.replace("  return %y", "\n".join([*gets, f"  return {', '.join('%' + n for n in names)}"]))
        text = text.replace("OUT", ", ".join(["total", "out"] if len(names) == 2 else names))
    text = text.replace("OUT", "out").replace("KIND", str(kind))
    return program(text, [f"{name} {sizes}" for name, sizes in weights.items()], dtype)


def _attribute(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(list(value)) if isinstance(value, tuple) else repr(value)


def check_program(
    made: Program,
    work: Path,
    *,
    tokens: int = 3,
    captured: int | None = None,
    values: Mapping[str, torch.Tensor] | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
    sizes: Mapping[str, int] | None = None,
    capture: Mapping[str, int] | None = None,
    bounds: Mapping[str, float] | None = None,
    seed: int = 0,
    pages: int = 8,
    states: Mapping[str, PagedCache] | None = None,
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Run ``made`` both ways and compare all results and states. Inputs and weights that are not given are random.

    ``captured``: sizes that the launches are made for, where above ``tokens``. ``states``: what caches hold before the
    step, of ``pages`` pages; none: zeros. Returns the kernels' results.
    """
    generator = torch.Generator().manual_seed(seed)
    given = dict(values or {})
    for node in made.forward.inputs:
        kind = type_of(node)
        if isinstance(kind, TensorType) and str(node.target) not in given:
            given[str(node.target)] = random(kind, tokens, generator)
    stored = dict(weights or {})
    for name, weight in made.weights.items():
        if name not in stored:
            stored[name] = random(weight.type, tokens, generator)
    real = {"T": tokens, "R": tokens, "S": 1, "B": 1, "Q": tokens} | dict(sizes or {})
    key = real | ({"T": captured, "R": captured, "Q": captured} if captured else {}) | dict(capture or {})
    device = Interpreted(made, stored, work, pages=pages, **options)
    caches = {name: empty_cache(kind, pages) for name, kind in made.states.items()}
    for name, held in (states or {}).items():
        caches[name] = PagedCache(held.keys.clone(), held.values.clone())
        device.states[name] = written_pages(held, made.states[name])
    found = device(given, real, key)
    expected = run_function(made.forward, given | caches, stored.__getitem__)
    for name, reference in expected.items():
        if isinstance(reference, torch.Tensor):
            assert_close(found[name], reference, name, bounds)
    for name, cache in caches.items():
        written = read_pages(device.states[name], made.states[name])
        assert_close(written.keys, cache.keys, f"keys of {name}", bounds)
        assert_close(written.values, cache.values, f"values of {name}", bounds)
    return found


def assert_close(
    found: torch.Tensor, expected: torch.Tensor, what: str, bounds: Mapping[str, float] | None = None
) -> None:
    """Within the bound of its dtype, relative to the largest element; infinities and nan where they are expected."""
    from xllmc.compiler.ir.types import DTYPE_NAMES

    assert found.dtype == expected.dtype and found.shape == expected.shape, what
    bound = (BOUNDS | dict(bounds or {}))[DTYPE_NAMES[expected.dtype]]
    a, b = found.double(), expected.double()
    finite = b.isfinite()
    assert torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()), what
    scale = float(b[finite].abs().max()) if finite.any() else 0.0
    error = float((a[finite] - b[finite]).abs().max()) if finite.any() else 0.0
    assert error <= bound * scale, f"{what}: error {error:.3g} where {bound * scale:.3g} is allowed"


def empty_cache(kind: PagedType, pages: int) -> PagedCache:
    from xllmc.compiler.ir.types import TORCH_DTYPES

    slots, dtype = pages * PAGE_TOKENS, TORCH_DTYPES[kind.dtype]
    return PagedCache(
        torch.zeros(slots, kind.kv_heads, kind.key_dim, dtype=dtype),
        torch.zeros(slots, kind.kv_heads, kind.value_dim, dtype=dtype),
    )


def written_pages(cache: PagedCache, kind: PagedType) -> np.ndarray:
    """The pages of a device that hold what the reference does; ``read_pages`` reads them."""

    def heads(part: torch.Tensor) -> torch.Tensor:
        return part.reshape(-1, PAGE_TOKENS, *part.shape[1:]).transpose(1, 2).flatten(1)

    return torch.cat([heads(cache.keys), heads(cache.values)], 1).flatten().view(torch.uint8).numpy()


def read_pages(memory: np.ndarray, kind: PagedType) -> PagedCache:
    """A device's pages (keys, then values, each [kv_heads, page tokens, dim]) as the reference keeps them."""
    from xllmc.compiler.ir.types import TORCH_DTYPES

    items = torch.from_numpy(memory.copy()).view(TORCH_DTYPES[kind.dtype])
    per_page = kind.kv_heads * PAGE_TOKENS * (kind.key_dim + kind.value_dim)
    pages = items.reshape(-1, per_page)
    split = kind.kv_heads * PAGE_TOKENS * kind.key_dim

    def slots(part: torch.Tensor, dim: int) -> torch.Tensor:
        heads = part.reshape(len(pages), kind.kv_heads, PAGE_TOKENS, dim)
        return heads.permute(0, 2, 1, 3).reshape(-1, kind.kv_heads, dim)

    return PagedCache(slots(pages[:, :split], kind.key_dim), slots(pages[:, split:], kind.value_dim))
