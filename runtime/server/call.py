"""One HTTP request, as logs and metrics see it."""

import re
import secrets
import time
from dataclasses import dataclass, field

from ..requests import Chunk, FinishReason, Usage
from .errors import ApiError

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def request_id(given: str | None) -> str:
    """The caller's own id if it is sane (no spaces, at most 128 characters), else a new one."""
    return given if given is not None and _SANE_ID.fullmatch(given) else secrets.token_hex(12)


@dataclass
class Call:
    """What is known of a request so far."""

    request_id: str
    key: str = ""
    """Of its API key: a digest, never the key itself."""
    began: float = field(default_factory=time.perf_counter)
    created: int = field(default_factory=lambda: int(time.time()))
    """Unix time in seconds."""
    outcome: str = ""
    """Why it ended, where the status does not say: its samples' finish reasons, or the error's code."""
    error: str = ""
    samples: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    queue_seconds: float | None = None
    """The longest of its samples."""
    ttft_seconds: float | None = None
    """Until its very first token."""

    def add_prompt(self, tokens: int) -> None:
        """Count a prompt, once for all of its samples."""
        self.prompt_tokens += tokens

    def add(self, usage: Usage, sample_index: int, reason: FinishReason) -> None:
        """Count a sample that ended. What samples share is no saving of the cache's: only the first one's counts."""
        self.samples += 1
        if reason not in self.outcome.split(","):
            self.outcome = f"{self.outcome},{reason}" if self.outcome else reason
        self.output_tokens += usage.output_tokens
        if sample_index == 0:
            self.cached_tokens += usage.cached_tokens
        self.queue_seconds = max(self.queue_seconds or 0.0, usage.queued_seconds)
        if usage.first_token_seconds is not None:
            self.ttft_seconds = min(self.ttft_seconds or usage.first_token_seconds, usage.first_token_seconds)

    def see(self, chunk: Chunk) -> None:
        """Count a sample if this is its last chunk."""
        if chunk.usage is not None and chunk.finish_reason is not None:
            self.add(chunk.usage, chunk.sample_index, chunk.finish_reason)

    def fail(self, problem: ApiError) -> None:
        """Note what its client was told."""
        self.outcome = "error"
        self.error = problem.body.error.code or problem.body.error.type

    def fields(self) -> dict[str, object]:
        """For its log line."""
        tokens = {
            "samples": self.samples,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "queue_seconds": _rounded(self.queue_seconds),
            "ttft_seconds": _rounded(self.ttft_seconds),
        }
        return {
            "request_id": self.request_id,
            **({"key": self.key} if self.key else {}),
            **(tokens if self.prompt_tokens else {}),
            "seconds": _rounded(time.perf_counter() - self.began),
            **({"outcome": self.outcome} if self.outcome else {}),
            **({"error": self.error} if self.error else {}),
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
