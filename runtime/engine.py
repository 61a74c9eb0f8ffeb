"""An engine directory, loaded: bound plans over weights and key-value memory, one step at a time."""

import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from .artifact.errors import OptionError
from .artifact.isa import choose_library
from .artifact.reader import read_manifest, read_plan
from .artifact.schema import Manifest, Plan, Work
from .artifact.writer import WEIGHTS
from .batcher import not_finite
from .checks import is_whole, token_list
from .door import check_step, checked_arrays
from .generate import Chunk, Completion, Generator, Prompts
from .library import Kernels, closed
from .memory import allocate, available_bytes
from .options import EngineOptions
from .pages import KvMemory, pages_needed
from .plan import BoundPlan, Capacities
from .sampling import TOP_LOGPROBS, SamplingParams
from .step import SamplingInput, StepInput, StepOutput, check_plan
from .threads import default_threads
from .tokenizer import Tokenizer
from .update import WeightSource, replay
from .weights import Weights, open_weights

_KV_SHARE = 0.5
"""Of the available memory, what the key-value pool may come to take unless ``kv_tokens`` says otherwise."""


class KernelTime(NamedTuple):
    origin: str
    kernel: str
    seconds: float
    """Median of the rounds."""
    function: str
    work: Work | None
    rounds: np.ndarray
    """Seconds of each."""


