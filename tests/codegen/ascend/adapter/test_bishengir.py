"""The last step, with a stand-in that records its command: CANN's own compiler cannot be had here."""

import json
import sys
from pathlib import Path

import pytest
from xllmc.codegen.ascend.bishengir import compile_binary, find_compiler
from xllmc.runtime.artifact.errors import OptionError, XllmcError

TEXT = 'module {\n  func.func @k() attributes {global_kernel = "local", mix_mode = "aiv", parallel_mode = "simd"} {\n'

STAND_IN = """\
import json, pathlib, sys
arguments = sys.argv[1:]
made = pathlib.Path(arguments[-1])
source = pathlib.Path(arguments[0]).read_text()
made.with_name("record.json").write_text(json.dumps({"arguments": arguments, "source": source}))
FILES
"""


def stand_in(place: Path, files: str) -> Path:
    program = place / "bishengir-compile"
    program.write_text(f"#!{sys.executable}\n" + STAND_IN.replace("FILES", files))
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("suffix", [".o", "_reloc.o"])
def test_the_command_and_the_files_that_it_makes(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = f'made.with_name(made.name + "{suffix}").write_bytes(b"code")\n'
    program = stand_in(tmp_path, files + 'made.with_name(f"lib{made.name}.so").write_bytes(b"")')
    monkeypatch.setenv("PATH", str(tmp_path))
    compiler = find_compiler()
    assert compiler == program
    binary = compile_binary(compiler, TEXT, "k", "910b", tmp_path)
    assert (binary.object.name, binary.object.read_bytes()) == (f"k{suffix}", b"code")
    assert binary.callbacks == tmp_path / "libk.so" and binary.cores == "aiv"
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["arguments"] == [
        str(tmp_path / "k.mlir"),
        "--target=Ascend910B1",
        "--enable-auto-multi-buffer=True",
        "--enable-auto-bind-sub-block=True",
        "--enable-hfusion-compile=true",
        "--enable-hivm-compile=true",
        "--enable-triton-kernel-compile=true",
        "-o",
        str(tmp_path / "k"),
    ]
    assert record["source"] == TEXT.replace(', mix_mode = "aiv"', "")


def test_what_goes_wrong_names_the_kernel(tmp_path: Path):
    failing = stand_in(tmp_path, 'sys.stderr.write("k.mlir:3: error: UB overflow\\n"); sys.exit(1)')
    with pytest.raises(XllmcError, match=r"cannot compile kernel k: k\.mlir:3: error: UB overflow"):
        compile_binary(failing, TEXT, "k", "910b", tmp_path)
    with pytest.raises(XllmcError, match="made no object of kernel k"):
        compile_binary(stand_in(tmp_path, ""), TEXT, "k", "910b", tmp_path)
    with pytest.raises(XllmcError, match="must name its cores"):
        compile_binary(failing, "module {}", "k", "910b", tmp_path)
    with pytest.raises(OptionError, match="got '310p'; try ascend:910b"):
        compile_binary(failing, TEXT, "k", "310p", tmp_path)


def test_without_cann_there_is_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_compiler() is None
