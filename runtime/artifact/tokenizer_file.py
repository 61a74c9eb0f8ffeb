"""The tokenizer an engine ships: a tokenizer.json as the tokenizers library writes it."""

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ArtifactError

if TYPE_CHECKING:
    import tokenizers


def read_tokenizer(path: Path) -> "tokenizers.Tokenizer":
    """The tokenizer of a tokenizer.json; ArtifactError where it is none."""
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as problem:  # the library raises Exception itself, for every fault of a file
        if type(problem) is not Exception:
            raise
        raise ArtifactError(f"{path} is not a tokenizer that this version of tokenizers reads: {problem}") from problem