class Engine:
    """A compiled model, ready to run. Made by ``Engine.load``; its methods may be called from any thread."""

    def __init__(
        self, path: Path, manifest: Manifest, plan: Plan, kernels: Kernels, weights: Weights, options: EngineOptions
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.options = options
        page_tokens = manifest.groups[0].page_tokens if manifest.groups else 32
        columns = -(-manifest.model.max_context // page_tokens)
        self.capacities = Capacities(options.max_tokens, options.max_sequences, options.max_rows, columns)
        self.lock = threading.RLock()
        """Held while a step runs or pages change hands."""
        self._update_lock = threading.Lock()
        self._weights = weights
        self._pool = kernels.create_pool(int(options.threads))
        states = [state.name for state in manifest.states]
        self._plan = BoundPlan(plan, kernels, self._pool, self.capacities, weights.offsets, states)
        self._plan.set_weights(weights.memory)
        pages = self._group_pages()
        for state in manifest.states:
            self._plan.set_state(state.name, allocate(pages[state.group] * state.page_bytes))
        self.kv = KvMemory(manifest.groups, pages, columns, options.max_tokens)
        self.tokenizer = Tokenizer(path / "tokenizer", manifest.model.eos_token_ids)
        self._generator = Generator(self)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        threads: int | None = None,
        max_tokens: int = 512,
        max_rows: int = 64,
        max_sequences: int = 64,
        kv_tokens: int | None = None,
        isa: str | None = None,
        huge_pages: bool = False,
    ) -> "Engine":
        """Load an engine directory; nothing is compiled.

        threads: of the kernels; default all this process may use. max_tokens, max_sequences, max_rows: the most tokens,
        sequences and rows of logits in one step. kv_tokens: tokens of all sequences together that the key-value memory
        holds; default what half of the free memory holds (taken only as used). isa: an instruction-set level below
        the best. huge_pages: copy the weights to huge pages instead of mapping them. Raises ArtifactError, OptionError.
        """
        options = EngineOptions(
            default_threads() if threads is None else threads, max_tokens, max_rows, max_sequences, kv_tokens
        )
        if not isinstance(path, str | os.PathLike):
            raise OptionError(f"an engine is loaded from the path of its directory, got {type(path).__name__}")
        root = Path(path)
        manifest = read_manifest(root)
        kernels = Kernels(root, choose_library(manifest.kernels, isa))
        weights = open_weights(root / WEIGHTS, manifest.weights, huge_pages)
        plan = read_plan(root)
        check_plan(plan, manifest.model, len(manifest.groups))
        return cls(root, manifest, plan, kernels, weights, options)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Fail what runs, and stop all threads; the engine cannot be used afterwards."""
        self._generator.close()
        with self.lock:
            self._pool.close()

    def check_open(self) -> None:
        """Raise OptionError after ``close``."""
        if self._pool.closed:
            raise closed()

    @property
    def weights(self) -> Weights:
        """The packed weights in use, and their version."""
        return self._weights

    def step(self, step: StepInput) -> StepOutput:
        """Run the forward plan, then the sampling and scoring plans as far as the input asks for them.

        Raises OptionError for an input that does not fit the engine.
        """
        step = checked_arrays(step)
        with self.lock:
            rows = self._forward(step)
            vocabulary = self.manifest.model.vocab_size
            logits = self._plan.output("forward", "logits", (rows, vocabulary), "f32")
            logits.flags.writeable = False
            sampled: dict[str, np.ndarray] = {}
            if rows and step.sampling is not None:
                sampled = self._sample(step.sampling)
            scores = self._score(step.targets) if rows and step.targets is not None else None
            return StepOutput(self._weights.version, logits, target_logprobs=scores, **sampled)

    def generate(self, prompts: Prompts, params: SamplingParams | None = None) -> list[Completion]:
        """Continue every prompt (text or token ids), ``params.n`` times each, batched together, in the prompts' order.

        ``params`` None: the model's own generation defaults. Raises OptionError for a prompt that can never fit.
        """
        return self._generator.generate(prompts, params)

    def stream(self, prompt: str | Sequence[int], params: SamplingParams | None = None) -> Iterator[Chunk]:
        """Continue one prompt, giving each piece of text as it comes. Closing the iterator ends the request."""
        return self._generator.stream(prompt, params)

    async def agenerate(self, prompts: Prompts, params: SamplingParams | None = None) -> list[Completion]:
        """``generate`` without blocking the event loop."""
        return await self._generator.agenerate(prompts, params)

    def astream(self, prompt: str | Sequence[int], params: SamplingParams | None = None) -> AsyncIterator[Chunk]:
        """``stream`` without blocking the event loop."""
        return self._generator.astream(prompt, params)

    def logits(self, token_ids: Sequence[int]) -> np.ndarray:
        """The logits after each of the tokens: float32 [T, vocab_size]."""
        ids = self._given(token_ids)
        result = np.empty((len(ids), self.manifest.model.vocab_size), np.float32)
        for start, output in self._teacher_forced(ids):
            result[start : start + len(output)] = output
        return result

    def score(self, token_ids: Sequence[int]) -> np.ndarray:
        """The natural log-probability of each token given those before it: float32 [T]; the first is nan.

        Raises NumericError where the model's logits are not finite.
        """
        ids = self._given(token_ids)
        result = np.full(len(ids), np.nan, np.float32)
        for start, output in self._teacher_forced(ids[:-1], targets=ids[1:]):
            if not np.isfinite(output).all():
                raise not_finite()
            result[start + 1 : start + 1 + len(output)] = output
        return result

    def update_weights(self, source: WeightSource, version: int | None = None) -> int:
        """Replace all weights by what compiling ``source`` would give, between two steps. Returns the new version.

        source: Hugging Face names to arrays, or a model directory. version: above the present one; default the next.
        All or nothing: on an error (CheckpointError, OptionError) the engine is as it was. Sequences that are running
        keep the keys and values of the weights that computed them.
        """
        if version is not None and not (is_whole(version) and version < 1 << 63):
            raise OptionError(f"version must be a whole number below 2^63, got {version!r}")
        with self._update_lock:
            self.check_open()
            current = self._weights
            wanted = current.version + 1 if version is None else int(version)
            if wanted <= current.version:
                raise OptionError(f"version must be above the present {current.version}, got {wanted}")
            replaced = replay(self.manifest.weights, current, source, wanted)
            with self.lock:
                self.check_open()
                self._weights = replaced
                self._plan.set_weights(replaced.memory)
            return wanted

    def profile(self, step: StepInput, rounds: int = 1) -> tuple[KernelTime, ...]:
        """Run the plans that ``step`` asks for, then each of them ``rounds`` times in direct succession, timing every
        kernel; in the order of the launches.
        """
        step = checked_arrays(step)
        with self.lock:
            rows = self._forward(step)
            times = self._timed("forward", rounds)
            if rows and step.sampling is not None:
                self._sample(step.sampling)
                times += self._timed("sample", rounds)
            if rows and step.targets is not None:
                self._score(step.targets)
                times += self._timed("score", rounds)
        return tuple(times)

    def _timed(self, function: str, rounds: int) -> list[KernelTime]:
        launches = self._plan.functions[function].plan.launches
        seconds = np.zeros((rounds, len(launches)))
        for times in seconds:
            self._plan.run(function, times)
        return [
            KernelTime(launch.origin, launch.kernel, float(np.median(times)), function, launch.work, times)
            for launch, times in zip(launches, seconds.T, strict=True)
        ]

    def _given(self, token_ids: Sequence[int]) -> np.ndarray:
        self.check_open()
        return np.array(token_list(token_ids, self.manifest.model.vocab_size, "token_ids"), np.int32)

    def _group_pages(self) -> list[int]:
        """How many pages each state group gets."""
        groups, states, options = self.manifest.groups, self.manifest.states, self.options
        longest = self.manifest.model.max_context
        tokens = options.kv_tokens
        if tokens is None:
            page_tokens = {group.index: group.page_tokens for group in groups}
            per_token = sum(state.page_bytes / page_tokens[state.group] for state in states)
            affordable = int(available_bytes() * _KV_SHARE / per_token) if per_token else longest
            tokens = min(options.max_sequences * longest, max(longest, affordable))
        pages = []
        for group in groups:
            most = options.max_sequences * pages_needed(group, longest, options.max_tokens)
            pages.append(min(-(-tokens // group.page_tokens), most))
        return pages

    def _forward(self, step: StepInput) -> int:
        self.check_open()
        owner = check_step(step, self.manifest, self.capacities, [pool.pages for pool in self.kv.pools])
        columns = step.block_tables[0].shape[1] if step.block_tables else 0
        rows = step.logit_rows.size
        self._plan.set_sizes(step.token_ids.size, step.query_starts.size - 1, rows, columns)
        for name in self._plan.functions["forward"].inputs:
            kind, _, group = name.partition(".")
            if kind == "slots":
                values = self._slots(step, int(group), owner)
            elif kind == "block_table":
                values = step.block_tables[int(group)]
            else:
                values = getattr(step, name)
            self._plan.give("forward", name, values)
        self._plan.run("forward")
        return rows

    def _slots(self, step: StepInput, group: int, owner: np.ndarray) -> np.ndarray:
        """Where each token's key and value go: page * page_tokens + place in the page."""
        page_tokens = self.manifest.groups[group].page_tokens
        blocks, places = np.divmod(step.positions[0], page_tokens)
        return step.block_tables[group][owner, blocks] * page_tokens + places

    def _sample(self, sampling: SamplingInput) -> dict[str, np.ndarray]:
        for name in self._plan.functions["sample"].inputs:
            self._plan.give("sample", name, getattr(sampling, name))
        self._plan.run("sample")
        rows = len(sampling.rows)
        return {
            "tokens": self._plan.output("sample", "token", (rows,), "i32").copy(),
            "logprobs": self._plan.output("sample", "logprobs", (rows, 3), "f32").copy(),
            "top_ids": self._plan.output("sample", "top_ids", (rows, TOP_LOGPROBS), "i32").copy(),
            "top_logprobs": self._plan.output("sample", "top_values", (rows, TOP_LOGPROBS), "f32").copy(),
        }

    def _score(self, targets: np.ndarray) -> np.ndarray:
        self._plan.give("score", "targets", targets)
        self._plan.run("score")
        return self._plan.output("score", "logprob", (len(targets),), "f32").copy()

    def _teacher_forced(
        self, tokens: np.ndarray, targets: np.ndarray | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Over given tokens, in blocks: (first position, the block's logits, or its scores of ``targets``)."""
        longest = self.manifest.model.max_context
        if len(tokens) > longest:
            raise OptionError(f"this engine takes at most {longest} tokens (max_context), got {len(tokens)}")
        with self.lock:
            pages = self.kv.reserve(len(tokens))
        if pages is None:
            raise OptionError(
                f"{len(tokens)} tokens need more key-value memory than running requests leave; "
                "wait for them, or load the engine with a larger kv_tokens"
            )
        try:
            block = min(self.capacities.tokens, self.capacities.rows)
            for start in range(0, len(tokens), block):
                stop = min(start + block, len(tokens))
                with self.lock:
                    self.kv.extend(pages, start, stop)
                    output = self.step(
                        StepInput(
                            token_ids=tokens[start:stop],
                            positions=np.arange(start, stop, dtype=np.int32)[None],
                            query_starts=np.array([0, stop - start], np.int32),
                            block_tables=self.kv.tables([pages]),
                            logit_rows=np.arange(stop - start, dtype=np.int32),
                            targets=None if targets is None else targets[start:stop],
                        )
                    )
                    yield start, output.logits if output.target_logprobs is None else output.target_logprobs
        finally:
            with self.lock:
                self.kv.release(pages)
