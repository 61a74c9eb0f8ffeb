"""The requests of a run. One seed makes the same ones, whatever the server and whenever it is asked."""

import itertools
import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ...runtime.artifact.errors import OptionError
from .arrivals import Arrivals, arrival_times
from .inputs import Arrival, GivenPrompt
from .lengths import Lengths
from .loads import Load
from .records import Prompt, Work
from .words import some_words

WARMUP_OUTPUT = 8


class _Stream(IntEnum):
    """What random numbers are for. Each has a generator of its own, so that no option changes another's draw."""

    ARRIVALS = 0
    PROMPT_LENGTHS = 1
    OUTPUT_LENGTHS = 2
    GROUPS = 3
    CONTENTS = 4
    PREFIXES = 5
    WARMUP = 6


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What requests are made of. Raises OptionError where options are at odds."""

    requests: int | None
    """For each line of the report; None: by ``duration``, or all of a trace."""
    duration: float | None
    """Seconds of arrivals at each rate."""
    arrivals: Arrivals
    burstiness: float
    trace: tuple[Arrival, ...] | None
    prompt_lengths: Lengths
    output_lengths: Lengths
    prompts: tuple[GivenPrompt, ...] | None
    vocabulary: tuple[int, int] | None
    """Prompts are random token ids from the first to below the second; None: they are words."""
    prefix_tokens: int
    """Tokens (or words) before each prompt that all of its group share."""
    prefix_groups: int
    chat: bool
    seed: int

    def __post_init__(self) -> None:
        if self.requests is not None and self.duration is not None:
            raise OptionError("a run has --requests or --duration, not both")
        if self.burstiness != 1 and self.arrivals != "gamma":
            raise OptionError(f"--burstiness needs --arrivals gamma, got --arrivals {self.arrivals}")
        if not 0 < self.burstiness < math.inf:
            raise OptionError(f"--burstiness must be above 0, got {self.burstiness:g}")
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise OptionError(f"--duration must be above 0 seconds, got {self.duration:g}")
        if self.chat and self.vocabulary:
            raise OptionError("--vocab makes prompts of token ids, which chat does not take; leave out one of the two")
        if self.prompts and (self.vocabulary or self.prefix_tokens):
            raise OptionError("--prompts brings its own prompts; leave out --vocab and --prefix-tokens")
        if self.prompts and self.trace:
            raise OptionError(
                "--trace says how long prompts are, and --prompts brings its own; leave out one of the two"
            )

    def count(self, load: Load) -> int:
        """Requests of one line. Raises OptionError where the load does not say."""
        if self.duration is not None:
            if load.rate is None:
                raise OptionError("--duration needs --rate; give --requests")
            return max(1, round(load.rate * self.duration))
        if self.trace is not None:
            return min(len(self.trace), self.requests or len(self.trace))
        return 100 if self.requests is None else self.requests

    def works(self, load: Load, line: int, turn: int) -> tuple[Work, ...]:
        """The requests of one line of the report in one round. Lines and rounds have lengths in common, and the pattern
        of arrivals; contents differ, so that no line finds prompts of an earlier one in a server's prefix cache.
        """
        count = self.count(load)
        times, prompt_lengths, output_lengths = self._shape(load, count, turn)
        groups = self._random(_Stream.GROUPS, turn).integers(0, self.prefix_groups, count).tolist()
        contents = self._random(_Stream.CONTENTS, turn, line)
        prefixes = self._prefixes(turn, line)
        given = self._given(contents, count)
        works, seen = [], set()
        for index in range(count):
            group = groups[index] if prefixes else None
            prompt: Prompt
            if given:
                prompt, length = given[index].prompt, given[index].output_tokens or output_lengths[index]
            else:
                own = self._content(prompt_lengths[index], contents)
                prompt, length = (_joined(prefixes[groups[index]], own) if prefixes else own), output_lengths[index]
            works.append(Work(index, times[index], prompt, length, group, group is not None and group not in seen))
            seen.add(group)
        return tuple(works)

    def warmup(self, count: int) -> tuple[Work, ...]:
        """``count`` requests of the same lengths and other contents, with short outputs."""
        random = self._random(_Stream.WARMUP, 0)
        if self.prompts:
            prompts = [g.prompt for g in itertools.islice(itertools.cycle(self.prompts), count)]
        else:
            lengths = self._shape(Load(concurrency=1), count, 0)[1] if self.trace is None else [128] * count
            prompts = [self._content(self.prefix_tokens + length, random) for length in lengths]
        return tuple(Work(i, 0.0, prompt, WARMUP_OUTPUT) for i, prompt in enumerate(prompts))

    def _shape(self, load: Load, count: int, turn: int) -> tuple[list[float], list[int], list[int]]:
        """Times, lengths of prompts, lengths of outputs."""
        if self.trace is not None:
            arrivals = self.trace[:count]
            return [a.time for a in arrivals], [a.prompt_tokens for a in arrivals], [a.output_tokens for a in arrivals]
        times = [0.0] * count
        if load.rate is not None:
            random = self._random(_Stream.ARRIVALS, turn)
            times = arrival_times(self.arrivals, load.rate, count, self.burstiness, random).tolist()
        return (
            times,
            self.prompt_lengths.draw(count, self._random(_Stream.PROMPT_LENGTHS, turn)),
            self.output_lengths.draw(count, self._random(_Stream.OUTPUT_LENGTHS, turn)),
        )

    def _given(self, random: np.random.Generator, count: int) -> list[GivenPrompt]:
        if not self.prompts:
            return []
        order = itertools.cycle(random.permutation(len(self.prompts)).tolist())
        return [self.prompts[i] for i in itertools.islice(order, count)]

    def _prefixes(self, turn: int, line: int) -> list[str | tuple[int, ...]]:
        if not self.prefix_tokens:
            return []
        random = self._random(_Stream.PREFIXES, turn, line)
        return [self._content(self.prefix_tokens, random) for _ in range(self.prefix_groups)]

    def _content(self, length: int, random: np.random.Generator) -> str | tuple[int, ...]:
        if self.vocabulary is None:
            return some_words(length, random)
        return tuple(random.integers(*self.vocabulary, length).tolist())

    def _random(self, stream: _Stream, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream, *numbers])


def _joined(prefix: str | tuple[int, ...], own: str | tuple[int, ...]) -> Prompt:
    if isinstance(prefix, str) or isinstance(own, str):
        return f"{prefix} {own}"
    return prefix + own
