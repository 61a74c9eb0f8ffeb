"""Whatever is sent, the answer is an error object of the right status, and never a fault of the server's."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from xllmc.runtime.engine import Engine

from tests.runtime.server.serving import Running, client, running

PATHS = ("/v1/completions", "/v1/chat/completions")
JSON = {"Content-Type": "application/json"}


def error(response: httpx.Response) -> dict[str, object]:
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    return body["error"]


BAD_BODIES = {
    "empty": b"",
    "cut off": b'{"prompt": "x"',
    "NaN": b'{"prompt": "x", "temperature": NaN}',
    "infinity": b'{"prompt": "x", "temperature": -Infinity}',
    "overflow": b'{"prompt": "x", "temperature": 1e999}',
    "deep": b'{"prompt": ' + b"[" * 100_000,
    "deep and closed": b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "lone surrogate": rb'{"prompt": "\ud800"}',
    "not UTF-8": b'{"prompt": "\xff"}',
    "surrogate in UTF-8": b'{"prompt": "\xed\xa0\x80"}',
    "a list": b"[]",
    "null": b"null",
    "a long number": b'{"prompt": "x", "max_tokens": ' + b"9" * 4000 + b"}",
    "a longer number": b'{"prompt": "x", "max_tokens": ' + b"9" * 5000 + b"}",
    "a long float": b'{"prompt": "x", "temperature": ' + b"9" * 4000 + b"}",
    "a long seed": b'{"prompt": "x", "seed": ' + b"9" * 4000 + b"}",
    "a long token": b'{"prompt": [' + b"9" * 4000 + b"]}",
    "a long bias": b'{"prompt": "x", "logit_bias": {"' + b"9" * 4000 + b'": 1}}',
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_bad_json_is_a_bad_request(server: Running, path: str, body: bytes) -> None:
    response = server.http.post(path, content=body, headers=JSON)
    assert response.status_code == 400
    error(response)


BAD_FIELDS = {
    "unknown": ({"temprature": 1}, "temprature", "unknown_field"),
    "of the wrong type": ({"temperature": "1"}, "temperature", "invalid_value"),
    "truth for a number": ({"max_tokens": True}, "max_tokens", "invalid_value"),
    "a float for a count": ({"max_tokens": 1.5}, "max_tokens", "invalid_value"),
    "out of range": ({"top_p": 0}, "top_p", "invalid_value"),
    "a negative count": ({"n": -1}, "n", "invalid_value"),
    "many samples": ({"n": 129}, "n", "invalid_value"),
    "no echo": ({"max_tokens": 0}, "", "invalid_value"),
    "the best of more": ({"best_of": 2}, "", "invalid_value"),
    "a suffix": ({"suffix": "x"}, "suffix", "invalid_value"),
    "stops": ({"stop": ["x"] * 17}, "stop", "invalid_value"),
    "an empty stop": ({"stop": ["a", ""]}, "stop[1]", "invalid_value"),
    "a bias of text": ({"logit_bias": {"a": 1}}, "logit_bias", "invalid_value"),
    "a bias twice": ({"logit_bias": {"1": 1, "01": 2}}, "logit_bias", "invalid_value"),
    "a bias too large": ({"logit_bias": {"1": 1e30}}, "logit_bias", "invalid_value"),
    "a bias of no token": ({"logit_bias": {"999": 1}}, None, None),
    "a stop token of none": ({"stop_token_ids": [999]}, None, None),
    "a stream's options": ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown_field"),
    "an empty prompt": ({"prompt": ""}, "prompt", None),
    "no prompts": ({"prompt": []}, "prompt", "invalid_value"),
    "an empty list": ({"prompt": [[]]}, "prompt", "invalid_value"),
    "mixed": ({"prompt": ["a", [1]]}, "prompt", "invalid_value"),
    "truth for tokens": ({"prompt": [True]}, "prompt", "invalid_value"),
    "a negative token": ({"prompt": [-1]}, "prompt", None),
    "a second prompt too long": ({"prompt": ["a", "b" * 300]}, "prompt[1]", "context_length_exceeded"),
    "an object": ({"prompt": {"a": 1}}, "prompt", "invalid_value"),
}


@pytest.mark.parametrize(("fields", "param", "code"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_bad_fields_are_named(server: Running, fields: dict[str, object], param: str | None, code: str | None) -> None:
    response = server.post(**{"prompt": "x", **fields})
    assert response.status_code == 400
    said = error(response)
    assert said["type"] == "invalid_request_error" and said["code"] == code
    assert said["param"] == (param or None)
    assert "\n" not in str(said["message"])


def test_a_prompt_is_required(server: Running) -> None:
    said = error(server.post())
    assert (said["param"], said["code"]) == ("prompt", "missing_field")


def test_long_values_are_not_told_back(server: Running) -> None:
    said = error(server.post(prompt="x", temperature="t" * 10_000))
    assert len(str(said["message"])) < 300


def test_other_paths_and_methods(server: Running) -> None:
    assert server.http.get("/v1/nothing").status_code == 404
    assert error(server.http.get("/v1/nothing"))["type"] == "invalid_request_error"
    wrong = server.http.get("/v1/completions")
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"
    error(wrong)
    assert error(server.http.get("/v1/models/other"))["code"] == "model_not_found"


def test_only_json_is_read(server: Running) -> None:
    """What a web page can send to this machine without asking first must not run a model."""
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        response = server.http.post("/v1/completions", content=b'{"prompt": "x"}', headers=headers)
        assert response.status_code == 415
        error(response)
    charset = {"Content-Type": "application/json; charset=utf-8"}
    assert server.http.post("/v1/completions", content=b'{"prompt": "x"}', headers=charset).status_code == 200


@pytest.fixture(scope="module")
def strict(other: Engine) -> Iterator[Running]:
    with running(other, max_body_bytes=1000, max_connections=3, idle_timeout=0.5, api_key=("secret", "other")) as found:
        yield found


def test_large_bodies_are_refused(strict: Running) -> None:
    headers = {"Authorization": "Bearer secret"} | JSON
    declared = strict.http.post("/v1/completions", content=b"x" * 1001, headers=headers)
    counted = strict.http.post("/v1/completions", content=iter([b"x" * 600] * 2), headers=headers)
    for response in (declared, counted):
        assert response.status_code == 413
        error(response)


def test_keys_are_asked_for(strict: Running) -> None:
    for sent in ("secret", "Bearer", "Bearer wrong", "Bearer secretother", "Basic secret"):
        refused = strict.http.get("/v1/models", headers={"Authorization": sent})
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert error(refused)["code"] == "invalid_api_key"
    for path in ("/metrics", "/openapi.json", "/nothing", "/version"):
        assert strict.http.get(path).status_code == 401
    for path in ("/health", "/ready"):
        assert strict.http.get(path).status_code == 200
    for key in ("secret", "other"):
        with client(strict.url, key) as caller:
            assert caller.models.list().data[0].id == "toy"
    with client(strict.url, "none") as caller, pytest.raises(openai.AuthenticationError):
        caller.completions.create(model="toy", prompt="x")


def test_priorities_are_limited(server: Running, other: Engine) -> None:
    """Lower ones, which only let others go first, are not."""
    for body in ({"prompt": "x"}, {"prompt": "x", "stream": True}):
        refused = error(server.post(**body, priority=1))
        assert refused["param"] == "priority" and "max_priority" in refused["message"]
    messages = [{"role": "user", "content": "x"}]
    assert server.post(PATHS[1], messages=messages, priority=1).status_code == 400
    assert server.post(prompt="x", max_tokens=1, priority=-1).status_code == 200
    with running(other, max_priority=2) as found:
        assert found.post(prompt="x", max_tokens=1, priority=2).status_code == 200
        assert found.post(prompt="x", max_tokens=1, priority=3).status_code == 400


def test_metrics_can_be_open(chatty_engine: Path) -> None:
    with (
        Engine.load(chatty_engine, threads=1) as engine,
        running(engine, api_key=("secret",), open_metrics=True) as found,
    ):
        assert found.http.get("/metrics").status_code == 200
        assert found.http.get("/v1/models").status_code == 401


def test_connections_are_limited_and_silent_ones_closed(strict: Running) -> None:
    strict.http.close()
    host, port = strict.url.removeprefix("http://").split(":")
    held = [socket.create_connection((host, int(port))) for _ in range(3)]
    try:
        # The connections must be accepted before the next one asks.
        answer = b""
        while not answer.startswith(b"HTTP/1.1 503"):
            with socket.create_connection((host, int(port))) as one:
                one.settimeout(60)
                one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = one.recv(65536)
        assert b"Retry-After: 1" in answer and b'"error"' in answer
        # One has asked before, and begins to ask again.
        held[0].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he")
        assert held[0].recv(65536).startswith(b"HTTP/1.1 200")
        held[0].settimeout(60)
        while held[0].recv(65536):
            pass
        for each in held[1:]:
            each.settimeout(60)
            assert each.recv(1) == b""
    finally:
        for each in held:
            each.close()
