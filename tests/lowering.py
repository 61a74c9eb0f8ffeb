"""Running a small program's forward function on its CPU kernels, without an artifact around it."""

from pathlib import Path

import numpy as np
import torch
from xllmc.codegen.cpu.target import CpuTarget
from xllmc.compiler.ir.program import Program
from xllmc.compiler.pipeline.listing import pass_list
from xllmc.compiler.pipeline.run import run
from xllmc.compiler.target import BuildOptions
from xllmc.runtime.artifact.dtypes import ITEM_BYTES
from xllmc.runtime.library import Kernels
from xllmc.runtime.plan import BoundPlan, Capacities

MOST = Capacities(tokens=64, sequences=4, rows=64, table_columns=4)


class Lowered:
    """A program of tensors only, lowered and loaded; every weight of it is given."""

    def __init__(self, program: Program, weights: dict[str, torch.Tensor], work: Path) -> None:
        target = CpuTarget()
        passes = [one for one in pass_list().passes if isinstance(one, target.passes())]
        self.program, self.reports = run(program, passes)
        bundle = target.emit(self.program, BuildOptions(isa=("native",)), work, lambda what: None)
        (work / "kernels").mkdir()
        for path, library in bundle.libraries.items():
            library.rename(work / path)
        self.source = bundle.sources["kernels/kernels.cpp"]
        self.plan = bundle.plan
        parts = [as_bytes(weights[name]) for name in self.program.weights]
        offsets = np.cumsum([0, *(len(p) for p in parts)])
        self.memory = np.concatenate([np.frombuffer(b"".join(parts), np.uint8), np.zeros(64, np.uint8)])
        kernels = Kernels(work, bundle.kernels[0])
        self.pools = {threads: kernels.create_pool(threads) for threads in (1, 2)}
        named = {name: int(offset) for name, offset in zip(self.program.weights, offsets, strict=False)}
        self.bound = {n: BoundPlan(bundle.plan, kernels, pool, MOST, named, ()) for n, pool in self.pools.items()}

    def __call__(self, inputs: dict[str, torch.Tensor], tokens: int, threads: int = 1) -> dict[str, torch.Tensor]:
        """Results of the forward function by name."""
        plan = self.bound[threads]
        plan.set_weights(self.memory)
        plan.set_sizes(tokens, 1, tokens, 1)
        for name, value in inputs.items():
            carrier = value.view(torch.uint16) if value.dtype == torch.bfloat16 else value
            plan.give("forward", name, carrier.numpy())
        plan.run("forward")
        results = {}
        forward = self.program.forward
        for name, node in zip(forward.results, forward.outputs, strict=True):
            kind = node.meta["type"]
            shape = (tokens, *kind.shape[1:])
            count = int(np.prod(shape)) * ITEM_BYTES[kind.dtype]
            raw = plan.output("forward", name, (count,), "u8").copy()
            results[name] = torch.from_numpy(raw).view(kind.torch_dtype).reshape(shape)
        return results


def as_bytes(value: torch.Tensor) -> bytes:
    return value.contiguous().view(torch.uint8).numpy().tobytes()
