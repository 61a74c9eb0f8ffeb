"""Attention compiled ahead of time: it fits, keeps its sums in registers, and loads 16 bytes at a time."""

import re
from pathlib import Path

import pytest
from xllmc.codegen.triton.architecture import ARCHITECTURES
from xllmc.codegen.triton.attention_tiles import Geometry, shared_bytes
from xllmc.codegen.triton.compile import Compiled, compile_cubin
from xllmc.codegen.triton.lower import lower

from tests.codegen.triton.attending import Heads, attention_program

MATRIX = re.compile(r"wgmma\.mma_async\S*\.(m64n\d+k\d+)|mma\.sync\.aligned\.(m\d+n\d+k\d+)")
COPY = re.compile(r"cp\.async\.c[ag]\.shared\.global \[[^\]]*\], \[[^\]]*\], (\w+)")

KEPT_AWAY = 64
"""Bytes of a thread: a few numbers that ptxas stores while the loop runs. Sums would be hundreds."""

LLAMA = Heads(32, 8, 128, 128, "bf16")
GEMMA = Heads(8, 4, 256, 256, "bf16")
CAPPED = {"window": 4096, "softcap": 50.0}


def compiled(
    heads: Heads, architecture: str, work: Path, invariant: bool = False, **options
) -> dict[str, list[Compiled]]:
    """Kernels by the part of the call that they are, each held against its limits."""
    machine = ARCHITECTURES[architecture]
    made = lower(attention_program(heads, context=40_960, **options), machine, invariant)
    launches = {launch.kernel: launch.origin.partition("/")[2] for launch in made.plan.functions[0].launches}
    found: dict[str, list[Compiled]] = {}
    for source in made.sources:
        one = compile_cubin(source, machine, work)
        part = launches[source.name]
        assert one.kernel.spilled_bytes is not None and one.kernel.spilled_bytes <= KEPT_AWAY, (part, source.config)
        if tiles := source.config.tiles:
            shape = Geometry(*heads, trees="words" in options)
            most = shared_bytes(shape, tiles["ROWS"], tiles["BLOCK"], machine)
            assert one.kernel.shared_bytes <= most, (part, source.config)
            assert set(COPY.findall(one.ptx)) == {"0x10"}, "keys are loaded in small pieces"
        found.setdefault(part, []).append(one)
    return found


def instructions(kernel: Compiled) -> set[str]:
    return {a or b for a, b in MATRIX.findall(kernel.ptx)}


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_a_usual_model(architecture: str, tmp_path: Path):
    found = compiled(LLAMA, architecture, tmp_path)
    assert len(found["few"]) == 2 and len(found["some"]) == 1 and len(found["many"]) == 2
    for kernel in found["many"]:
        assert all(name.startswith("m64" if architecture == "sm_90" else "m16") for name in instructions(kernel))
    assert all(instructions(kernel) == {"m16n8k16"} for kernel in found["few"])


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_all_kernels_of_batch_invariant_mode_multiply_with_the_same_instructions(architecture: str, tmp_path: Path):
    found = compiled(LLAMA, architecture, tmp_path, invariant=True)
    one, *others = [*found["few"], *found["some"]]
    assert len(others) == 3 and instructions(one)
    for other in others:
        assert instructions(other) == instructions(one)
        assert other.kernel.warps == one.kernel.warps and other.kernel.config == one.kernel.config


def test_large_heads_fit_the_smallest_shared_memory(tmp_path: Path):
    compiled(GEMMA, "sm_89", tmp_path, **CAPPED)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
@pytest.mark.parametrize(
    ("heads", "options"),
    [
        (Heads(16, 8, 128, 128, "bf16"), {"words": 2}),
        (GEMMA, CAPPED),
        (Heads(16, 8, 64, 64, "f32"), {}),
        (Heads(32, 32, 80, 80, "f16"), {}),
        (Heads(28, 4, 96, 96, "f16"), {"window": 2047}),
        (Heads(71, 1, 64, 64, "bf16"), {}),
    ],
    ids=str,
)
@pytest.mark.parametrize("invariant", [False, True])
def test_other_models(heads: Heads, options: dict, invariant: bool, architecture: str, tmp_path: Path):
    compiled(heads, architecture, tmp_path, invariant, **options)
