"""The client against a server whose every fault is known: what a request brought, or why it did not complete."""

import asyncio
import json
import time

import pytest
from xllmc.bench.serve.client import Client, open_session
from xllmc.bench.serve.protocol import Dialect
from xllmc.bench.serve.records import Record, Work

from tests.bench.serve.fake_server import DONE, Script, chunk, completion, event, fake_server, refusal

TOLD = {"model": "m", "max_tokens": 3, "prompt": "x"}


def send(answer, *works: Work, chat=False, timeout=20.0, retries=0, key=None, **server) -> list[Record]:
    """The records of ``works`` (or of one request of three tokens), sent together."""
    works = works or (Work(0, 0.0, "one two", 3),)

    async def main(base: str) -> list[Record]:
        async with open_session(key) as session:
            client = Client(session, base, Dialect("m", chat, True, True), timeout, retries)
            prepared, clock = client.prepare(works), asyncio.get_running_loop().time
            return await asyncio.gather(*(prepared(work, clock(), clock) for work in works))

    with fake_server(answer, **server) as fake:
        return asyncio.run(main(f"{fake.url}/v1"))


@pytest.mark.parametrize("chat", [False, True])
def test_an_answer_is_timed_and_counted(chat):
    (found,) = send(lambda asked: completion(asked, first=0.1, each=0.05, cached=1), chat=chat)
    assert found.failure is None and found.finish_reason == "length" and found.attempts == 1
    assert (found.prompt_tokens, found.output_tokens, found.cached_tokens, len(found.chunks)) == (2, 3, 1, 3)
    # A busy machine makes times longer, never shorter (but for the clocks' own grain).
    assert found.ttft_from_sending > 0.099 and found.e2e_from_sending > 0.199
    assert found.sent <= found.chunks[0] <= found.finished <= found.ended


def test_chunks_of_several_tokens_count_as_the_server_says():
    (found,) = send(lambda asked: completion(asked, per_chunk=4), Work(0, 0.0, "x", 10))
    assert found.tokens == 10 and len(found.chunks) == 3


def test_without_usage_chunks_are_counted():
    (found,) = send(lambda asked: completion(asked, usage=False))
    assert found.output_tokens is None and found.tokens == 3


def test_events_in_pieces_are_put_together():
    def answer(asked):
        whole = b"".join(part for _, part in completion(asked).parts).replace(b"\n", b"\r\n")
        return Script(tuple((0.0, whole[i : i + 7]) for i in range(0, len(whole), 7)))

    (found,) = send(answer)
    assert found.failure is None and found.tokens == 3


def test_a_token_without_text_is_a_token():
    usage = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    (found,) = send(lambda asked: Script(((0.0, event(chunk(asked, "", "stop"))), (0.0, usage), (0.0, DONE))))
    assert found.failure is None and found.ttft == found.e2e


def test_a_stream_may_end_without_done():
    (found,) = send(lambda asked: Script(completion(asked).parts[:-1]))
    assert found.failure is None


PART = event(chunk(TOLD, "a"))


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        (refusal(429, "too many", Retry_After="1"), "429", "too many"),
        (refusal(503, "draining"), "503", "draining"),
        (refusal(400, "bad"), "400", "bad"),
        (Script(((0.0, b"<html>"),), 502, {"Content-Type": "text/html"}), "502", "<html>"),
        (Script((), 307, {"Location": "/elsewhere"}), "307", "X"),
        (Script(((0.0, b"{}"),), 200, {"Content-Type": "application/json"}), "not streamed", "application/json"),
        (Script(((0.0, PART), (0.0, b"data: {oops\n\n"))), "malformed", "{oops"),
        (Script(((0.0, PART), (0.0, event({"error": {"message": "boom"}})))), "error event", "boom"),
        (Script(((0.0, PART),)), "disconnected", "after 1 chunks"),
        (Script(((0.0, PART), (0.01, PART)), cut=True), "disconnected", ""),
        (Script(((0.0, event(chunk(TOLD, "", "stop"))), (0.0, DONE))), "no tokens", "without a token"),
        (Script(((0.0, PART), (5.0, PART))), "timeout", "0.5 s"),
    ],
)
def test_what_goes_wrong_has_a_name(script, kind, message):
    (found,) = send(lambda asked: script, timeout=0.5 if kind == "timeout" else 60.0)
    assert found.failure.kind == kind and message in found.failure.message
    assert found.ended >= found.sent


def test_nothing_that_listens_is_a_failure_to_connect():
    async def main() -> Record:
        async with open_session(None) as session:
            client = Client(session, "http://127.0.0.1:9/v1", Dialect("m", False, True, True), 10.0)
            work, clock = Work(0, 0.0, "x", 3), asyncio.get_running_loop().time
            return await client.prepare([work])(work, clock(), clock)

    assert asyncio.run(main()).failure.kind == "connect"


def refusing(times: int):
    left = times

    def answer(asked):
        nonlocal left
        left -= 1
        return refusal(429, "full", Retry_After="0.2") if left >= 0 else completion(asked)

    return answer


def test_a_refusal_is_sent_again_only_when_asked_for_and_its_wait_counts():
    began = time.monotonic()
    (found,) = send(refusing(2), retries=2)
    assert found.failure is None and found.attempts == 3
    assert 0.39 <= found.ttft <= time.monotonic() - began
    (found,) = send(refusing(2), retries=1)
    assert found.failure.kind == "429" and found.attempts == 2
    (found,) = send(refusing(1))
    assert found.failure.kind == "429" and found.attempts == 1


def test_the_key_is_sent_to_the_server():
    async def main(url: str) -> None:
        async with open_session("secret") as session:
            client = Client(session, f"{url}/v1", Dialect("m", False, True, True), 10.0)
            work, clock = Work(0, 0.0, "x", 3), asyncio.get_running_loop().time
            await client.prepare([work])(work, clock(), clock)

    with fake_server() as fake:
        asyncio.run(main(fake.url))
        assert fake.keys == ["Bearer secret"]
        assert json.loads(json.dumps(fake.asked[0]))["max_tokens"] == 3


def test_many_requests_are_in_flight_at_once():
    works = tuple(Work(i, 0.0, "x", 2) for i in range(300))
    began = time.monotonic()
    found = send(lambda asked: completion(asked, first=1.0), *works)
    assert all(record.failure is None for record in found)
    assert time.monotonic() - began < 100  # one after another they would take 300 s
