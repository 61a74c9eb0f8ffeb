"""The sizes an engine is loaded with."""

from dataclasses import dataclass

from .artifact.errors import OptionError
from .checks import is_whole


@dataclass(frozen=True)
class EngineOptions:
    """The sizes an engine is loaded with; see ``Engine.load``."""

    threads: int
    max_tokens: int
    max_rows: int
    max_sequences: int
    kv_tokens: int | None

    def __post_init__(self) -> None:
        for name in ("threads", "max_tokens", "max_rows", "max_sequences", "kv_tokens"):
            value = getattr(self, name)
            if value is None and name == "kv_tokens":
                continue
            if not is_whole(value):
                raise OptionError(f"{name} must be a whole number, got {value!r}")
            if value < 1:
                raise OptionError(f"{name} must be at least 1, got {value}")
