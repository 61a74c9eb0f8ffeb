"""Compare what a pass put in with what stood there, on sample inputs, with the ops' references."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ...runtime.artifact.recipe import Tensor
from ..ir.dims import whole
from ..ir.interpret import run_graph
from ..ir.op import Op
from ..ir.region import Region
from ..ir.types import DTYPE_NAMES, PagedType, TensorType
from ..ir.widen import NARROW, widened
from ..ops.attention import PagedCache
from .samples import Samples

SLACK = 4
"""Roundings a replaced region may differ by, in units of its ops' tolerances."""

LARGE = 1 << 24
"""Weight elements beyond which a region is run on one sample, not two: an output head takes half a second each time."""


@dataclass(frozen=True)
class Mismatch:
    where: str
    error: float
    """Largest difference, relative to the largest magnitude in its row."""
    allowed: float
    reproducer: str

    def __str__(self) -> str:
        return f"{self.where}: relative error {self.error:.3g}, allowed {self.allowed:.3g}"


def compare(region: Region, constants: dict[str, Tensor], exact: bool = False, lossy: float = 0.0) -> Mismatch | None:
    """The first sample on which the two sides disagree, or None. ``lossy``: a relative error allowed on top.

    A region of narrow floats is compared twice: as it is, within their roundings, and with float32 in their place,
    where a factor that is a percent off has nowhere to hide.
    """
    forms = [(region.old, region.new)]
    same_bits = exact and all(o.traits.same_bits for o in _ops(region.old) + _ops(region.new))
    if not same_bits and any(_dtypes(graph) & set(NARROW) for graph in forms[0]):
        forms.append((widened(region.old), widened(region.new)))
    with _threads(torch.get_num_threads() if _is_large(region) else 1):
        for samples in samples_of(region):
            inputs = inputs_of(region, samples, constants)
            for old, new in forms:
                if old is not region.old:
                    inputs = in_float32(inputs)
                before, after = values_of(old, inputs), values_of(new, inputs)
                for a, b in zip(before, after, strict=True):
                    error, allowed = relative_error(a, b), _allowed(old, new, b, exact) + lossy
                    if not error <= allowed:
                        return Mismatch(region.where, error, allowed, region.key)
    return None


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use so many threads. Over a few tokens they mostly wait for each other, and for whoever else runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _is_large(region: Region) -> bool:
    return sum(whole(w.type.elements) for w in region.weights.values()) > LARGE


def inputs_of(region: Region, samples: Samples, constants: dict[str, Tensor]) -> list[Any]:
    """A value for each placeholder of the region's graphs."""
    placeholders = enumerate(zip(region.inputs, _placeholders(region.old), strict=True))
    return [_input(samples, i, name, node, region, constants) for i, (name, node) in placeholders]


def in_float32(inputs: list[Any]) -> list[Any]:
    """The same numbers for a widened graph."""
    return [_wide(value) for value in inputs]


def values_of(graph: fx.Graph, inputs: list[Any]) -> list[torch.Tensor]:
    """What the graph returns, keys and values of states one by one."""
    return _tensors(run_graph(graph, [_own(value) for value in inputs]))


def relative_error(reference: torch.Tensor, value: torch.Tensor) -> float:
    """The largest difference, relative to the largest finite magnitude in its row; inf where NaN or inf differ."""
    a, b = reference.double(), value.double()
    if a.shape != b.shape:
        return float("inf")
    same = (a == b) | (a.isnan() & b.isnan())
    if same.all():
        return 0.0
    if not (a.isfinite() == b.isfinite()).all() or not (a.isfinite() | same).all():
        return float("inf")
    difference = torch.where(same, 0.0, (a - b).abs())
    scale = torch.where(a.isfinite(), a.abs(), 0.0).amax(-1, keepdim=True) if a.dim() else a.abs()
    # Numbers below the smallest normal one are rounded by absolute amounts.
    least = max(1e-30, torch.finfo(reference.dtype).smallest_normal) if reference.is_floating_point() else 1e-30
    return float((difference / scale.clamp_min(least)).max())


def samples_of(region: Region) -> list[Samples]:
    """The inputs on which the two sides of a region are compared."""
    if _all_pointwise(region):
        return [Samples(0), Samples(1), Samples(2, infinite=True)]
    cached = any(isinstance(n.meta["type"], PagedType) for n in _placeholders(region.old))
    window = max((n.kwargs.get("window", 0) for g in (region.old, region.new) for n in _calls(g)), default=0)
    samples = [Samples(seed, window=window, cached=cached) for seed in ((0,) if _is_large(region) else (0, 1))]
    # A cache has few pages, and a table of positions ends somewhere; nothing else minds where a token stands.
    near = cached or any(o.name == "embedding" for o in _ops(region.old))
    return samples if near or "positions" not in region.inputs else [*samples, Samples(4, far=True)]


def _placeholders(graph: fx.Graph) -> list[fx.Node]:
    return [n for n in graph.nodes if n.op == "placeholder"]


def _input(samples: Samples, index: int, name: str, node: fx.Node, region: Region, constants: dict[str, Tensor]) -> Any:
    kind = node.meta["type"]
    if name.startswith("@"):
        return samples.weight(region.weights[name[1:]], constants).to(kind.torch_dtype)
    known = samples.step_input(name, kind) if isinstance(kind, TensorType) else None
    return samples.any(name or f"input_{index}", kind) if known is None else known


def _wide(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_wide, value))
    if isinstance(value, PagedCache):
        return PagedCache(value.keys.float(), value.values.float())
    return value.float() if DTYPE_NAMES[value.dtype] in NARROW else value


def _own(value: Any) -> Any:
    """States are changed by what runs, so each side gets its own."""
    return value if isinstance(value, torch.Tensor) else copy.deepcopy(value)


def _tensors(values: tuple) -> list[torch.Tensor]:
    out: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, tuple):
            out += _tensors(value)
        elif isinstance(value, PagedCache):
            out += [value.keys, value.values]
        else:
            out.append(value)
    return out


def _calls(graph: fx.Graph) -> list[fx.Node]:
    return [n for n in graph.nodes if n.op == "call_function"]


def _ops(graph: fx.Graph) -> list[Op]:
    return [n.target for n in _calls(graph)]


def _all_pointwise(region: Region) -> bool:
    return all(o.traits.pointwise or o.traits.view for g in (region.old, region.new) for o in _ops(g))


def _dtypes(graph: fx.Graph) -> set[str]:
    return {n.meta["type"].dtype for n in graph.nodes if isinstance(n.meta.get("type"), TensorType | PagedType)}


def _allowed(old: fx.Graph, new: fx.Graph, value: torch.Tensor, exact: bool) -> float:
    """How far a value may be off: nothing, or the roundings of the value's own dtype."""
    ops = _ops(old) + _ops(new)
    if exact and all(o.traits.same_bits for o in ops):
        return 0.0
    dtype = DTYPE_NAMES[value.dtype]
    rounded = [o.tolerance.get(dtype, 0.0) for o in ops]
    if dtype == "f32":  # a narrower value on the way may have been rounded, but not one that only came in
        rounded += [
            n.target.tolerance.get(n.meta["type"].dtype, 0.0)
            for n in _calls(old)
            if isinstance(n.meta["type"], TensorType) and n.meta["type"].dtype in NARROW
        ]
    return SLACK * max(rounded, default=0.0)
