"""Triton functions of a source file; ``@triton.jit`` reads their text there."""

import importlib.util
import sys
from pathlib import Path
from typing import Any


def function_of(path: Path, name: str) -> Any:
    """The function ``name`` of the file, which is not cached anywhere."""
    spec = importlib.util.spec_from_file_location(f"adapted_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    return getattr(module, name)
