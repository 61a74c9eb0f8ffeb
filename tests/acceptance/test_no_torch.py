"""A generating process never loads what only compiling needs."""

import json
import subprocess
import sys

import pytest

GENERATE = """
import json, sys
from xllmc.runtime.cli import main
sys.argv = ["xllmc", "generate", sys.argv[1], "--prompt", "def", "--max-tokens", "3"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("\\n" + json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_generating_loads_no_torch(dtype: str, engine_dir):
    command = [sys.executable, "-c", GENERATE, str(engine_dir("qwen3", dtype))]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    loaded = set(json.loads(printed.splitlines()[-1]))
    assert "numpy" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "triton"})


def test_the_runtime_loads_nothing_of_the_compiler(engine_dir):
    script = f"""
import sys
from pathlib import Path
from xllmc.runtime.engine import Engine
Engine.load(Path({str(engine_dir("qwen3", "fp32"))!r})).logits([3, 4, 5])
rooms = ("xllmc.compiler", "xllmc.codegen", "xllmc.models", "xllmc.passes")
print(sorted(name for name in sys.modules if name.startswith(rooms)))
"""
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "[]"
