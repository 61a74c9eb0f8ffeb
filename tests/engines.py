"""Compiling engines for tests, comparing their bytes, and making a manifest say something else."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xllmc.compiler.driver import CompileOptions, compile_model
from xllmc.runtime.artifact.writer import BLANK_DIGEST, MANIFEST, MEASURED, canonical_json
from xllmc.runtime.engine import Engine


def compile_engine(model_dir: Path, out: Path, dtype: str = "fp32") -> Path:
    """Compile for this machine's instruction set alone, the quickest there is. Returns ``out``."""
    compile_model(model_dir, out, CompileOptions(dtype=dtype, isa=("native",)))
    return out


def load_engine(engine: Path, threads: int = 2) -> Engine:
    """Load with room for 33 test sequences of 128 tokens and the logits of every token of a step."""
    return Engine.load(engine, threads=threads, max_tokens=512, max_rows=512, kv_tokens=33 * 128)


def engine_contents(engine: Path) -> dict[str, str]:
    """Relative path to SHA-256 of every file that must be reproducible (all but the measurements)."""
    return {
        str(path.relative_to(engine)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(engine.rglob("*"))
        if path.is_file() and path.name != MEASURED
    }


def edit_manifest(engine: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest's values and give it a digest that fits."""
    file = engine / MANIFEST
    data = json.loads(file.read_text())
    edit(data)
    text = canonical_json(data | {"digest": BLANK_DIGEST})
    file.write_text(text.replace(BLANK_DIGEST, hashlib.sha256(text.encode()).hexdigest(), 1))
