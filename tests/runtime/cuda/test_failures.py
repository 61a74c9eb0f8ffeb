"""What fails is told in one line, and gives back what it had."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from xllmc.runtime.artifact.errors import ArtifactError, OptionError
from xllmc.runtime.artifact.schema import Condition, Integer, Plan, Pointer
from xllmc.runtime.engine import Engine

from tests.runtime.cuda.scenarios import (
    absent_function,
    broken_device,
    every_refused_call,
    load_only,
    refusal,
    short_of_memory,
)
from tests.runtime.cuda.stub_driver import Gpu
from tests.runtime.cuda.toy_cuda import cuda_manifest, cuda_plan, write_cuda_toy


def test_a_load_that_fails_at_any_call_gives_back_everything(gpu: Gpu, cuda_toy: Path) -> None:
    log = gpu.play(load_only, cuda_toy, {}).log
    logged = [line["call"] for line in log[: log.index({"mark": "loaded"})] if "call" in line]
    # An error of what frees is passed over: there is nothing to do about it.
    names = [name for name in logged if not any(word in name for word in ("Free", "Destroy"))]
    quiet = ["cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain"]
    quiet += ["cuCtxSetCurrent", "cuStreamCreate", "cuModuleGetFunction", "cuMemGetAllocationGranularity"]
    quiet += ["cuMemSetAccess", "cuEventCreate", "cuEventRecord"]
    said = gpu.play(every_refused_call, cuda_toy, [*names, *quiet]).result
    assert len(said) > 20
    for name, problems in said.items():
        for problem in problems:
            # The wait before buffers are freed is one whose error is passed over.
            assert "\n" not in problem and (problem != "loaded" or name == "cuStreamSynchronize"), f"{name}: {problem}"
    assert all("GB" in problem for name in ("cuMemAlloc", "cuMemCreate") for problem in said[name][::2])


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        (0, "shows no GPU; run it on a machine with an NVIDIA GPU and its driver, or compile it with --target cpu"),
        (89, r"needs a GPU of compute capability 9.0, and Stub 0 has 8.9; compile it with --target cuda:sm_89"),
        (86, "and Stub 0 has 8.6; compile it with --target cuda:sm_80"),
        (100, "and Stub 0 has 10.0; no target is for that one yet"),
    ],
)
def test_another_device_is_refused(gpu: Gpu, cuda_toy: Path, architecture: int, said: str) -> None:
    assert said in gpu.play(refusal, cuda_toy, {}, architecture).result


def test_a_driver_that_lacks_a_function_is_told_of(gpu: Gpu) -> None:
    said = gpu.play(absent_function).result
    assert "does not offer cuStreamQuery" in said and "install a newer one" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [({"isa": "x86-64-v3"}, "isa is for engines of the CPU"), ({"huge_pages": True}, "huge_pages is for engines")],
)
def test_options_of_the_cpu_are_refused(gpu: Gpu, cuda_toy: Path, options: dict[str, object], said: str) -> None:
    assert said in gpu.play(refusal, cuda_toy, options).result


def test_what_does_not_fit_the_device_is_refused(gpu: Gpu, cuda_toy: Path) -> None:
    said = gpu.play(refusal, cuda_toy, {"max_rows": 1 << 20}).result
    assert said.startswith(
        "OptionError: the buffers of a step must have 1.61 GB of device memory, and Stub 0 has 1.07 GB"
    )
    assert "max_rows" in said


def changed(plan: Plan, **changes: object) -> Plan:
    """The first launch of the sampling function, changed."""
    functions = [
        f.model_copy(update={"launches": (f.launches[0].model_copy(update=changes), *f.launches[1:])})
        if f.name == "sample"
        else f
        for f in plan.functions
    ]
    return plan.model_copy(update={"functions": tuple(functions)})


SAMPLE = cuda_plan().functions[1].launches[0]
DAMAGED = {
    "a kernel that is not there": ({"kernel": "other"}, "is of the kernel other, which the engine lacks"),
    "no grid": ({"grid": None}, "has no grid"),
    "a number": ({"operands": (Integer(kind="int", value=1), *SAMPLE.operands[1:])}, "operands that are no pointers"),
    "too few pointers": ({"operands": SAMPLE.operands[1:]}, "gives 10 pointers, and its kernel takes 11"),
    "a size of forward's": ({"when": (Condition(symbol="T"),)}, "follows the size T, and only forward's may"),
    "a buffer that is not there": (
        {"operands": (*SAMPLE.operands[:-1], Pointer(kind="buffer", name="more"))},
        "refers to the buffer more, which the engine lacks",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_plan_is_refused(gpu: Gpu, cubins: Path, tmp_path: Path, damage: str) -> None:
    change, said = DAMAGED[damage]
    engine = write_cuda_toy(tmp_path / "damaged.engine", cubins, changed(cuda_plan(), **change))
    refused = gpu.play(refusal, engine, {}).result
    assert refused.startswith("ArtifactError") and said in refused and "toy_sample of sample" in refused


def test_a_damaged_binary_is_refused(gpu: Gpu, cubins: Path, tmp_path: Path) -> None:
    (tmp_path / "cubins").mkdir()
    for cubin in cubins.glob("*.cubin"):
        (tmp_path / "cubins" / cubin.name).write_bytes(bytes(256) if "sample" in cubin.name else cubin.read_bytes())
    refused = gpu.play(refusal, write_cuda_toy(tmp_path / "damaged.engine", tmp_path / "cubins"), {}).result
    assert "toy_sample.cubin does not give Stub 0 the kernel toy_sample" in refused and "compile" in refused


def test_other_accelerators_are_refused(cubins: Path, tmp_path: Path) -> None:
    engine = write_cuda_toy(tmp_path / "npu.engine", cubins, manifest=cuda_manifest(target="ascend:910b"))
    with pytest.raises(ArtifactError, match="an engine for ascend:910b, which this runtime cannot run"):
        Engine.load(engine)


def test_a_machine_without_a_gpu_is_told_so(cuda_toy: Path) -> None:
    load = f"from xllmc.runtime.engine import Engine; Engine.load({str(cuda_toy)!r})"
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, env=hidden, check=False)
    said = ran.stderr.splitlines()[-1]
    assert "ArtifactError: this engine is for cuda:sm_90" in said and "compile it with --target cpu" in said


def test_what_is_not_installed_is_named(cuda_toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("xllmc.runtime.cuda.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(OptionError, match=r"requires cuda-bindings .*; pip install 'xllmc\[cuda\]'"):
        Engine.load(cuda_toy)


@pytest.mark.parametrize("kernel", ["toy_logits", "toy_sample"])
def test_a_device_that_breaks_is_told_of_and_asked_no_more(
    gpu: Gpu, cuda_toy: Path, toy_library: Path, kernel: str
) -> None:
    said = gpu.play(broken_device, cuda_toy, toy_library, kernel, faults=True).result
    gpu.restart()
    assert len(set(said)) == 1, "the same every time"
    assert "Stub 0 failed while it ran forward (4 kernels from toy_store to toy_logits) and sample" in said[0]
    assert "an illegal memory access was encountered (error 700)" in said[0] and "loaded again" in said[0]


def test_states_that_find_no_memory_end_their_requests_alone(gpu: Gpu, cuda_toy: Path, toy_library: Path) -> None:
    ((said,), made, taken) = gpu.play(short_of_memory, cuda_toy, toy_library, 1 << 20).result
    assert said.startswith("the key-value states must have 0.00 GB of device memory") and "smaller kv_tokens" in said
    assert len(made) == 1 and len(made[0].token_ids) == 60 and taken == 2 * (2 << 20)
