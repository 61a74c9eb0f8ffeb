"""Finding the adapter, and refusing what it does not lower, or not truly."""

import hashlib
import os
import sys
from pathlib import Path

import pytest
from xllmc.codegen.ascend import adapter
from xllmc.codegen.ascend.adapter import find_adapter, lower_ttir
from xllmc.codegen.triton.compile import function_in
from xllmc.codegen.triton.ttir import make_ttir
from xllmc.runtime.artifact.errors import OptionError, XllmcError

from tests.codegen.ascend.adapter.adapted import ALIGNED

HEADING = (
    "import triton\nimport triton.language as tl\nfrom triton.language.extra import libdevice\n\n\n"
    "@triton.jit\ndef kernel(x, out):\n    at = tl.arange(0, 64)\n"
)


def ttir_of(lines: str, work: Path, *, pointers: tuple[str, str] = ("*fp32", "*fp32")) -> str:
    """The TTIR of a kernel that reads ``x`` and writes ``out`` at ``at``."""
    path = work / "kernel.py"
    path.write_text(HEADING + "".join(f"    {line}\n" for line in lines.splitlines()))
    attributes = {(0,): ALIGNED, (1,): ALIGNED}
    return make_ttir(function_in(path, "kernel"), dict(zip(("x", "out"), pointers, strict=True)), attrs=attributes)


def program(path: Path, text: str = "exit 0") -> Path:
    """A stand-in for the adapter."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_environment_names_the_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stand_in = program(tmp_path / "other")
    monkeypatch.setenv(adapter.VARIABLE, str(stand_in))
    found = find_adapter()
    assert found.path == stand_in
    assert found.digest == hashlib.sha256(stand_in.read_bytes()).hexdigest()
    assert found.version == f"sha256:{found.digest[:16]}"


def test_it_is_looked_for_beside_python_then_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(adapter.VARIABLE, raising=False)
    (tmp_path / "bin").mkdir()
    (tmp_path / "path").mkdir()
    on_path = program(tmp_path / "path" / adapter.PROGRAM)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert find_adapter().path == on_path
    beside = program(tmp_path / "bin" / adapter.PROGRAM, "exit 1")
    assert find_adapter().path == beside


def test_where_there_is_none_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(adapter.VARIABLE, raising=False)
    with pytest.raises(OptionError, match=r"python -m xllmc\.codegen\.ascend\.install_adapter"):
        find_adapter()
    monkeypatch.setenv(adapter.VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(OptionError, match="XLLMC_TRITON_ADAPTER must name"):
        find_adapter()


def test_the_installed_adapter_is_the_one_that_was_tried():
    assert find_adapter().version == "3.2.0"


def test_a_kernel_is_lowered_the_same_way_twice(tmp_path: Path):
    ttir = ttir_of("tl.store(out + at, tl.exp(tl.load(x + at)))", tmp_path)
    assert str(tmp_path) not in ttir
    lowered = lower_ttir(ttir, "kernel")
    assert "func.func @kernel(" in lowered and "math.exp" in lowered and str(tmp_path) not in lowered
    assert lower_ttir(ttir, "kernel") == lowered


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("tl.store(out + at, libdevice.tanh(tl.load(x + at)))", "leaves tt.extern_elementwise"),
        ("tl.store(out + at, tl.cumsum(tl.load(x + at), 0))", "call triton_cumsum_0, which has no code"),
        ("tl.store(out + at, tl.load(x + at - 1, at >= 1, 0.0))", "expected offsets to be non-negative"),
        ("tl.debug_barrier()", "ttg"),
        ("tl.store(out + at, tl.rand(1, at))", "uses tl.umulhi"),
        (
            'tl.store(out + at, tl.inline_asm_elementwise("ex2 $0, $1;", "=f,f", [tl.load(x + at)], dtype=tl.float32, '
            "is_pure=True, pack=1))",
            "leaves llvm.inline_asm",
        ),
        ("tl.store(out + at, tl.load(tl.where(at < 7, x + at, out + at)))", "it crashed with signal"),
    ],
)
def test_what_is_not_lowered_is_refused_by_name_and_reason(lines: str, reason: str, tmp_path: Path):
    with pytest.raises(XllmcError, match="kernel kernel") as problem:
        lower_ttir(ttir_of(lines, tmp_path), "kernel")
    assert reason in str(problem.value) and "\n" not in str(problem.value)


def test_narrow_floats_are_refused(tmp_path: Path):
    """The adapter leaves their conversion as it is, and ends with exit code 0."""
    ttir = ttir_of("tl.store(out + at, tl.load(x + at).to(tl.float32))", tmp_path, pointers=("*fp8e4nv", "*fp32"))
    with pytest.raises(XllmcError, match=r"leaves tt\.fp_to_fp"):
        lower_ttir(ttir, "kernel")


def test_an_adapter_that_does_not_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(adapter, "SECONDS", 0.2)
    with pytest.raises(XllmcError, match="does not end on kernel kernel"):
        lower_ttir(ttir_of("tl.store(out + at, tl.sort(tl.load(x + at)))", tmp_path), "kernel")


def test_a_crash_now_and_then_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ttir = ttir_of("tl.store(out + at, tl.load(x + at))", tmp_path)
    real, count = find_adapter().path, tmp_path / "count"
    crashing = program(
        tmp_path / "crashing", f'echo >> {count}; [ $(wc -l < {count}) -gt 2 ] || kill -SEGV $$; exec {real} "$@"'
    )
    monkeypatch.setenv(adapter.VARIABLE, str(crashing))
    assert "func.func @kernel(" in lower_ttir(ttir, "kernel")
    assert len(count.read_text()) == 3


def test_another_name_or_program_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ttir = ttir_of("tl.store(out + at, tl.load(x + at))", tmp_path)
    with pytest.raises(XllmcError, match=r"one public function of that name, got \['kernel'\]"):
        lower_ttir(ttir, "other")
    monkeypatch.setenv(adapter.VARIABLE, str(program(tmp_path / "empty", "exit 3")))
    with pytest.raises(XllmcError, match="ended with code 3"):
        lower_ttir(ttir, "kernel")
    broken = tmp_path / "broken"
    broken.write_bytes(os.urandom(64))
    broken.chmod(0o755)
    monkeypatch.setenv(adapter.VARIABLE, str(broken))
    with pytest.raises(OptionError, match="cannot run"):
        lower_ttir(ttir, "kernel")


def test_ttir_needs_no_gpu_and_refuses_in_words(tmp_path: Path):
    assert "tt.func public @kernel(" in ttir_of("tl.store(out + at, tl.load(x + at))", tmp_path)
    with pytest.raises(XllmcError, match="Triton cannot read kernel kernel"):
        ttir_of("tl.store(out + at, nowhere)", tmp_path)
