"""/v1/chat/completions, asked by the official client."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from xllmc.runtime.engine import Engine
from xllmc.runtime.sampling import SamplingParams

from tests.runtime.server.serving import Running
from tests.runtime.toy import MAX_CONTEXT

MODEL = "toy"
MESSAGES = [{"role": "user", "content": "hé"}]


def test_the_answer_is_the_engines(server: Running, toy: Engine) -> None:
    ids = toy.tokenizer.encode_chat(MESSAGES)
    expected = toy.generate([ids], SamplingParams(seed=4, n=2, max_tokens=10, temperature=0.9))
    got = server.openai.chat.completions.create(
        model=MODEL, messages=MESSAGES, seed=4, n=2, max_completion_tokens=10, temperature=0.9
    )
    assert [choice.message.content for choice in got.choices] == [each.text for each in expected]
    assert [choice.index for choice in got.choices] == [0, 1]
    assert all(choice.message.role == "assistant" and choice.logprobs is None for choice in got.choices)
    assert got.usage.prompt_tokens == len(ids) and got.usage.completion_tokens == 20
    assert got.object == "chat.completion"


def test_a_stream_gives_what_a_whole_answer_gives(server: Running) -> None:
    asked = dict(model=MODEL, messages=MESSAGES, seed=4, n=2, max_tokens=10, logprobs=True, top_logprobs=2)
    extra = {"return_token_ids": True}
    whole = server.openai.chat.completions.create(**asked, extra_body=extra)
    chunks = list(
        server.openai.chat.completions.create(
            **asked, extra_body=extra, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage == whole.usage and chunks[-1].choices == []
    assert chunks[0].prompt_token_ids == whole.prompt_token_ids
    for choice in whole.choices:
        pieces = [piece for chunk in chunks for piece in chunk.choices if piece.index == choice.index]
        assert pieces[0].delta.role == "assistant" and pieces[0].delta.content == ""
        assert all(piece.delta.role is None for piece in pieces[1:])
        assert "".join(piece.delta.content or "" for piece in pieces) == choice.message.content
        assert pieces[-1].finish_reason == choice.finish_reason
        assert [entry for piece in pieces if piece.logprobs for entry in piece.logprobs.content] == (
            choice.logprobs.content
        )
        assert [token for piece in pieces[1:] for token in piece.token_ids] == choice.token_ids


def test_logprobs_have_the_bytes_of_their_tokens(server: Running, toy: Engine) -> None:
    bias = {str(token): 50 for token in toy.tokenizer.encode("é")}
    got = server.openai.chat.completions.create(
        model=MODEL, messages=MESSAGES, seed=4, max_tokens=6, logprobs=True, top_logprobs=3, logit_bias=bias
    ).choices[0]
    assert len(got.logprobs.content) == 6
    for entry in got.logprobs.content:
        assert entry.token in (r"\xc3", r"\xa9") and entry.bytes in ([0xC3], [0xA9])
        assert len(entry.top_logprobs) == 3
    plain = server.openai.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=2, logprobs=True)
    assert [entry.top_logprobs for entry in plain.choices[0].logprobs.content] == [[], []]


def test_messages_reach_the_template(server: Running, toy: Engine) -> None:
    """Parts are joined, developers are the system, an answer can be sent back, and variables are given on."""
    messages = [
        {"role": "developer", "content": "D"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        server.openai.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=3).choices[0].message,
        {"role": "user", "content": ""},
    ]
    plain = [
        {"role": "system", "content": "D"},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": messages[2].content},
        {"role": "user", "content": ""},
    ]
    extra = {"return_token_ids": True, "chat_template_kwargs": {"shout": True}}
    got = server.openai.chat.completions.create(model=MODEL, messages=messages, max_tokens=1, extra_body=extra)
    assert got.prompt_token_ids == toy.tokenizer.encode_chat(plain, shout=True)
    assert got.prompt_token_ids != toy.tokenizer.encode_chat(plain)


def test_answers_may_fill_the_context(server: Running, toy: Engine) -> None:
    got = server.post("/v1/chat/completions", messages=MESSAGES, ignore_eos=True, temperature=0).json()
    assert got["usage"]["total_tokens"] == MAX_CONTEXT and got["choices"][0]["finish_reason"] == "length"


REFUSED = {
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "offers no tools"),
    "tool choice": ({"tool_choice": "required"}, "offers no tools"),
    "functions": ({"functions": [{"name": "f"}]}, "offers no tools"),
    "structured output": ({"response_format": {"type": "json_object"}}, "gives no structured output"),
    "audio": ({"audio": {"voice": "x", "format": "wav"}}, "offers no audio"),
    "two limits": ({"max_tokens": 3, "max_completion_tokens": 4}, "two names of one limit"),
    "top without logprobs": ({"top_logprobs": 2}, "needs logprobs"),
    "own variables": ({"chat_template_kwargs": {"messages": []}}, "given anyway"),
}


@pytest.mark.parametrize(("fields", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_offered_is_refused_in_words(server: Running, fields: dict[str, object], message: str) -> None:
    response = server.post("/v1/chat/completions", messages=MESSAGES, **fields)
    assert response.status_code == 400 and message in response.json()["error"]["message"]


EMPTY = {
    "tools": [], "tool_choice": "none", "functions": None, "response_format": {"type": "text"}, "user": "me",
    "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "parallel_tool_calls": True, "modalities": ["text"],
}  # fmt: skip


def test_what_changes_no_answer_is_taken(server: Running) -> None:
    response = server.post("/v1/chat/completions", messages=MESSAGES, max_tokens=1, **EMPTY)
    assert response.status_code == 200


MESSAGE_ERRORS = {
    "an image": ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "messages[0]"),
    "no content": ([{"role": "user"}], "messages[0]"),
    "tools": ([{"role": "tool", "content": "x"}], "messages"),
    "none": ([], "messages"),
    "another role": ([{"role": "robot", "content": "x"}], "messages[0].role"),
    "called": ([{"role": "assistant", "tool_calls": [{"id": "1"}]}], "messages[0].tool_calls"),
}


@pytest.mark.parametrize(("messages", "param"), MESSAGE_ERRORS.values(), ids=MESSAGE_ERRORS)
def test_bad_messages_are_named(server: Running, messages: object, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        server.openai.chat.completions.create(model=MODEL, messages=messages)
    assert refused.value.param.startswith(param)


def test_templates_do_not_hold_up_others(server: Running, toy: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short the messages are."""
    began, go_on = threading.Event(), threading.Event()
    encode = toy.tokenizer.encode_chat

    def slow(messages: Any, **variables: Any) -> list[int]:
        began.set()
        assert go_on.wait(60)
        return encode(messages, **variables)

    monkeypatch.setattr(toy.tokenizer, "encode_chat", slow)
    with ThreadPoolExecutor() as pool:
        messages = [{"role": "user", "content": ""}]
        asked = pool.submit(server.post, "/v1/chat/completions", messages=messages, max_tokens=1)
        try:
            assert began.wait(60)
            assert server.http.get("/health", timeout=30).status_code == 200
        finally:
            go_on.set()
        assert asked.result().status_code == 200
