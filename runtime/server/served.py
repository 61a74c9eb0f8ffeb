"""A loaded engine, as the server's endpoints see it."""

import time
from dataclasses import replace

from ..engine import Engine
from ..sampling import SamplingParams
from .errors import ApiError
from .logprobs import TokenTexts
from .settings import ServeSettings


class Served:
    """A loaded engine, and what answers are made with."""

    def __init__(self, engine: Engine, settings: ServeSettings) -> None:
        """Raises ArtifactError for a tokenizer or generation defaults that are damaged."""
        self.engine = engine
        self.names = settings.names
        self.vocabulary = engine.manifest.model.vocab_size
        self.context = engine.longest
        self.created = int(time.time())
        present = engine.tokenizer.present
        # Parsing a large vocabulary takes half a second, which the first request should not.
        self.texts = TokenTexts(engine.tokenizer.pieces if present else None)
        self.defaults = _defaults(engine, settings)
        """Where a request does not say how to sample."""

    @property
    def fingerprint(self) -> str:
        """Names everything that tokens depend on: the compiled model and the version of its weights."""
        return f"fp_{self.engine.manifest.digest[:12]}_{self.engine.weights.version}"

    def name(self, asked: str | None) -> str:
        """The model's name in an answer. Raises ApiError for another model's."""
        if asked is None:
            return self.names[0]
        if asked not in self.names:
            raise ApiError(
                404,
                f"the model {asked[:100]!r} is not served here; this server has {', '.join(self.names)}",
                param="model",
                code="model_not_found",
            )
        return asked


def _defaults(engine: Engine, settings: ServeSettings) -> SamplingParams:
    if settings.sampling_defaults == "openai":
        return SamplingParams()
    own = engine.tokenizer.default_sampling()
    # Greedy is what a model's file says by saying nothing; OpenAI's clients expect samples to differ.
    return replace(own, temperature=1.0) if own.temperature == 0 else own
