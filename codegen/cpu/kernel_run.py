"""Run one function of a kernel library in a process of its own: ``python -m xllmc.codegen.cpu.kernel_run DIRECTORY``.

The directory holds ``library.json``, ``plan.json`` and, as ``*.npy``, the weights' bytes and the inputs of some runs;
results are written beside them. A kernel that writes where it must not may bring this process down, and no other.
"""

import json
import sys
from pathlib import Path

import numpy as np

from ...runtime.artifact.schema import KernelLibrary, Plan
from ...runtime.library import Kernels
from ...runtime.plan import BoundPlan, Capacities

CANARY = 0xA5
"""What every byte of an arena holds before a run."""
SPARE = 16
"""Tokens and rows beyond those of a run that an arena has room for."""


def main(directory: Path) -> None:
    library = KernelLibrary.model_validate_json((directory / "library.json").read_text())
    plan = Plan.model_validate_json((directory / "plan.json").read_text())
    runs = json.loads((directory / "runs.json").read_text())
    kernels = Kernels(directory, library)
    weights = np.load(directory / "weights.npy")
    for run in runs:
        for threads in (1, 2):
            pool = kernels.create_pool(threads)
            sizes = run["sizes"]
            most = Capacities(sizes["T"] + SPARE, sizes["S"] + SPARE, sizes["R"] + SPARE, sizes["B"] + SPARE)
            bound = BoundPlan(plan, kernels, pool, most, run["weights"], ())
            for arena in bound.arenas.values():
                arena[:] = CANARY
            bound.set_weights(weights)
            bound.set_sizes(sizes["T"], sizes["S"], sizes["R"], sizes["B"])
            for name in run["inputs"]:
                bound.give("forward", name, np.load(directory / f"{run['name']}.{name}.npy"))
            bound.run("forward")
            for name, count in run["results"].items():
                raw = bound.output("forward", name, (count,), "u8")
                np.save(directory / f"{run['name']}.{threads}.{name}.npy", raw)
                raw[:] = CANARY
            if any((arena != CANARY).any() for arena in bound.arenas.values()):
                sys.exit("it writes beyond its results")
            pool.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
