"""An engine directory, loaded: requests run in its loop, batched together; single steps are run by hand."""

import os
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from .artifact.errors import OptionError
from .artifact.reader import read_manifest, read_plan
from .backend import Backend, Capture
from .backends import open_backend
from .checks import is_whole, token_list
from .cost import StepCost
from .generate import Generator, Progress
from .loop.limits import QueueLimits
from .loop.loop import Loop
from .machine import choose_profile
from .observe import EngineStats, Observer
from .opening import Opening
from .options import EngineOptions, SchedulingOptions
from .requests import Chunk, Completion, Prompt, Prompts, RequestOptions
from .runner import KernelTime, Runner
from .sampling import SamplingParams
from .scheduling.budget import TokenBudget
from .scheduling.scheduler import Scheduler
from .states.memory import StateMemory
from .states.paged import PagedGroup
from .step import StepInput, StepOutput, check_plan
from .threads import default_threads
from .tokenizer import Tokenizer
from .update import WeightSource, replay
from .weights import Weights


class Engine:
    """A compiled model, ready to run. Made by ``Engine.load``; its methods may be called from any thread."""

    def __init__(self, opening: Opening, backend: Backend, weights: Weights) -> None:
        manifest, options, scheduling = opening.manifest, opening.options, opening.scheduling
        self.path = opening.root
        self.manifest = manifest
        self.options = options
        self.scheduling = scheduling
        self.capacities = opening.capacities
        self._update_lock = threading.Lock()
        self._runner = Runner(manifest, backend, self.capacities, weights)
        columns = self.capacities.table_columns
        groups = [
            PagedGroup(group, count, columns, options.max_tokens, host)
            for group, count, host in zip(manifest.groups, backend.pages, opening.host_pages, strict=True)
        ]
        self.memory = StateMemory(groups, version=weights.version, prefix_cache=scheduling.prefix_cache)
        """The states of all sequences. The engine's own requests use it: touch it only while there are none."""
        self.tokenizer = Tokenizer(self.path / "tokenizer", manifest.model.eos_token_ids)
        cost = StepCost(opening.plan, choose_profile(backend.isa).profile)
        budget = TokenBudget(cost, self.capacities, scheduling.ttft, scheduling.tpot, backend.threads)
        position_bytes = sum(state.page_bytes for state in manifest.states) / opening.page_tokens
        scheduler = Scheduler(self.memory, self.capacities, budget, scheduling, position_bytes)
        vocab_size = manifest.model.vocab_size
        self._loop = Loop(self._runner, scheduler, self.memory, budget, QueueLimits(scheduling), vocab_size)
        self._generator = Generator(self._loop, self.memory, manifest.model, self.tokenizer)

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
        scheduling: SchedulingOptions | None = None,
    ) -> "Engine":
        """Load an engine directory; nothing is compiled.

        threads: of the kernels; default all this process may use. max_tokens, max_sequences, max_rows: the most tokens,
        sequences and rows of logits in one step. kv_tokens: tokens of all sequences together that the key-value memory
        holds; default what half of the free memory holds (nine tenths of a GPU's; taken only as used). isa: an
        instruction-set level below the best. huge_pages: copy the weights to huge pages instead of mapping them.
        scheduling: how requests share the engine. Raises ArtifactError, OptionError, and DeviceError where a GPU fails.

        Once it runs requests, threads of this process take turns at Python every 0.1 ms, with a GPU every 0.02 ms
        (``sys.setswitchinterval``): kernels would else wait for whoever has it.
        """
        options = EngineOptions(
            default_threads() if threads is None else threads, max_tokens, max_rows, max_sequences, kv_tokens
        )
        scheduling = SchedulingOptions() if scheduling is None else scheduling
        if not isinstance(scheduling, SchedulingOptions):
            raise OptionError(f"scheduling must be SchedulingOptions, got {type(scheduling).__name__}")
        if not isinstance(path, str | os.PathLike):
            raise OptionError(f"an engine is loaded from the path of its directory, got {type(path).__name__}")
        root = Path(path)
        manifest = read_manifest(root)
        plan = read_plan(root)
        check_plan(plan, manifest.model, len(manifest.groups))
        opening = Opening(root, manifest, plan, options, scheduling)
        backend, weights = open_backend(opening, isa, huge_pages)
        with ExitStack() as undo:
            undo.callback(backend.close)
            engine = cls(opening, backend, weights)
            undo.pop_all()
        return engine

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Fail what runs, and stop all threads; the engine cannot be used afterwards."""
        self._loop.close()
        self._runner.close()

    def drain(self) -> None:
        """Take no more requests (DrainingError) from now on; those that were accepted go on."""
        self._loop.drain()

    @property
    def longest(self) -> int:
        """Tokens that a sequence may have: of the model's context, as many as the key-value memory holds."""
        return self.memory.longest(self.manifest.model.max_context)

    @property
    def capture(self) -> Capture | None:
        """What a device recorded at load, to replay it in steps; None on the CPU."""
        return self._runner.capture

    @property
    def weights(self) -> Weights:
        """The packed weights in use, and their version."""
        return self._runner.weights

    @property
    def lock(self) -> threading.RLock:
        """Held while a step runs: hold it while using a step's logits, which are valid until the next one."""
        return self._runner.lock

    def step(self, step: StepInput, *, logits: bool = True) -> StepOutput:
        """Run the forward plan, then the sampling and scoring plans as far as the input asks for them.

        Pages that the block tables name must be the caller's, from ``memory``; what that wants copied or moved before
        is done before. ``logits`` False: nobody reads them, and a GPU need not send them. Raises OptionError for an
        input that does not fit the engine.
        """
        prepared = self._runner.prepare(step)
        with self.lock:
            self._runner.check_open()
            self._runner.store.carry_out(self.memory.take_transfers())
            return self._runner.run(prepared, logits=logits)[0]

    def generate(
        self,
        prompts: Prompts,
        params: SamplingParams | None = None,
        *,
        options: RequestOptions | None = None,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """Continue every prompt (text or token ids), ``params.n`` times each, batched together, in the prompts' order.

        ``params`` None: the model's own generation defaults. ``progress`` is called, in this thread, with how many
        samples are done and how many there are. Raises OptionError for a prompt that can never fit, QueueFullError,
        DrainingError, DeadlineError.
        """
        return self._generator.generate(prompts, params, options, progress)

    def stream(
        self,
        prompts: Prompt | Prompts,
        params: SamplingParams | None = None,
        *,
        options: RequestOptions | None = None,
    ) -> Iterator[Chunk]:
        """Continue one prompt, or several, giving each piece of text as it comes. Closing the iterator ends them."""
        return self._generator.stream(prompts, params, options)

    async def agenerate(
        self,
        prompts: Prompts,
        params: SamplingParams | None = None,
        *,
        options: RequestOptions | None = None,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """``generate`` without blocking the event loop."""
        return await self._generator.agenerate(prompts, params, options, progress)

    def astream(
        self,
        prompts: Prompt | Prompts,
        params: SamplingParams | None = None,
        *,
        options: RequestOptions | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        """``stream`` without blocking the event loop."""
        return self._generator.astream(prompts, params, options)

    def logits(self, token_ids: Sequence[int]) -> np.ndarray:
        """The logits after each of the tokens: float32 [T, vocab_size]."""
        ids = self._given(token_ids)
        return self._generator.logits(ids) if ids else np.empty((0, self.manifest.model.vocab_size), np.float32)

    def score(self, token_ids: Sequence[int]) -> np.ndarray:
        """The natural log-probability of each token given those before it: float32 [T]; the first is nan.

        Raises NumericError where the model's logits are not finite.
        """
        ids = self._given(token_ids)
        return self._generator.score(ids) if len(ids) > 1 else np.full(len(ids), np.nan, np.float32)

    def update_weights(self, source: WeightSource, version: int | None = None) -> int:
        """Replace all weights by what compiling ``source`` would give, between two steps. Returns the new version.

        source: Hugging Face names to arrays, or a model directory. version: above the present one; default the next.
        All or nothing: on an error (CheckpointError, OptionError) the engine is as it was. Sequences that are running
        keep the keys and values of the weights that computed them; new ones find none of these in the prefix cache.
        """
        if self.manifest.random_weights is not None:
            raise OptionError(
                "this engine was compiled with random weights, which no update replaces; compile it with the model's"
            )
        if version is not None and not (is_whole(version) and version < 1 << 63):
            raise OptionError(f"version must be a whole number below 2^63, got {version!r}")
        with self._update_lock:
            self._runner.check_open()
            current = self.weights
            wanted = current.version + 1 if version is None else int(version)
            if wanted <= current.version:
                raise OptionError(f"version must be above the present {current.version}, got {wanted}")
            replaced = replay(self.manifest.weights, current, source, wanted)

            def change() -> None:
                self._runner.set_weights(replaced)
                self.memory.set_version(wanted)

            self._loop.call(change)
            return wanted

    def reset_prefix_cache(self) -> None:
        """Forget the states that are kept for requests that start alike."""
        self._loop.call(self.memory.forget_cache)

    def stats(self) -> EngineStats:
        """What it does now and has done since it was loaded."""
        return self._loop.stats()

    def observe(self, observer: Observer) -> None:
        """Tell ``observer`` of every step and of every sample's end, until ``unobserve``."""
        self._loop.observe(observer)

    def unobserve(self, observer: Observer) -> None:
        """Tell it no more."""
        self._loop.unobserve(observer)

    def profile(self, step: StepInput, rounds: int = 1) -> tuple[KernelTime, ...]:
        """Run the plans that ``step`` asks for, then each of them ``rounds`` times in direct succession, timing every
        kernel; in the order of the launches.
        """
        return self._runner.profile(step, rounds)

    def _given(self, token_ids: Sequence[int]) -> list[int]:
        self._runner.check_open()
        ids = token_list(token_ids, self.manifest.model.vocab_size, "token_ids")
        longest = self.manifest.model.max_context
        if len(ids) > longest:
            raise OptionError(f"this engine takes at most {longest} tokens (max_context), got {len(ids)}")
        return ids
