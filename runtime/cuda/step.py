"""A step as it is sent to the device: its small inputs packed as the key lays them out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..backend import PreparedStep, StepSizes
from .keys import Key
from .layout import SIZES, SIZES_BYTES, Layout, Span, merged


@dataclass(frozen=True)
class PackedStep(PreparedStep):
    """``inputs`` are views of ``packed``, or arrays of their own where ``packed`` has no place for them."""

    graphs: tuple[tuple[str, Key], ...]
    """That it replays: of each function, for the key that holds it."""
    packed: np.ndarray
    """u8 [layout.size]"""
    spans: tuple[Span, ...]
    """Of it, what has values."""
    loose: tuple[Span, ...]
    """Of these, what the graph does not copy."""
    growing: Mapping[tuple[str, str], np.ndarray]
    """By function and input: what lies elsewhere."""
    pages: tuple[int, ...]
    """Of each state group: how many, from the first on, it may touch."""


def pack(
    sizes: StepSizes,
    values: Mapping[str, Mapping[str, np.ndarray]],
    dtypes: Mapping[tuple[str, str], np.dtype],
    graphs: tuple[tuple[str, Key], ...],
    layout: Layout,
    pages: tuple[int, ...],
) -> PackedStep:
    """``values``: by function and input. ``dtypes``: what kernels read."""
    packed = np.empty(layout.size, np.uint8)
    place = layout.spans["", SIZES].start
    packed[place : place + SIZES_BYTES].view(np.int32)[:] = sizes
    sent = [Span(place, place + SIZES_BYTES)]
    growing: dict[tuple[str, str], np.ndarray] = {}
    inputs: dict[str, dict[str, np.ndarray]] = {}
    for function, arrays in values.items():
        inputs[function] = {}
        for name, given in arrays.items():
            # Records, the rows of ``sample``, are bytes to the kernels.
            array = given.view(np.uint8).reshape(len(given), -1) if given.dtype.names else given
            dtype, span = dtypes[function, name], layout.spans.get((function, name))
            if span is None:
                view = growing[function, name] = np.array(array, dtype, order="C")
            else:
                stop = span.start + array.size * dtype.itemsize
                view = packed[span.start : stop].view(dtype).reshape(array.shape)
                view[...] = array
                sent.append(Span(span.start, stop))
            inputs[function][name] = view
    loose = merged(span for span in sent if span.start >= layout.captured)
    return PackedStep(sizes, inputs, graphs, packed, merged(sent), loose, growing, pages)
