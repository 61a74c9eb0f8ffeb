"""The repository's own files, for tests that look at source text."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("compiler", "passes", "codegen", "runtime", "models", "bench")
FOLDERS = (*ROOMS, "tests")


def files(*suffixes: str, folders: tuple[str, ...] = FOLDERS) -> Iterator[Path]:
    """Files of ours with one of the suffixes, relative to the repository, in a fixed order."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT)
