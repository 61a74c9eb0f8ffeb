"""/v1/completions, asked by the official client."""

import json
import math
from pathlib import Path

import numpy as np
import openai
import pytest
from xllmc.runtime.engine import Engine
from xllmc.runtime.sampling import SamplingParams

from tests.runtime.server.serving import Running, running
from tests.runtime.toy import END, VOCAB, tokenizer_json, write_toy

MODEL = "toy"


def test_the_text_is_the_engines(server: Running, toy: Engine) -> None:
    """A server that lost a parameter, or put in its own, would give another text."""
    asked = dict(temperature=0.8, top_p=0.9, seed=7, presence_penalty=0.5, frequency_penalty=0.2, max_tokens=12)
    extra = {"top_k": 40, "min_p": 0.01, "repetition_penalty": 1.1}
    (expected,) = toy.generate("hello", SamplingParams(**asked, **extra))
    got = server.openai.completions.create(model=MODEL, prompt="hello", extra_body=extra, **asked)
    assert got.choices[0].text == expected.text
    assert got.choices[0].finish_reason == expected.finish_reason == "length"
    assert (got.usage.prompt_tokens, got.usage.completion_tokens, got.usage.total_tokens) == (5, 12, 17)
    assert got.object == "text_completion" and got.model == MODEL and got.id.startswith("cmpl-")
    assert got.system_fingerprint == f"fp_{toy.manifest.digest[:12]}_{toy.weights.version}"


@pytest.mark.parametrize("prompt", ["ab", ["ab", "c"], [97, 98], [[97, 98], [99]]], ids=str)
def test_prompts_may_be_texts_or_ids(server: Running, toy: Engine, prompt: object) -> None:
    got = server.openai.completions.create(model=MODEL, prompt=prompt, n=2, seed=1, max_tokens=5)
    ids = [[97, 98], [99]] if isinstance(prompt, list) and not isinstance(prompt[0], int) else [[97, 98]]
    ids = [toy.tokenizer.encode(text) for text in ("ab", "c")][: len(ids)] if prompt in ("ab", ["ab", "c"]) else ids
    expected = toy.generate(ids, SamplingParams(n=2, seed=1, max_tokens=5))
    assert [choice.text for choice in got.choices] == [each.text for each in expected]
    assert [choice.index for choice in got.choices] == list(range(2 * len(ids)))
    assert got.usage.prompt_tokens == sum(map(len, ids)) and got.usage.completion_tokens == 10 * len(ids)


def test_a_stream_gives_what_a_whole_answer_gives(server: Running) -> None:
    asked = dict(model=MODEL, prompt=["one", "two"], n=3, seed=5, max_tokens=9, logprobs=2, echo=True, temperature=1.5)
    extra = {"return_token_ids": True}
    whole = server.openai.completions.create(**asked, extra_body=extra)
    chunks = list(
        server.openai.completions.create(**asked, extra_body=extra, stream=True, stream_options={"include_usage": True})
    )
    assert chunks[-1].usage == whole.usage and chunks[-1].choices == []
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1
    for choice in whole.choices:
        pieces = [piece for chunk in chunks for piece in chunk.choices if piece.index == choice.index]
        assert "".join(piece.text for piece in pieces) == choice.text
        assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + [choice.finish_reason]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            joined = [value for piece in pieces for value in getattr(piece.logprobs, name)]
            assert joined == getattr(choice.logprobs, name)
        assert [token for piece in pieces for token in piece.token_ids] == choice.token_ids
        assert pieces[0].prompt_token_ids == choice.prompt_token_ids
        assert all(not hasattr(piece, "prompt_token_ids") for piece in pieces[1:])


def test_a_stream_has_a_piece_for_every_token_and_no_usage_unless_asked(server: Running) -> None:
    chunks = list(server.openai.completions.create(model=MODEL, prompt="é", max_tokens=30, seed=2, stream=True))
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)
    assert len(chunks) == 30 and not all(chunk.choices[0].text for chunk in chunks)


def test_logprobs_are_the_models_own(server: Running, toy: Engine) -> None:
    """Of the prompt with echo, and before temperature, penalties and biases."""
    got = server.openai.completions.create(
        model=MODEL, prompt="abc", echo=True, logprobs=3, max_tokens=4, seed=3, temperature=0.5, presence_penalty=1
    ).choices[0]
    ids = toy.tokenizer.encode("abc")
    found = toy.generate([ids], SamplingParams(seed=3, temperature=0.5, presence_penalty=1, max_tokens=4))[0]
    scores = toy.score([*ids, *found.token_ids])
    assert got.logprobs.token_logprobs[0] is None and got.logprobs.top_logprobs[0] is None
    assert np.allclose(got.logprobs.token_logprobs[1:], scores[1:], atol=1e-5)
    assert len(got.logprobs.tokens) == 7
    for token, own, top in list(
        zip(got.logprobs.tokens, got.logprobs.token_logprobs, got.logprobs.top_logprobs, strict=True)
    )[1:]:
        assert top[token] == own and 3 <= len(top) <= 4
        assert own <= max(top.values())


def test_offsets_find_the_tokens_in_the_text(server: Running) -> None:
    """Tokens of half a character, which are bytes of the toy's tokenizer, have the offset where it begins."""
    got = server.openai.completions.create(model=MODEL, prompt="aé東b", echo=True, logprobs=0, max_tokens=0).choices[0]
    assert got.text == "aé東b" and got.finish_reason == "length"
    assert got.logprobs.tokens == [
        "a",
        r"bytes:\xc3",
        r"bytes:\xa9",
        *(rf"bytes:\x{b:02x}" for b in "東".encode()),
        "b",
    ]
    assert got.logprobs.text_offset == [0, 1, 1, 2, 2, 2, 3]
    assert [len(top) for top in got.logprobs.top_logprobs[1:]] == [1] * 6


