"""What a server that cannot answer says, and to whom."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openai
import pytest
from xllmc.runtime.engine import Engine
from xllmc.runtime.options import SchedulingOptions
from xllmc.runtime.sampling import SamplingParams

from tests.runtime.server.serving import running, wait_until
from tests.runtime.toy import checkpoint, write_toy

LONG = {"max_tokens": 150, "ignore_eos": True}


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """The engine computes nothing until the block ends."""
    with engine.lock:
        yield


@pytest.fixture
def own(chatty_engine: Path) -> Iterator[Engine]:
    """An engine that a test may break."""
    scheduling = SchedulingOptions(max_waiting=2)
    with Engine.load(chatty_engine, threads=1, max_sequences=1, scheduling=scheduling) as engine:
        yield engine


def test_a_full_queue_is_told_with_a_time(own: Engine) -> None:
    with running(own) as server, ThreadPoolExecutor() as pool:
        with held(own):
            taken = [pool.submit(server.post, prompt="x", max_tokens=1)]
            wait_until(lambda: own.stats().running == 1)
            taken += [pool.submit(server.post, prompt="x", max_tokens=1) for _ in range(2)]
            wait_until(lambda: own.stats().waiting == 2)
            for stream in (False, True):
                refused = server.post(prompt="x", stream=stream)
                assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
                assert refused.json()["error"]["code"] == "queue_full"
            with pytest.raises(openai.RateLimitError):
                server.openai.completions.create(model="toy", prompt="x")
        assert [each.result().status_code for each in taken] == [200] * 3


def test_a_deadline_is_told(own: Engine) -> None:
    """Before anything was sent with a status, later with an event."""
    with running(own, request_timeout=0.3) as server:
        with held(own):
            for stream in (False, True):
                late = server.post(prompt="x", stream=stream)
                assert late.status_code == 408 and late.json()["error"]["code"] == "deadline"
                assert late.headers["x-should-retry"] == "false"
        with server.http.stream("POST", "/v1/completions", json={"prompt": "x", "stream": True, **LONG}) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: {")
            with held(own):
                rest = [line for line in lines if line]
        assert rest[-2] == "event: error"
        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "deadline"


def test_the_official_client_sees_an_error_in_a_stream(own: Engine) -> None:
    with running(own, request_timeout=0.3) as server:
        stream = server.openai.completions.create(
            model="toy", prompt="x", stream=True, max_tokens=150, extra_body={"ignore_eos": True}
        )
        next(stream)
        with held(own), pytest.raises(openai.APIError, match=r"deadline|not done"):
            list(stream)


def test_a_broken_model_is_the_servers_fault(own: Engine) -> None:
    broken = checkpoint(0)
    broken["all.weight"][5] = np.nan
    own.update_weights(broken)
    with running(own) as server:
        for stream in (False, True):
            failed = server.post(prompt=[5], stream=stream)
            assert failed.status_code == 500 and failed.json()["error"]["code"] == "not_finite"
        assert server.post(prompt=[6], max_tokens=1).status_code == 200


def test_a_server_that_loads_says_so(other: Engine) -> None:
    loaded = threading.Event()
    with running(other, loaded) as server:
        assert server.http.get("/health").json() == {"status": "loading"}
        for path in ("/ready", "/v1/models", "/v1/models/toy"):
            response = server.http.get(path)
            assert response.status_code == 503 and response.headers["retry-after"] == "1"
        refused = server.post(prompt="x")
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "loading"
        loaded.set()
        wait_until(lambda: server.http.get("/ready").status_code == 200)
        assert server.http.get("/ready").json() == {"status": "ok"}
        assert server.post(prompt="x", max_tokens=1).status_code == 200


def test_a_draining_server_answers_what_it_took_and_no_more(own: Engine) -> None:
    with running(own, drain_timeout=60.0) as server, ThreadPoolExecutor() as pool:
        with held(own):
            taken = pool.submit(server.post, prompt="x", **LONG)
            wait_until(lambda: own.stats().running == 1)
            server.stop()
            wait_until(lambda: server.http.get("/ready").status_code == 503)
            assert server.http.get("/ready").json() == {"status": "draining"}
            assert server.http.get("/health").status_code == 200
            refused = server.post(prompt="x")
            assert refused.status_code == 503 and refused.json()["error"]["code"] == "draining"
            assert int(refused.headers["retry-after"]) >= 1
        assert taken.result().status_code == 200
        assert taken.result().json()["usage"]["completion_tokens"] == 150


def test_when_draining_takes_too_long_each_is_told(own: Engine) -> None:
    with running(own, drain_timeout=0.2) as server, ThreadPoolExecutor() as pool:
        begun = threading.Event()

        def streamed() -> list[str]:
            body = {"prompt": "x", "stream": True, **LONG}
            with server.http.stream("POST", "/v1/completions", json=body) as response:
                lines = []
                for line in response.iter_lines():
                    begun.set()
                    lines.append(line)
                return [line for line in lines if line]

        stream = pool.submit(streamed)
        begun.wait(60)
        with held(own):
            whole = pool.submit(server.post, prompt="x", **LONG)
            wait_until(lambda: own.stats().waiting == 1)
            server.stop()
            assert whole.result().status_code == 503 and "stopped before" in whole.result().text
            assert "stopped before" in stream.result()[-1] and stream.result()[-2] == "event: error"


def test_an_engine_without_a_tokenizer_speaks_ids(toy_library: Path, tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "e", toy_library, tokenizer_files={})
    with Engine.load(toy, threads=1) as engine, running(engine) as server:
        asked = {"prompt": [1, 2], "max_tokens": 3, "seed": 1, "logprobs": 1, "echo": True}
        got = server.post(**asked, return_token_ids=True).json()["choices"][0]
        (expected,) = engine.generate([[1, 2]], SamplingParams(max_tokens=3, seed=1, temperature=1.0))
        assert got["token_ids"] == list(expected.token_ids) and got["text"] == ""
        assert got["logprobs"]["tokens"][:2] == ["token_id:1", "token_id:2"]
        assert server.post(prompt="x").status_code == 400
        assert "no tokenizer" in server.post("/v1/chat/completions", messages=[{"role": "user", "content": ""}]).text
