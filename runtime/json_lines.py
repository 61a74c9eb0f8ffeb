"""Files of JSON, one value a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .artifact.errors import OptionError


def read_json_lines(file: Path) -> Iterator[tuple[str, Any]]:
    """(Where it stands, for messages; the value) of every line that is not empty. Raises OptionError."""
    try:
        # Not splitlines: strings in JSON may hold other line ends.
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as problem:
        raise OptionError(f"{file} must be a readable file of JSON lines: {problem}") from problem
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{file}:{number}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as problem:
                raise OptionError(f"{where} must be JSON: {problem}") from problem
            yield where, value
