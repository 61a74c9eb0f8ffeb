"""Runs a generated module (``codegen/ascend/graph``) on an NPU, its steps captured as NPUGraphs.

This has never run on an NPU. Tests run it on the CPU against a double of ``torch.npu`` that records what is captured
and computes it again on replay; what they show is the order of calls, and that nothing of a step is baked into a graph.
"""

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from ..artifact.errors import ArtifactError, OptionError
from .padding import Arrays, Filled, Sizes, filled, padding_alone, sizes_of

MOST_ELEMENTS = 2**31 - 1
"""Of one cache: attention's operator counts them with 32 bits."""


class Captured(NamedTuple):
    graph: Any
    """torch.npu.NPUGraph"""
    logits: torch.Tensor
    """Where a replay leaves them."""


def load_model(file: Path) -> ModuleType:
    """The generated module of an engine. ArtifactError where the engine has none, or it is damaged."""
    spec = importlib.util.spec_from_file_location("xllmc_ascend_model", file)
    assert spec is not None and spec.loader is not None
    model = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(model)
    except (OSError, SyntaxError) as error:
        raise ArtifactError(f"the engine's torch_npu module cannot be loaded: {error}; compile it again") from error
    return model


def npu() -> Any:
    """``torch.npu``. OptionError where torch_npu is not installed, or finds no CANN."""
    try:
        import_module("torch_npu")
    except ImportError as error:
        raise OptionError(
            f"an engine for Ascend requires torch_npu 2.13 and CANN on this machine, got: {error}; "
            "install them, or compile for --target cpu"
        ) from error
    return torch.npu  # type: ignore[attr-defined]


class GraphExecutor:
    """One model on one NPU. Steps run one at a time.

    A step runs under the first of ``keys`` that holds it: its inputs are padded into buffers whose addresses never
    change, and the graph is replayed. The lengths of sequences are no tensors but arguments that the host gives to
    attention's operator, so before each replay the graph's operators are told the new ones. A step that no key holds
    runs uncaptured.
    """

    def __init__(
        self,
        model: ModuleType,
        stored: Mapping[str, torch.Tensor],
        pages: Sequence[int],
        columns: int,
        keys: Iterable[Sizes],
        device: str = "npu",
        runtime: Any = None,
    ) -> None:
        """``stored``: the engine's weights. ``pages``: of each state group, of ``model.PAGE_TOKENS`` positions each.
        ``columns``: of block tables. ``runtime``: ``torch.npu``, or what stands for it.
        """
        self._npu = runtime or npu()
        self._model, self._device, self._columns = model, device, columns
        self._spare = {str(group): count for group, count in enumerate(pages)}
        self._keys = tuple(sorted(keys))
        for key in self._keys:
            if key.tokens > key.sequences * key.most or min(key) < 1 or key.most > columns * model.PAGE_TOKENS:
                raise OptionError(
                    f"a graph of {key} has too few sequences for its tokens, nothing at all, or longer sequences than "
                    f"{columns} pages of {model.PAGE_TOKENS} hold; give it other sizes"
                )
        self._weights = self._prepared(stored)
        self._caches = {name: self._cache(shape, pages) for name, shape in model.CACHES.items()}
        largest = Sizes(*map(max, zip(*self._keys, strict=True))) if self._keys else None
        self._buffers = self._allocated(largest) if largest else {}
        self._pool = self._npu.graph_pool_handle()
        # The largest first, so that the pool grows once.
        self._graphs = {key: self._captured(key) for key in reversed(self._keys)}

    def run(self, step: Arrays) -> torch.Tensor:
        """The logits, float32 [R, V] on the device, valid until the next run. ``step``: inputs of ``forward``."""
        real = sizes_of(step)
        key = next((key for key in self._keys if key.holds(real)), None)
        if key is None:
            made = self._filled(step, real)
            inputs = {name: torch.from_numpy(made.arrays[name]).to(self._device) for name in self._model.INPUTS}
            return self._forward(inputs, made, real.most)
        made = self._filled(step, key)
        self._fill(made)
        captured = self._graphs[key]
        lengths = {"actual_seq_lengths": made.query_ends, "actual_seq_lengths_kv": made.kv_lengths}
        captured.graph.update(cpu_update_input=[lengths])
        captured.graph.replay()
        return captured.logits[: real.rows]

    def update_weights(self, stored: Mapping[str, torch.Tensor]) -> None:
        """Take other weights, of the same names and shapes, into the memory that graphs read."""
        for name, weight in self._prepared(stored).items():
            self._weights[name].copy_(weight)

    def close(self) -> None:
        """Give the graphs back."""
        for captured in self._graphs.values():
            captured.graph.reset()
        self._graphs = {}
        self._keys = ()

    def _prepared(self, stored: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        moved = {name: weight.to(self._device, copy=True) for name, weight in stored.items()}
        return dict(self._model.prepare(moved, self._device))

    def _cache(self, shape: Any, pages: Sequence[int]) -> Any:
        """Zeros, and one page more than asked for: padding writes there."""
        count = pages[shape.group] + 1
        sizes = [(count, self._model.PAGE_TOKENS, shape.kv_heads, dim) for dim in (shape.key_dim, shape.value_dim)]
        if max(int(np.prod(size)) for size in sizes) > MOST_ELEMENTS:
            raise OptionError(f"a layer's cache has at most 2**31 - 1 elements, got pages of {sizes[0]}; ask for fewer")
        return self._model.Pages(*(torch.zeros(size, dtype=shape.dtype, device=self._device) for size in sizes))

    def _allocated(self, sizes: Sizes) -> dict[str, torch.Tensor]:
        known = {"T": sizes.tokens, "S": sizes.sequences, "S+1": sizes.sequences + 1, "R": sizes.rows}
        known["B"] = self._columns
        return {
            name: torch.zeros([n if isinstance(n, int) else known[n] for n in shape], dtype=dtype, device=self._device)
            for name, (dtype, shape) in self._model.INPUTS.items()
        }

    def _captured(self, key: Sizes) -> Captured:
        _, (*_, words) = self._model.INPUTS.get("ancestors", (torch.int32, (0,)))
        made = padding_alone(key, self._columns, self._model.PAGE_TOKENS, self._spare, words)
        inputs = self._fill(made)
        self._forward(inputs, made, key.most)  # whatever a first call allocates or compiles must not be captured
        self._npu.synchronize()
        graph = self._npu.NPUGraph()
        with self._npu.graph(graph, pool=self._pool, auto_dispatch_capture=True):
            logits = self._forward(inputs, made, key.most)
        return Captured(graph, logits)

    def _filled(self, step: Arrays, sizes: Sizes) -> Filled:
        return filled(step, sizes, self._columns, self._model.PAGE_TOKENS, self._spare)

    def _forward(self, inputs: Mapping[str, torch.Tensor], made: Filled, most: int) -> torch.Tensor:
        with torch.inference_mode():
            step = self._model.Step(inputs, made.query_ends, made.kv_lengths, most)
            logits: torch.Tensor = self._model.forward(self._weights, self._caches, step)["logits"]
        return logits

    def _fill(self, made: Filled) -> dict[str, torch.Tensor]:
        """Copy the step into the buffers; returns the parts of them that it fills."""
        parts = {name: self._buffers[name][: len(made.arrays[name])] for name in self._model.INPUTS}
        for name, part in parts.items():
            part.copy_(torch.from_numpy(made.arrays[name]))
        return parts
