"""What logs and metrics say."""

import asyncio
import io
import json
import logging
from typing import Literal
from unittest.mock import AsyncMock

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send
from xllmc.runtime.engine import Engine
from xllmc.runtime.observe import RequestRecord, StepRecord
from xllmc.runtime.requests import Usage
from xllmc.runtime.server.call import request_id
from xllmc.runtime.server.logs import LOGGER, HumanFormatter, JsonFormatter
from xllmc.runtime.server.metrics import Metrics
from xllmc.runtime.server.watch import Keys, Watch

from tests.runtime.server.serving import Running, running, wait_until


def metrics(server: Running) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(Name, labels) to value."""
    text = server.http.get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_happens(server: Running, toy: Engine) -> None:
    before = metrics(server)
    prompt = [[9] * 70]
    for _ in range(2):
        assert server.post(prompt=prompt, max_tokens=5, ignore_eos=True, n=2).status_code == 200
    assert server.post(prompt="x", foo=1).status_code == 400
    assert server.http.get("/somewhere/else").status_code == 404
    wait_until(lambda: toy.stats().running == 0)
    after = metrics(server)

    def grown(name: str, **labels: str) -> float:
        key = (f"xllmc_{name}", tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0)

    route = {"route": "/v1/completions", "method": "POST"}
    assert grown("http_requests_total", status="200", **route) == 2
    assert grown("http_requests_total", status="400", **route) == 1
    assert grown("http_requests_total", status="404", route="unmatched", method="GET") == 1
    assert grown("samples_ended_total", outcome="length") == 4
    assert grown("output_tokens_total") == 20
    assert grown("prompt_tokens_total") >= 140 and grown("prefix_cache_hit_tokens_total") >= 32
    for name in ("time_to_first_token_seconds", "time_per_output_token_seconds", "request_seconds", "queue_seconds"):
        assert grown(f"{name}_count") == 4 and grown(f"{name}_sum") > 0
    assert grown("steps_total") > 0 and grown("step_seconds_count") > 0
    assert grown("step_tokens_sum") == grown("computed_tokens_total")
    assert after["xllmc_running", ()] == after["xllmc_waiting", ()] == 0
    for use in ("total", "in_use", "cached"):
        assert ("xllmc_pages", (("group", "1"), ("use", use))) in after
    assert after["xllmc_http_requests_active", ()] == 1
    assert not [name for name, _ in after if not name.startswith("xllmc_")]


def logged(caplog: pytest.LogCaptureFixture, request_id: str) -> logging.LogRecord:
    """The line of a request, which comes after its answer."""
    wait_until(lambda: any(line.request_id == request_id for line in caplog.records))
    (found,) = [line for line in caplog.records if line.request_id == request_id]
    return found


def test_every_request_is_logged_with_its_id(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "xllmc.server")
    body = {"prompt": "a secret", "max_tokens": 3, "n": 2, "ignore_eos": True}
    response = server.http.post("/v1/completions", json=body, headers={"X-Request-Id": "trace/1"})
    assert response.headers["x-request-id"] == "trace/1" and response.json()["id"] == "cmpl-trace/1"
    line = logged(caplog, "trace/1")
    assert (line.method, line.path, line.status) == ("POST", "/v1/completions", 200)
    assert (line.samples, line.prompt_tokens, line.output_tokens, line.outcome) == (2, 8, 6, "length")
    assert 0 < line.ttft_seconds <= line.seconds and line.queue_seconds < line.seconds
    assert "secret" not in JsonFormatter().format(line) + HumanFormatter().format(line)
    assert server.http.get("/v1/models", headers={"X-Request-Id": "two words"}).headers["x-request-id"] != "two words"


def test_errors_are_logged_with_their_codes(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "xllmc.server")
    response = server.post(prompt="x", model="other")
    line = logged(caplog, response.headers["x-request-id"])
    assert (line.outcome, line.error) == ("error", "model_not_found")


class Recorder:
    """Keeps what the engine tells."""

    kernel_times = False

    def __init__(self) -> None:
        self.requests: list[RequestRecord] = []

    def step(self, record: StepRecord) -> None: ...

    def request(self, record: RequestRecord) -> None:
        self.requests.append(record)


def test_the_engine_knows_who_asks_and_how(server: Running, toy: Engine, other: Engine) -> None:
    """An API key's holder is a caller of its own, whatever it says of its users."""
    recorder = Recorder()
    toy.observe(recorder)
    server.http.post(
        "/v1/completions",
        json={"prompt": "x", "user": "me", "priority": -3, "max_tokens": 1},
        headers={"X-Request-Id": "mine"},
    )
    body = {"prompt": ["x", "y"], "stream": True, "max_tokens": 1}
    server.http.post("/v1/completions", json=body, headers={"X-Request-Id": "two"})
    wait_until(lambda: len(recorder.requests) == 3)
    toy.unobserve(recorder)
    first, *both = recorder.requests
    assert (first.request_id, first.key, first.priority) == ("mine", "user:me", -3)
    assert {each.request_id for each in both} == {"two"} and both[0].key == ""
    other.observe(recorder)
    with running(other, api_key=("one", "two")) as keyed:
        for key in ("one", "one", "two"):
            headers = {"Authorization": f"Bearer {key}"}
            keyed.http.post("/v1/completions", json={"prompt": "x", "user": "me", "max_tokens": 1}, headers=headers)
        wait_until(lambda: len(recorder.requests) == 6)
    one, again, two = (each.key for each in recorder.requests[3:])
    assert one == again != two and one.startswith("key:") and "one" not in one


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 129, "é", "a\nb", '"', "a;b"])
def test_insane_ids_are_replaced(given: str | None) -> None:
    made = request_id(given)
    assert made != given and made == request_id(made)


