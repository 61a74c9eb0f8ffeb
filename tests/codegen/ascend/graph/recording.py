"""A double of ``torch.npu`` that captures what torch calls, and computes it again, on the same memory, on replay."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: "NPUGraph") -> None:
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        result = func(*args, **kwargs)
        copied = {name: list(v) if isinstance(v, list) else v for name, v in kwargs.items()}
        self.graph.calls.append((func, args, copied, result))
        return result


class NPUGraph:
    """As torch_npu's, as far as it is used: what is captured is told other lengths, replayed, and reset."""

    def __init__(self, log: list[str]) -> None:
        self.calls: list[tuple] = []
        self._log = log

    def update(self, cpu_update_input: list[dict[str, list[int]]]) -> None:
        """Of attention's operator alone, and only of keywords it was captured with, as torch_npu does."""
        self._log.append("update")
        (given,) = cpu_update_input
        for func, _, kwargs, _ in self.calls:
            if func.__name__.startswith("npu_fused_infer_attention_score"):
                kwargs.update({name: list(value) for name, value in given.items() if name in kwargs})

    @torch.inference_mode()
    def replay(self) -> None:
        self._log.append("replay")
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    def reset(self) -> None:
        self._log.append("reset")
        self.calls = []

    def operands(self) -> set[int]:
        """Addresses of the tensors that calls read or write."""
        leaves = [leaf for _, args, kwargs, _ in self.calls for leaf in tree_leaves((args, kwargs))]
        return {leaf.data_ptr() for leaf in leaves if isinstance(leaf, torch.Tensor)}


class RecordingNpu:
    """``torch.npu``. ``log``: what was called, in order; ``graphs``: in the order of their capture."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.graphs: list[NPUGraph] = []

    def graph_pool_handle(self) -> str:
        self.log.append("pool")
        return "the pool"

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def NPUGraph(self) -> NPUGraph:
        self.graphs.append(NPUGraph(self.log))
        return self.graphs[-1]

    @contextmanager
    def graph(self, graph: NPUGraph, pool: str, auto_dispatch_capture: bool) -> Iterator[None]:
        assert pool == "the pool"
        assert auto_dispatch_capture, "lengths could not be told to the graph"
        self.log.append("capture")
        with _Recorder(graph):
            yield
        self.log.append("captured")
