"""How many prompt tokens a step may take: as many as the targets for first and further tokens allow.

Steps are predicted by the cost model, and the predictions are corrected by what steps really took.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..artifact.counts import symbols
from ..cost import StepCost
from ..plan import Capacities

CHUNK = 32
"""Budgets are multiples of this, except where less is left or there is less room."""

_KNOTS = 32
"""Chunk sizes predicted for one load at most; between them it is interpolated."""
_PAGE_TOKENS = 32
"""Positions in a column of the block tables. Plans may differ; it hardly counts."""
_PACE = 1 / 32
"""Weight of the newest step in a correction, once it has seen this many."""
_LEAP = math.log(2)
"""What one step can say at most: that the correction is wrong by a factor of two."""


@dataclass(frozen=True)
class Load:
    """What the scheduler knows before a step."""

    decoding: int
    """Sequences that will each take one token."""
    context: float
    """Mean positions that a decoding query attends to."""
    prefill_tokens: int
    """Tokens of prompts that could be computed now, running and waiting together."""
    prefill_context: float
    """Mean positions that the first of these prompts has already computed."""
    oldest_left: int
    """Tokens left of the prompt that waits longest for its first token; 0: none does."""
    oldest_age: float
    """Seconds it has waited."""


class TokenBudget:
    """Chooses budgets for one engine. Not safe for concurrent use: it learns from every step."""

    def __init__(
        self,
        cost: StepCost,
        capacities: Capacities,
        ttft: float | None,
        tpot: float | None,
        threads: int | None = None,
    ) -> None:
        """``ttft``, ``tpot``: targets in seconds, see ``SchedulingOptions``. ``threads``: of the kernels; default as
        many as the profile was measured with.
        """
        self._cost = cost
        self._capacities = capacities
        self._ttft = ttft
        self._tpot = tpot
        self._threads = threads
        self._windows = {s for name in cost.monomials for s in symbols(name) if s.startswith("C")} - {"C"}
        apart = CHUNK * math.ceil(capacities.tokens / (CHUNK * _KNOTS))
        self._knots = np.append(np.arange(0, capacities.tokens, apart), capacities.tokens)
        self._curve = lru_cache(maxsize=1024)(self._predict)
        self._decoding = Correction()
        self._prefill = Correction()

    def tokens(self, load: Load) -> int:
        """Prompt tokens that the step may take beside the decoding ones, ``prefill_tokens`` at most.

        The largest chunk with which the step keeps ``tpot`` and the oldest prompt, if all its steps are like this one,
        keeps ``ttft``. Where no chunk keeps both, the one whose worse ratio of predicted to target is smallest. As long
        as there is room for one, prompts get at least a chunk: decoding sequences cannot starve them.
        """
        limit = max(0, min(self._capacities.tokens - load.decoding, load.prefill_tokens))
        if limit <= CHUNK or self._tpot is None or load.decoding == 0:
            return limit
        chunks = np.arange(CHUNK, limit + CHUNK, CHUNK)
        chunks[-1] = limit
        step = self._seconds(load, chunks)
        worse = step / self._tpot
        if self._ttft is not None and load.oldest_left > 0:
            first_token = load.oldest_age + np.ceil(load.oldest_left / chunks) * step
            worse = np.maximum(worse, first_token / self._ttft)
        kept = np.flatnonzero(worse <= 1)
        best = kept[-1] if len(kept) else len(worse) - 1 - np.argmin(worse[::-1])
        return int(chunks[best])

    def seconds(self, load: Load, prompt_tokens: int) -> float:
        """Predicted for a step that takes so many prompt tokens beside the decoding ones, corrected."""
        return float(self._seconds(load, np.array([prompt_tokens]))[0])

    def observe(self, load: Load, prompt_tokens: int, seconds: float) -> None:
        """Learn from a step that took ``prompt_tokens`` beside the decoding ones of ``load``, and this long."""
        if prompt_tokens and not self._prefill.seen:
            self._prefill.ratio = self._correction
        error = seconds / self.seconds(load, prompt_tokens)
        (self._prefill if prompt_tokens else self._decoding).learn(error)

    def recompute_seconds(self, tokens: int) -> float:
        """Of computing a prompt of so many tokens alone, in steps of the capacity."""
        starts = np.arange(0, tokens, self._capacities.tokens)
        if not len(starts):
            return 0.0
        count = np.minimum(tokens - starts, self._capacities.tokens)
        return self._correction * float(np.sum(self._step_seconds(0, 0.0, count, starts)))

    @property
    def _correction(self) -> float:
        """Of steps that compute prompts; until one was seen, what decoding steps tell is the best guess."""
        return self._prefill.ratio if self._prefill.seen else self._decoding.ratio

    def _seconds(self, load: Load, chunks: np.ndarray) -> np.ndarray:
        curve = self._curve(load.decoding, _rounded(load.context), _rounded(load.prefill_context))
        return np.where(chunks > 0, self._correction, self._decoding.ratio) * np.interp(chunks, self._knots, curve)

    def _predict(self, decoding: int, context: int, prefill_context: int) -> np.ndarray:
        """Seconds for each of the knots, uncorrected."""
        return self._step_seconds(decoding, context, self._knots, np.array(prefill_context))

    def _step_seconds(self, decoding: int, context: float, chunks: np.ndarray, computed: np.ndarray) -> np.ndarray:
        """Seconds of steps that take ``chunks`` of a prompt that has ``computed`` positions, uncorrected."""
        tokens = np.maximum(decoding + chunks, 1)
        sequences = np.maximum(decoding + (chunks > 0), 1)
        middle, last = computed + (chunks + 1) / 2, computed + chunks
        columns = np.ceil(np.maximum(last, context) / _PAGE_TOKENS)
        sizes: dict[str, float | np.ndarray] = {
            "T": tokens,
            "S": sequences,
            "R": sequences,
            "B": np.minimum(columns, self._capacities.table_columns),
        }
        for symbol in ("C", *self._windows):
            window = float(symbol.partition("@")[2] or math.inf)
            near = min(context, window)
            sizes[symbol] = (decoding * near + chunks * np.minimum(middle, window)) / tokens
            # A long prompt has most of the queries but is one sequence: the mean over queries is not over sequences.
            sizes[f"{symbol}*S"] = decoding * near + np.where(chunks > 0, np.minimum(last, window + chunks), 0)
        return self._cost.seconds_each(sizes, self._threads)


class Correction:
    """A ratio that follows what it is shown: quickly at first, then slowly, and never far for one outlier."""

    def __init__(self) -> None:
        self.ratio = 1.0
        self.seen = 0

    def learn(self, error: float) -> None:
        """``error``: measured over predicted, where ``ratio`` was part of the prediction."""
        if not 0 < error < math.inf:
            return
        self.seen += 1
        self.ratio *= math.exp(max(_PACE, 1 / self.seen) * min(_LEAP, max(-_LEAP, math.log(error))))


def _rounded(positions: float) -> int:
    """To 64, or to a sixteenth where that is more: so many loads that are nearly alike are predicted once."""
    unit = max(64, 1 << max(0, int(positions).bit_length() - 4))
    return round(positions / unit) * unit
