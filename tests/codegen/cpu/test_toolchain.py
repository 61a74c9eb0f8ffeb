"""Compilers are found or their absence is said plainly; what does not compile is one error."""

import re
from pathlib import Path

import pytest
from xllmc.codegen.cpu.toolchain import Compiler, build, choose_levels, find_compiler, needed_glibc
from xllmc.runtime.artifact.errors import OptionError, XllmcError
from xllmc.runtime.artifact.isa import supported_isas

NATIVE = supported_isas()[-1]


def built(directory: Path, text: str, compiler: Compiler) -> Path:
    (directory / "kernels.cpp").write_text(text)
    files, _ = build(directory, "kernels.cpp", (NATIVE,), compiler, 1, lambda what: None)
    (library,) = files.values()
    return library


def test_a_compiler_is_named_with_its_version():
    assert re.search(r"\d+\.\d+", find_compiler().version)


@pytest.mark.parametrize("cxx", ["/nowhere/g++", "false"])
def test_a_compiler_that_is_not_there(cxx, monkeypatch):
    monkeypatch.setenv("CXX", cxx)
    with pytest.raises(XllmcError, match=re.escape(f"requires a C++20 compiler, found none at $CXX={cxx}")):
        find_compiler()


def test_no_compiler_at_all(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(XllmcError, match="neither g\\+\\+ nor clang\\+\\+"):
        find_compiler()


def test_what_does_not_compile_is_one_line(tmp_path):
    with pytest.raises(XllmcError, match=f"cannot compile the kernels for {NATIVE}") as caught:
        built(tmp_path, "int f() { return undeclared; }", find_compiler())
    assert "\n" not in str(caught.value)


def test_the_same_source_gives_the_same_bytes(tmp_path):
    text = '#include <math.h>\nextern "C" double f(double x) { return exp(x); }'
    compiler = find_compiler()
    libraries = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        libraries.append(built(tmp_path / name, text, compiler))
    assert libraries[0].read_bytes() == libraries[1].read_bytes()
    assert tuple(map(int, needed_glibc(libraries[0]).split("."))) >= (2, 2)


def test_levels():
    assert choose_levels(["native"]) == (NATIVE,)
    assert choose_levels(["all", "native"]) == ("x86-64-v3", "x86-64-v4", "x86-64-v4-bf16")
    with pytest.raises(OptionError, match=r"--isa must be all, native or of .*got .avx9"):
        choose_levels(["avx9"])


def test_zig_names_the_levels_its_own_way():
    zig = Compiler(("python3", "-m", "ziglang", "c++"), "clang version 22")
    assert zig.machine("x86-64-v4-bf16") == ("-mcpu=x86_64_v4+avx512bf16+avx512vnni",)
    assert Compiler(("g++",), "12").machine("x86-64-v3") == ("-march=x86-64-v3",)
