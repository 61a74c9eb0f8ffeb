"""The answers of /v1/completions."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ..requests import Chunk, FinishReason, Prompt, PromptLogprob, RequestOptions
from ..sampling import SamplingParams
from .call import Call
from .completion_request import CompletionRequest
from .event_stream import DONE, event
from .logprobs import CompletionTexts, Found
from .responses import CompletionBody, CompletionChoice, usage_body
from .served import Served

PromptScores = Sequence[PromptLogprob | None]


@dataclass
class _Choice:
    """One sample of one prompt, given out in one piece or several."""

    answer: "CompletionAnswer"
    prompt_index: int
    index: int
    texts: CompletionTexts
    begun: bool = False

    def add(
        self,
        text: str,
        tokens: Sequence[tuple[int, Found]],
        finish: FinishReason | None,
        scores: PromptScores | None,
    ) -> CompletionChoice:
        """The next piece; ``scores`` are of the prompt, and read by the first."""
        asked, ids = self.answer.asked, self.answer.ids[self.prompt_index]
        first, self.begun = not self.begun, True
        new = list(tokens)
        if first and asked.echo:
            text = self.answer.echo(self.prompt_index) + text
            new = [*zip(ids, scores or [None] * len(ids), strict=True), *new]
        choice = CompletionChoice(
            index=self.index,
            text=text,
            logprobs=None if asked.logprobs is None else self.texts.body(new),
            finish_reason=finish,
        )
        if asked.return_token_ids:
            if first:
                choice.prompt_token_ids = list(ids)
            choice.token_ids = [token for token, _ in tokens]
        return choice


class CompletionAnswer:
    """The answer to one request. ``prompts`` as they came, and their ``ids``."""

    def __init__(
        self, served: Served, call: Call, asked: CompletionRequest, prompts: Sequence[Prompt], ids: Sequence[list[int]]
    ) -> None:
        self.asked = asked
        self.ids = ids
        self._prompts = prompts
        self._served = served
        self._call = call
        self._base = CompletionBody(
            id=f"cmpl-{call.request_id}",
            object="text_completion",
            created=call.created,
            model=served.name(asked.model),
            system_fingerprint=served.fingerprint,
            choices=[],
        )
        for prompt in ids:
            call.add_prompt(len(prompt))

    def echo(self, prompt_index: int) -> str:
        """The prompt's text."""
        prompt = self._prompts[prompt_index]
        if isinstance(prompt, str):
            return prompt
        return self._served.engine.tokenizer.decode(prompt) if self._served.engine.tokenizer.present else ""

    async def whole(self, params: SamplingParams, options: RequestOptions) -> CompletionBody:
        """All at once. Raises what the engine raises."""
        found = await self._served.engine.agenerate(self.ids, params, options=options)
        scores = {each.prompt_index: each.prompt_logprobs for each in found if each.prompt_logprobs is not None}
        choices = []
        for choice, each in zip(self._choices(params.n), found, strict=True):
            self._call.add(each.usage, each.sample_index, each.finish_reason)
            tokens = list(zip(each.token_ids, each.logprobs or [None] * len(each.token_ids), strict=True))
            choices.append(choice.add(each.text, tokens, each.finish_reason, scores.get(each.prompt_index)))
        return self._body(choices, usage=True)

    async def events(self, params: SamplingParams, options: RequestOptions) -> AsyncGenerator[bytes, None]:
        """One for every token, if only to tell that there is one: half a character has no text yet."""
        choices = self._choices(params.n)
        scores: dict[int, PromptScores] = {}
        held: dict[int, list[Chunk]] = {}
        async with aclosing(self._served.engine.astream(self.ids, params, options=options)) as chunks:
            async for chunk in chunks:
                prompt_index = chunk.prompt_index
                self._call.see(chunk)
                if chunk.prompt_logprobs is not None:
                    scores[prompt_index] = chunk.prompt_logprobs
                ready = [*held.pop(prompt_index, []), chunk]
                if params.prompt_logprobs is not None and prompt_index not in scores:
                    # They come with sample 0, and all samples begin with them.
                    held[prompt_index] = ready
                    continue
                for each in ready:
                    choice = choices[prompt_index * params.n + each.sample_index]
                    tokens = [] if each.token_id is None else [(each.token_id, each.logprobs)]
                    piece = choice.add(each.text, tokens, each.finish_reason, scores.get(prompt_index))
                    yield event(self._body([piece]).json_bytes())
        if self.asked.usage_chunk:
            yield event(self._body([], usage=True).json_bytes())
        yield DONE

    def _choices(self, samples: int) -> list[_Choice]:
        return [
            _Choice(self, prompt, prompt * samples + sample, CompletionTexts(self._served.texts))
            for prompt in range(len(self.ids))
            for sample in range(samples)
        ]

    def _body(self, choices: list[CompletionChoice], usage: bool = False) -> CompletionBody:
        update: dict[str, object] = {"choices": choices}
        if usage:
            update["usage"] = usage_body(self._call)
        elif self.asked.usage_chunk:
            update["usage"] = None
        return self._base.model_copy(update=update)
