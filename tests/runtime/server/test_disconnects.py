"""A client that leaves ends its request at once, and all of it."""

import contextlib
import logging

import httpx
import pytest
from xllmc.runtime.engine import Engine

from tests.runtime.server.serving import Running, running, wait_until

LONG = {"max_tokens": 150, "ignore_eos": True}
CHAT = {"messages": [{"role": "user", "content": "x"}], "n": 3, "max_tokens": 150, "ignore_eos": True}
ASKED = {
    "one": ("/v1/completions", {"prompt": "x", **LONG}),
    "several": ("/v1/completions", {"prompt": ["x", "yy", "zzz"], "n": 2, **LONG}),
    "chat": ("/v1/chat/completions", CHAT),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("path", "body"), ASKED.values(), ids=ASKED)
def test_a_client_that_leaves_ends_its_request(
    server: Running, toy: Engine, caplog: pytest.LogCaptureFixture, path: str, body: dict[str, object], stream: bool
) -> None:
    """While it waits, and (streamed) while it reads: nothing of it runs or waits afterwards, and no page is held."""
    caplog.set_level(logging.INFO, "xllmc.server")
    before = toy.stats().requests
    with httpx.Client(base_url=server.url, timeout=60) as leaving:
        with toy.lock:
            with contextlib.suppress(httpx.ReadTimeout):
                leaving.post(path, json=body | {"stream": stream}, timeout=0.3)
            assert toy.stats().running + toy.stats().waiting > 0
        if stream:
            with leaving.stream("POST", path, json=body | {"stream": True}) as response:
                lines = response.iter_lines()
                assert next(lines).startswith("data: ")
                with toy.lock:
                    response.close()
                    wait_until(lambda: server.service.active == 0)
    wait_until(lambda: server.service.active == 0 and toy.stats().running + toy.stats().waiting == 0)
    assert all(group.in_use == 0 for group in toy.stats().groups)
    assert toy.stats().output_tokens < 10_000 and toy.stats().requests > before
    wait_until(lambda: sum(line.status == 499 for line in caplog.records) == 1 + stream)
    assert all(line.outcome == "disconnected" for line in caplog.records if line.status == 499)
    assert server.post(prompt="x", max_tokens=1).status_code == 200


def test_a_client_that_leaves_before_its_body_is_whole(server: Running) -> None:
    import socket

    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as leaving:
        lines = (
            "POST /v1/completions HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            "Content-Length: 90",
        )
        leaving.sendall("\r\n".join(lines).encode() + b'\r\n\r\n{"prompt"')
    assert server.post(prompt="x", max_tokens=1).status_code == 200


def test_a_slow_body_is_not_waited_for(chatty_engine: object) -> None:
    def slow():  # type: ignore[no-untyped-def]
        yield b'{"prompt": '
        wait_until(lambda: len(server.service.metrics.text().split(b'status="408"')) > 1)

    with Engine.load(chatty_engine, threads=1) as engine, running(engine, idle_timeout=0.2) as server:
        response = server.http.post("/v1/completions", content=slow(), headers={"Content-Type": "application/json"})
        assert response.status_code == 408 and response.json()["error"]["code"] == "slow_body"
