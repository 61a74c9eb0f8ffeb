"""A plan over device memory: every pointer of every launch, under every key, has an address."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from cuda.bindings import driver

from ..artifact.dtypes import ITEM_BYTES, numpy_dtype
from ..artifact.schema import FunctionPlan
from ..backend import RESULTS
from ..opening import Opening
from ..plan import FIXED
from .calls import call
from .device import Device
from .growing import GrowingInput
from .keys import Key, counts, forward_keys
from .launches import BoundLaunch, bind, load_kernels
from .layout import Layout, Span, fixed_layout, grows, key_layout
from .weight_memory import WeightMemory

Graph = tuple[str, Key]
"""What is captured as one: a function, under a key."""


class DevicePlan:
    """Kernels, weights, buffers and inputs of an engine. States are added with ``place_states``."""

    def __init__(self, opening: Opening, device: Device) -> None:
        """Raises ArtifactError, OptionError."""
        plan, capacities = opening.plan, opening.capacities
        self.functions: Mapping[str, FunctionPlan] = {function.name: function for function in plan.functions}
        self.keys = forward_keys(capacities)
        self.row_keys = tuple(Key(rows, rows, rows, 1) for rows in counts(capacities.rows))
        """Of the functions after forward, which follow the number of rows alone."""
        self._columns = capacities.table_columns
        self._kernels = load_kernels(device, opening.root, plan.device_kernels)
        self.weights = WeightMemory(device, opening.manifest)
        self._addresses = {("weight", name): address for name, address in self.weights.addresses.items()}
        arenas = {
            name: device.allocate(unit * capacities.of(name), "the buffers of a step")
            for name, unit in plan.arenas.items()
        }
        for buffer in plan.buffers:
            arena = buffer.scale or FIXED
            self._addresses["buffer", buffer.name] = arenas[arena] + buffer.offset * capacities.of(arena)
        entries = [(f.name, entry) for f in plan.functions for entry in f.inputs]
        self.dtypes = {(name, entry.name): numpy_dtype(entry.dtype) for name, entry in entries}
        vocabulary = opening.manifest.model.vocab_size
        most = {
            "history": capacities.rows * opening.manifest.model.max_context * 4,
            "bitmask": capacities.rows * -(-vocabulary // 32) * 4,
        }
        self.growing = {
            (name, entry.name): GrowingInput(
                device, entry.name, most.get(entry.name, capacities.rows * vocabulary * ITEM_BYTES[entry.dtype])
            )
            for name, entry in entries
            if grows(entry)
        }
        after = [function for function in plan.functions if function.name != "forward"]
        fixed = fixed_layout(after, self.row_keys[-1], self._columns)
        self.layouts: Mapping[Key, Layout] = {
            key: key_layout(fixed, self.functions["forward"], key, self._columns) for key in self.keys
        }
        size = max(layout.size for layout in self.layouts.values())
        self._inputs = device.allocate(size, "the inputs of a step")
        self._staging = device.pinned(size, "the inputs of a step")
        self._staging_address = int(self._staging.ctypes.data)

    def place_states(self, addresses: Mapping[str, int]) -> None:
        """Tell where each state's first page lies."""
        self._addresses |= {("state", name): address for name, address in addresses.items()}

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """All that are captured."""
        return tuple((name, key) for name in RESULTS for key in (self.keys if name == "forward" else self.row_keys))

    def launches(self, graph: Graph) -> list[BoundLaunch]:
        """In order; raises ArtifactError for what no device can be told."""
        name, key = graph
        layout = self.layouts[key if name == "forward" else self.keys[-1]]
        addresses = self._addresses | {
            ("input", f"{function}:{entry}") if function else ("sizes", ""): self._inputs + span.start
            for (function, entry), span in layout.spans.items()
        }
        addresses |= {("input", f"{f}:{entry}"): memory.address for (f, entry), memory in self.growing.items()}
        return bind(self.functions[name], self._kernels, key.sizes(self._columns), addresses)

    def output(self, function: str, name: str) -> int:
        """The address of a result."""
        return self._addresses["buffer", self.functions[function].outputs[name]]

    def outputs(self, function: str) -> dict[str, int]:
        """Addresses of what StepOutput has of a function."""
        return {result.output: self.output(function, result.output) for result in RESULTS[function]}

    def stage(self, packed: np.ndarray, spans: Iterable[Span]) -> None:
        """Put these parts of a step's inputs where ``send`` reads them."""
        for start, stop in spans:
            self._staging[start:stop] = packed[start:stop]

    def send(self, span: Span, stream: Any) -> None:
        """Copy a part of the staged inputs to the device, or capture that."""
        start, stop = span
        call(driver.cuMemcpyHtoDAsync, self._inputs + start, self._staging_address + start, stop - start, stream)
