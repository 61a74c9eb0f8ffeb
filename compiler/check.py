"""Compare what a pass put in with what stood there, on sample inputs, with the ops' references."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ..runtime.artifact.recipe import Tensor
from .ir.dims import whole
from .ir.interpret import run_graph
from .ir.op import Op
from .ir.region import Region
from .ir.types import DTYPE_NAMES, PagedType, TensorType
from .ir.widen import NARROW, widened
from .ops.attention import PagedCache
from .samples import Samples

SLACK = 4
"""Roundings a replaced region may differ by, in units of its ops' tolerances."""

LARGE = 1 << 24
"""Weight elements beyond which a region is run on one sample, not two: an output head takes a second each time."""


@dataclass(frozen=True)
class Mismatch:
    where: str
    error: float
    """Largest difference, relative to the largest magnitude in its row."""
    allowed: float
    reproducer: str

    def __str__(self) -> str:
        return f"{self.where}: relative error {self.error:.3g}, allowed {self.allowed:.3g}"


def compare(region: Region, constants: dict[str, Tensor], exact: bool) -> Mismatch | None:
    """The first sample on which the two sides disagree, or None.

    A region of narrow floats is compared twice: as it is, within their roundings, and with float32 in their place,
    where a factor that is a percent off has nowhere to hide.
    """
    forms = [(region.old, region.new)]
    if any(_dtypes(graph) & set(NARROW) for graph in forms[0]):
        forms.append((widened(region.old), widened(region.new)))
    for old, new in forms:
        for samples in _samples(region):
            inputs = [
                _input(samples, i, name, node, region, constants)
                for i, (name, node) in enumerate(zip(region.inputs, _placeholders(old), strict=True))
            ]
            before = _tensors(run_graph(old, [_own(i) for i in inputs]))
            after = _tensors(run_graph(new, [_own(i) for i in inputs]))
            for a, b in zip(before, after, strict=True):
                error, allowed = relative_error(a, b), _allowed(old, new, b, exact)
                if not error <= allowed:
                    return Mismatch(region.where, error, allowed, region.key)
    return None


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
    return float((difference / scale.clamp_min(1e-30)).max())


def _samples(region: Region) -> list[Samples]:
    if _all_pointwise(region):
        return [Samples(0), Samples(1), Samples(2, infinite=True)]
    weights = sum(whole(w.type.elements) for w in region.weights.values())
    samples = [Samples(0)] if weights > LARGE else [Samples(0), Samples(1)]
    # A cache has few pages, and a table of positions ends somewhere; nothing else minds where a token stands.
    near = any(isinstance(n.meta["type"], PagedType) for n in _placeholders(region.old)) or any(
        o.name == "embedding" for o in _ops(region.old)
    )
    return samples if near else [*samples, Samples(3, far=True)]


def _placeholders(graph: fx.Graph) -> list[fx.Node]:
    return [n for n in graph.nodes if n.op == "placeholder"]


def _input(samples: Samples, index: int, name: str, node: fx.Node, region: Region, constants: dict[str, Tensor]) -> Any:
    kind = node.meta["type"]
    if name.startswith("@"):
        return samples.weight(region.weights[name[1:]], constants).to(kind.torch_dtype)
    if isinstance(kind, PagedType):
        return samples.state(name, kind)
    known = samples.step_input(name, kind)
    return samples.value(f"input_{index}", kind) if known is None else known


def _own(value: Any) -> Any:
    """States are changed by what runs, so each side gets its own."""
    return copy.deepcopy(value) if isinstance(value, PagedCache) else value


def _tensors(values: tuple) -> list[torch.Tensor]:
    out: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, PagedCache):
            out += [value.keys, value.values]
        else:
            out.append(value)
    return out


def _ops(graph: fx.Graph) -> list[Op]:
    return [n.target for n in graph.nodes if n.op == "call_function"]


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
    narrower = _dtypes(old) & set(NARROW)
    rounded = [o.tolerance.get(d, 0.0) for o in ops for d in ({dtype} | narrower if dtype == "f32" else {dtype})]
    return SLACK * max(rounded, default=0.0)