def test_what_cannot_be_sampled_has_a_finite_logprob(server: Running, toy: Engine) -> None:
    """JSON has no infinity."""
    bias = {str(token): -1e9 for token in range(97, 200)}
    response = server.post(prompt="a", logit_bias=bias, logprobs=20, max_tokens=3, seed=1)
    assert response.status_code == 200
    values = response.json()["choices"][0]["logprobs"]["token_logprobs"]
    assert all(math.isfinite(value) for value in values)


def test_stop_strings_and_tokens_end_the_text(server: Running, toy: Engine) -> None:
    ids = toy.tokenizer.encode("ab")
    bias = {str(token): 1e4 for token in ids}
    got = server.openai.completions.create(
        model=MODEL, prompt="x", stop=["ba", "zz"], seed=1, max_tokens=60, extra_body={"logit_bias": bias}
    ).choices[0]
    assert got.finish_reason == "stop" and "ba" not in got.text and set(got.text) <= {"a", "b"}
    certain = {"logit_bias": {str(END): 100.0}, "return_token_ids": True}
    ended = server.openai.completions.create(model=MODEL, prompt="x", max_tokens=9, extra_body=certain).choices[0]
    assert (ended.finish_reason, ended.text, ended.token_ids) == ("stop", "", [END])
    on = server.openai.completions.create(
        model=MODEL, prompt="x", max_tokens=3, extra_body=certain | {"ignore_eos": True}
    ).choices[0]
    assert (on.finish_reason, on.token_ids) == ("length", [END] * 3)
    by_id = certain | {"ignore_eos": True, "stop_token_ids": [END]}
    stopped = server.openai.completions.create(model=MODEL, prompt="x", max_tokens=3, extra_body=by_id).choices[0]
    assert (stopped.finish_reason, stopped.token_ids) == ("stop", [END])


def test_seeds_repeat_and_others_differ(server: Running) -> None:
    def text(seed: int | None) -> str:
        return server.openai.completions.create(model=MODEL, prompt="s", seed=seed, max_tokens=20).choices[0].text

    assert text(-3) == text(-3) == text((1 << 64) - 3)
    assert len({text(None) for _ in range(3)}) == 3


def test_sixteen_tokens_are_the_default(server: Running) -> None:
    assert server.openai.completions.create(model=MODEL, prompt="x").usage.completion_tokens <= 16
    assert server.post(prompt="x", max_tokens=None, ignore_eos=True).json()["usage"]["completion_tokens"] == 16


def test_the_models_own_defaults_hold_where_nothing_is_asked_for(toy_library: Path, tmp_path: Path) -> None:
    """As generation_config.json says if it asks for sampling; else, and on demand, as OpenAI's documents say."""
    own = {"do_sample": True, "temperature": 0.3, "top_k": 5, "top_p": 0.8}
    for config, setting, expected in (
        (own, "model", {"temperature": 0.3, "top_k": 5, "top_p": 0.8}),
        (own, "openai", {}),
        ({"repetition_penalty": 1.5}, "model", {"repetition_penalty": 1.5}),
    ):
        files = {"tokenizer.json": tokenizer_json(), "generation_config.json": json.dumps(config)}
        path = write_toy(tmp_path / "toy.engine", toy_library, tokenizer_files=files)
        with Engine.load(path, threads=1) as engine, running(engine, sampling_defaults=setting) as server:
            (wanted,) = engine.generate("x", SamplingParams(seed=1, max_tokens=16, **expected))
            got = server.openai.completions.create(model=MODEL, prompt="x", seed=1).choices[0]
            assert got.text == wanted.text
            cold = server.openai.completions.create(model=MODEL, prompt="x", seed=1, temperature=0).choices[0]
            (wanted,) = engine.generate("x", SamplingParams(max_tokens=16, **expected | {"temperature": 0}))
            assert cold.text == wanted.text


def test_the_prefix_cache_is_told(server: Running) -> None:
    prompt = [[3] * 100]
    server.openai.completions.create(model=MODEL, prompt=prompt, max_tokens=1)
    again = server.openai.completions.create(model=MODEL, prompt=prompt, max_tokens=1)
    assert 0 < again.usage.prompt_tokens_details.cached_tokens < 100
    salted = server.openai.completions.create(
        model=MODEL, prompt=prompt, max_tokens=1, extra_body={"cache_salt": "mine"}
    )
    assert salted.usage.prompt_tokens_details.cached_tokens == 0


def test_errors_are_the_clients_exceptions(server: Running) -> None:
    create = server.openai.completions.create
    with pytest.raises(openai.NotFoundError) as absent:
        create(model="other", prompt="x")
    assert absent.value.code == "model_not_found" and absent.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="shorter than the model's context of 200 tokens, got 200") as long:
        create(model=MODEL, prompt="x" * 200)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="200 tokens, got 20000"):
        create(model=MODEL, prompt="x" * 20_000)
    with pytest.raises(openai.BadRequestError, match=f"from 0 to {VOCAB - 1}, got {VOCAB}"):
        create(model=MODEL, prompt=[[1], [VOCAB]])
    with pytest.raises(openai.BadRequestError, match="stream_options: needs stream"):
        create(model=MODEL, prompt="x", stream_options={"include_usage": True})
    with pytest.raises(openai.BadRequestError, match="2048 samples"):
        create(model=MODEL, prompt=["x"] * 17, n=128)
