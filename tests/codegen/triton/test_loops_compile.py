"""Generated loops and copies compile for every architecture at real models' sizes, and nothing of them is spilled."""

import pytest
from xllmc.codegen.triton.architecture import ARCHITECTURES

from tests.codegen.triton.compiling import compile_all
from tests.codegen.triton.lowered_stage import for_device
from tests.programs import program

BODIES = {
    "gated": (
        "%x: bf16[T, 12288], %z: bf16[T, 12288]",
        "%a: bf16[T, 12288] = gelu_erf(%x)\n%y: bf16[T, 12288] = mul(%a, %z)",
    ),
    "two_norms": (
        "%x: f16[T, 2304], %z: f16[T, 2304]",
        "%n: f16[T, 2304] = rms_norm(%x, @w, eps=1e-06)\n%a: f16[T, 2304] = add(%n, %z)\n"
        "%y: f16[T, 2304] = rms_norm(%a, @w, eps=1e-06)",
    ),
    "walked": (
        "%x: bf16[T, 14336]",
        "%n: bf16[T, 14336] = rms_norm(%x, @w, eps=1e-06)\n%e: bf16[T, 14336] = exp(%n)\n"
        "%m: bf16[T, 1] = amax(%e)\n%y: bf16[T, 14336] = div(%e, %m)",
    ),
    "rotated": (
        "%x: bf16[T, 32, 128], %c: f32[T, 1, 128]",
        "%l: bf16[T, 32, 64] = slice(%x, axis=2, start=0, stop=64)\n"
        "%h: bf16[T, 32, 64] = slice(%x, axis=2, start=64, stop=128)\n%n: bf16[T, 32, 64] = neg(%h)\n"
        "%r: bf16[T, 32, 128] = concat(%n, %l, axis=2)\n%f: f32[T, 32, 128] = cast(%r, dtype=\"f32\")\n"
        "%p: f32[T, 32, 128] = mul(%f, %c)\n%y: f32[T, 32, 128] = pow(%p, exponent=1.7)",
    ),
    "softcap": (
        "%x: f32[R, 151936]",
        "%d: f32[R, 151936] = div(%x, 30.0)\n%t: f32[R, 151936] = tanh(%d)\n%y: f32[R, 151936] = mul(%t, 30.0)",
    ),
    "waves": (
        "%x: f32[T, 64]",
        "%s: f32[T, 64] = sin(%x)\n%c: f32[T, 64] = cos(%s)\n%e: f32[T, 64] = erf(%c)\n%l: f32[T, 64] = log(%e)\n"
        "%t: f32[T, 64] = tanh(%l)\n%y: f32[T, 64] = silu(%t)",
    ),
    "joined": ("%x: bf16[T, 32, 128]", "%y: bf16[T, 64, 128] = concat(%x, %x, axis=1)"),
    "sliced": ("%x: f16[T, 4096]", "%y: f16[T, 100] = slice(%x, axis=1, start=7, stop=107)"),
    "turned": ("%x: bf16[T, 32, 128]", "%y: bf16[T, 128, 32] = permute(%x, axes=[0, 2, 1])"),
}  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", BODIES)
def test_kernels_compile_and_spill_nothing(name, architecture, tmp_path):
    inputs, lines = BODIES[name]
    width, dtype = ("2304", "f16") if name == "two_norms" else ("14336", "bf16")
    weights = [f"w [{width}]"] if "@w" in lines else []
    made = program(f"func forward({inputs}) -> (y) {{\n{lines}\nreturn %y\n}}", weights, dtype)
    for compiled in compile_all(for_device(made), architecture, tmp_path):
        assert compiled.kernel.spilled_bytes == 0
        assert compiled.kernel.registers is not None and compiled.kernel.registers <= 64
