"""The toy engine of ``tests/runtime/toy.py`` for a GPU: the same plan with grids, cubins whose entries have the right
parameters and do nothing, and, behind the stub, the CPU's kernels on what the stub calls device memory.
"""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from xllmc.runtime.artifact.schema import (
    Axis,
    BufferEntry,
    Condition,
    DeviceKernel,
    KernelLibrary,
    Launch,
    Manifest,
    Plan,
    Pointer,
    Term,
)
from xllmc.runtime.artifact.writer import write_engine
from xllmc.runtime.library import INTEGER, LAUNCH, OPERAND, POINTER, Kernels
from xllmc.runtime.sampling import SAMPLING_ROW

from tests.runtime.toy import ISA, VOCAB, WEIGHTS, WINDOW, checkpoint, packed, tokenizer_json, toy_manifest, toy_plan

ROWS_KERNEL = "toy_logits_rows"
KERNELS: dict[str, tuple[str, ...]] = {
    "toy_store": ("sizes", "token_ids", "values", "slots", "state"),
    "toy_logits": ("sizes", "positions", "starts", "rows", "table", "state", "coefficients", "logits"),
    "toy_logits_window": ("sizes", "positions", "starts", "rows", "table", "state", "coefficients", "logits"),
    ROWS_KERNEL: ("sizes", "positions", "starts", "rows", "table", "state", "coefficients", "logits"),
    "toy_sample": (
        *("sizes", "logits", "rows", "history", "bias_ids", "bias_values", "bitmask"),
        *("token", "logprobs", "top_ids", "top_values"),
    ),
    "toy_score": ("sizes", "logits", "targets", "logprob"),
}
SHARED = 64 << 10
"""Of the sampler: more than a kernel has unasked."""
FEW = 8
"""Tokens up to which another kernel computes the logits."""


def compile_cubins(directory: Path, capability: int = 90) -> None:
    """``directory/<kernel>.cubin`` of every kernel."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    lines = ["import triton", "import triton.language as tl", ""]
    for name, parameters in KERNELS.items():
        body = f"    tl.store({parameters[-1]} + tl.program_id(0), tl.load(sizes))"
        lines += ["", "@triton.jit", f"def {name}({', '.join(parameters)}):", body, ""]
    (directory / "toy_kernels.py").write_text("\n".join(lines))
    spec: dict[str, Any] = {"__name__": "toy_kernels", "__file__": str(directory / "toy_kernels.py")}
    module = _imported(directory / "toy_kernels.py", spec)
    for name, parameters in KERNELS.items():
        source = ASTSource(
            fn=getattr(module, name),
            signature=dict.fromkeys(parameters, "*i32"),
            constexprs={},
            attrs={(i,): [["tt.divisibility", 16]] for i in range(len(parameters))},
        )
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4})
        (directory / f"{name}.cubin").write_bytes(made.asm["cubin"])


def _imported(path: Path, spec: dict[str, Any]) -> Any:
    from importlib.util import module_from_spec, spec_from_file_location

    found = spec_from_file_location(spec["__name__"], path)
    assert found is not None and found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _axis(symbol: str, divisor: int = 1) -> Axis:
    return (Term.model_validate({"symbol": symbol, "divisor": divisor}),)


ONE: Axis = (Term(),)


def cuda_plan() -> Plan:
    """The toy's plan: logits by one kernel for few tokens, and by another for many."""
    plan = toy_plan()
    sizes = {"logits": 1088, "token": 64, "logprobs": 64, "top_ids": 128, "top_values": 128, "logprob": 64}
    offsets = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    functions = []
    for function in plan.functions:
        launches = [launch for old in function.launches for launch in _launches(old)]
        inputs = tuple(
            entry.model_copy(update={"shape": ("R", SAMPLING_ROW.itemsize)}) if entry.name == "rows" else entry
            for entry in function.inputs
        )
        functions.append(function.model_copy(update={"launches": tuple(launches), "inputs": inputs}))
    return Plan(
        arenas={"R": sum(sizes.values())},
        buffers=tuple(BufferEntry(name=n, scale="R", offset=offsets[n], bytes=b) for n, b in sizes.items()),
        functions=tuple(functions),
        device_kernels=tuple(
            DeviceKernel(
                name=name,
                path=f"kernels/{name}.cubin",
                symbol=name,
                parameters=parameters,
                warps=4,
                shared_bytes=SHARED if name == "toy_sample" else 0,
            )
            for name, parameters in KERNELS.items()
        ),
    )


