"""The sizes an engine is loaded with, and how requests share it."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from .artifact.errors import OptionError
from .checks import is_number, is_whole


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


Preemption = Literal["auto", "recompute", "swap"]


@dataclass(frozen=True, kw_only=True)
class SchedulingOptions:
    """How requests share an engine; none of it changes a token."""

    prefix_cache: bool = True
    """Keep the states of finished sequences for requests that start alike."""
    ttft: float | None = None
    """Seconds a request should wait for its first token at most; None: no target."""
    tpot: float | None = None
    """Seconds between two tokens of a sequence at most; None: no target, and every step is as large as it may be."""
    preemption: Preemption = "auto"
    """What happens to the states of a sequence that must make room: dropped and computed anew, or kept in other memory
    of the host; ``auto`` takes what is predicted to be quicker."""
    swap_tokens: int = 0
    """Tokens whose states the host's other memory may hold."""
    max_waiting: int | None = None
    """Requests that may wait; more are refused (QueueFullError). None: any number."""
    max_waiting_tokens: int | None = None
    """Tokens of the prompts that may wait."""

    def __post_init__(self) -> None:
        if not isinstance(self.prefix_cache, bool):
            raise OptionError(f"prefix_cache must be true or false, got {self.prefix_cache!r}")
        for name in ("ttft", "tpot"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and 0 < value < math.inf):
                raise OptionError(f"{name} must be a number of seconds above 0, got {value!r}")
        if self.preemption not in get_args(Preemption):
            raise OptionError(f"preemption must be one of {', '.join(get_args(Preemption))}, got {self.preemption!r}")
        for name, least in (("swap_tokens", 0), ("max_waiting", 1), ("max_waiting_tokens", 1)):
            value = getattr(self, name)
            if value is None and name != "swap_tokens":
                continue
            if not is_whole(value) or value < least:
                raise OptionError(f"{name} must be a whole number, at least {least}, got {value!r}")
        if self.preemption == "swap" and not self.swap_tokens:
            raise OptionError("preemption by swap needs room: give swap_tokens, or choose recompute")