def test_json_logs_are_json_whatever_is_in_them() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    LOGGER.addHandler(handler)
    try:
        try:
            raise ValueError("two\nlines")
        except ValueError:
            LOGGER.exception("it failed: %s", "é\n", extra={"path": "/x\n", "odd": {1, 2}})
    finally:
        LOGGER.removeHandler(handler)
    (line,) = stream.getvalue().splitlines()
    data = json.loads(line)
    assert data["message"] == "it failed: é\n" and data["path"] == "/x\n" and data["level"] == "error"
    assert "ValueError: two\nlines" in data["exception"]


def test_lines_for_people_are_short() -> None:
    record = logging.makeLogRecord({"msg": "request", "levelno": logging.INFO, "status": 200, "key": None})
    text = HumanFormatter().format(record)
    assert text.endswith("request  status=200") and len(text) < 40


def test_lines_for_people_hold_nothing_that_a_terminal_obeys() -> None:
    """Whoever asks chooses the path."""
    path = "/x\n12:00:00 draining\x1b[31m\u2028é"
    record = logging.makeLogRecord({"msg": "request", "levelno": logging.INFO, "path": path})
    text = HumanFormatter().format(record)
    assert text.isprintable() and text.endswith('path="/x\\n12:00:00 draining\\u001b[31m\\u2028\\u00e9"')


@pytest.mark.parametrize("outcome", ["stop", "length", "cancelled", "error"])
def test_times_are_those_of_completed_samples(outcome: Literal["stop", "length", "cancelled", "error"]) -> None:
    seen = Metrics()
    usage = Usage(1, 0, 3, 1.0, 2.0, 8.0, 0)
    seen.request(RequestRecord("id", 0, "", 0, 1.0, 2.0, 3.0, 9.0, outcome, "", usage))
    text = seen.text().decode()
    assert f'xllmc_samples_ended_total{{outcome="{outcome}"}} 1.0' in text
    count = 1.0 if outcome in ("stop", "length") else 0.0
    for name in ("time_to_first_token_seconds", "time_per_output_token_seconds", "request_seconds", "queue_seconds"):
        assert f"xllmc_{name}_count {count}" in text


@pytest.mark.parametrize(("outcome", "status"), [("disconnected", "499"), ("", "500")])
def test_requests_that_got_no_answer_have_a_status(outcome: str, status: str) -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["call"].outcome = outcome
        raise asyncio.CancelledError

    seen = Metrics()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Watch(silent, Keys(()), seen)(scope, AsyncMock(), AsyncMock()))
    assert f'status="{status}"' in seen.text().decode()