def _launches(old: Launch) -> list[Launch]:
    pointers = (Pointer(kind="sizes", name=""), *(o for o in old.operands if isinstance(o, Pointer)))
    window = any(isinstance(o, Pointer) and o.name == "window" for o in old.operands)
    grid = (_axis("T", 16), ONE, ONE) if old.kernel == "toy_store" else (_axis("R"), ONE, ONE)
    made = old.model_copy(update={"operands": pointers, "grid": grid})
    if old.kernel != "toy_logits":
        return [made]
    if window:
        return [made.model_copy(update={"kernel": "toy_logits_window"})]
    few = made.model_copy(update={"when": (Condition(symbol="T", most=FEW),), "origin": "toy_logits/few"})
    many = made.model_copy(update={"kernel": ROWS_KERNEL, "when": (Condition(symbol="T", least=FEW + 1),)})
    return [few, many]


def cuda_manifest(**changes: Any) -> Manifest:
    return toy_manifest().model_copy(update={"target": "cuda:sm_90", "kernels": (), **changes})


def write_cuda_toy(path: Path, cubins: Path, plan: Plan | None = None, manifest: Manifest | None = None) -> Path:
    """Publish the toy engine for a GPU at ``path``."""
    manifest = manifest or cuda_manifest()
    tensors = packed(checkpoint(0))
    with write_engine(path) as writer:
        for name in KERNELS:
            writer.add_file(f"kernels/{name}.cubin", cubins / f"{name}.cubin")
        writer.add_text("graph/traced.txt", "toy graph\n")
        writer.add_text("tokenizer/tokenizer.json", tokenizer_json())
        stored = [e for e in WEIGHTS if manifest.random_weights is None or e.recipe is None]
        writer.add_weights(stored, lambda entry: tensors[entry.name])
        writer.finish(manifest, plan or cuda_plan())
    return path


class CpuKernels:
    """The CPU's toy kernels, run on addresses."""

    def __init__(self, library: Path) -> None:
        """``library``: of ``tests.runtime.toy.compile_kernels``."""
        self._kernels = Kernels(library.parent, KernelLibrary(isa=ISA, path=library.name, glibc="2.17"))
        self._pool = self._kernels.create_pool(1)
        self.run_sizes: list[tuple[str, list[int], tuple[int, int, int]]] = []
        """Kernel, sizes and grid of every launch that ran."""

    def __call__(self, name: str, arguments: list[int], grid: tuple[int, int, int]) -> None:
        sizes = (ctypes.c_int32 * 5).from_address(arguments[0])
        tokens, sequences, rows, columns, _ = sizes
        self.run_sizes.append((name, list(sizes), grid))
        pointers = arguments[1:-2]
        match name:
            case "toy_store":
                self._run("toy_store", pointers, [tokens])
            case "toy_logits" | "toy_logits_rows":
                self._run("toy_logits", pointers, [rows, sequences, columns, VOCAB, 0, 0])
            case "toy_logits_window":
                self._run("toy_logits", pointers, [rows, sequences, columns, VOCAB, WINDOW, 1])
            case "toy_sample" | "toy_score":
                self._run(name, pointers, [rows, VOCAB])

    def _run(self, kernel: str, pointers: list[int], integers: list[int]) -> None:
        operands = np.zeros(len(pointers) + len(integers), OPERAND)
        operands["kind"] = [POINTER] * len(pointers) + [INTEGER] * len(integers)
        operands["value"] = np.array(pointers + integers, np.uint64).view(np.int64)
        launches = np.zeros(1, LAUNCH)
        launches[0] = (self._kernels.address(kernel), operands.ctypes.data, len(operands), 0)
        self._pool.run(launches, np.zeros(1, np.uint64), np.zeros(4, np.int64))
