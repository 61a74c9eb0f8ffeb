"""The demo models' training text: the running Python's own standard library.

It is free (PSF licence), present wherever Python is, and needs no network. Files are split by a hash of their relative
path, so that training and held-out text stay apart on every machine.
"""

import ast
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path

EXCLUDED = {"test", "tests", "idlelib", "encodings", "site-packages", "lib2to3", "__pycache__", "turtledemo"}
HELD_OUT_PERCENT = 5
CHAT_EVERY = 4
"""One file in this many also yields its documented functions as question-and-answer pairs."""


def stdlib_files() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    return [p for p in sorted(root.rglob("*.py")) if not EXCLUDED.intersection(p.relative_to(root).parts)]


def is_held_out(path: Path) -> bool:
    root = Path(sysconfig.get_paths()["stdlib"])
    return zlib.crc32(str(path.relative_to(root)).encode()) % 100 < HELD_OUT_PERCENT


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="ignore")


def documented_functions(source: str) -> Iterator[tuple[str, str]]:
    """Pairs of (first line of a docstring, source of its function) for the functions of one file."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            summary = (ast.get_docstring(node) or "").strip().split("\n")[0]
            body = ast.get_source_segment(source, node)
            if 20 <= len(summary) <= 120 and body and len(body) <= 1500:
                yield summary, body
