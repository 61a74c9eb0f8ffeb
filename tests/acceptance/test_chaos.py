"""A thousand requests, many of them rude, against a small server process: none is lost, and nothing is left behind."""

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from xllmc.runtime.engine import Engine
from xllmc.runtime.options import SchedulingOptions
from xllmc.runtime.sampling import SamplingParams

from tests.checkpoints import probe_tokens
from tests.conftest import CompileEngine
from tests.runtime.server.serving import PATIENCE, Serving, wait_until

REQUESTS, CONCURRENCY = 1000, 64
SIZES = ("--max-tokens", 64, "--max-sequences", 12, "--max-rows", 16, "--kv-tokens", 1024, "--swap-tokens", 512)
CONTEXT = 512
MEMORY_GROWTH = 12 << 20
"""Bytes that a server's memory may move by between its first and second half of the requests."""


def bodies(rng: random.Random) -> list[dict[str, Any]]:
    """Requests that can be answered; a third of them start alike, and the pool holds only a few at a time."""
    prefixes = [probe_tokens(length, seed=length) for length in (40, 64, 97, 130, 200)]
    found = []
    for number in range(REQUESTS):
        prompt = probe_tokens(rng.choice((1, 2, 5, 31, 32, 33, 60)), seed=number)
        if rng.random() < 0.35:
            prompt = rng.choice(prefixes) + prompt
        found.append(
            {
                "prompt": prompt,
                "max_tokens": rng.randint(1, 24),
                "temperature": rng.choice((0, 0.7, 1.3)),
                "top_p": rng.choice((1, 0.9)),
                "presence_penalty": rng.choice((0, 0, 0.8)),
                "seed": number,
                "n": rng.choice((1, 1, 1, 2, 3)),
                "logprobs": rng.choice((None, 2)),
                "priority": rng.choice((0, 0, 0, 1)),
                "stream": rng.random() < 0.5,
                "return_token_ids": True,
            }
        )
    return found


def expected(engine: Engine, body: dict[str, Any]) -> list[tuple[list[int], list[float] | None]]:
    """What the request gives alone, by sample: tokens, and their log-probabilities."""
    names = ("max_tokens", "temperature", "top_p", "presence_penalty", "seed", "n", "logprobs")
    found = engine.generate([body["prompt"]], SamplingParams(**{name: body[name] for name in names}))
    return [
        (list(c.token_ids), None if c.logprobs is None else [logprobs.model for logprobs in c.logprobs]) for c in found
    ]


async def answer(client: httpx.AsyncClient, body: dict[str, Any]) -> list[tuple[list[int], list[float] | None]]:
    """What the server says, by sample."""
    tokens: dict[int, list[int]] = {}
    logprobs: dict[int, list[float] | None] = {}

    def take(choices: list[dict[str, Any]]) -> None:
        for choice in choices:
            tokens.setdefault(choice["index"], []).extend(choice["token_ids"])
            if choice["logprobs"] is None:
                logprobs[choice["index"]] = None
            else:
                kept = logprobs.setdefault(choice["index"], [])
                assert kept is not None
                kept.extend(choice["logprobs"]["token_logprobs"])

    if not body["stream"]:
        response = await client.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        take(response.json()["choices"])
    else:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            assert response.status_code == 200, await response.aread()
            lines = [line async for line in response.aiter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        for line in lines[:-1]:
            take(json.loads(line.removeprefix("data: "))["choices"])
    return [(tokens[i], logprobs[i]) for i in sorted(tokens)]


async def leave(client: httpx.AsyncClient, body: dict[str, Any], rng: random.Random) -> str:
    """Ask, and go away: before an answer, or in the middle of one."""
    if body["stream"]:
        async with client.stream("POST", "/v1/completions", json=body | {"max_tokens": 200}) as response:
            left = rng.randint(0, 3)
            async for line in response.aiter_lines():
                left -= bool(line)
                if left < 0:
                    return "left in mid-stream"
        return "answered before it left"
    try:
        await client.post("/v1/completions", json=body | {"max_tokens": 200}, timeout=rng.choice((0.005, 0.05)))
    except httpx.TimeoutException:
        return "left before the answer"
    return "answered before it left"


async def refused(client: httpx.AsyncClient, body: dict[str, Any], rng: random.Random) -> str:
    """Something that no server can do: it must be told so, as an error of the client's."""
    content = rng.choice(
        (
            json.dumps(body | {"prompt": [5] * rng.choice((CONTEXT, 100_000))}),
            json.dumps(body)[: rng.randint(1, 40)],
            json.dumps(body | {"prompt": [10**9]}),
            json.dumps(body | {"temperature": -1}),
            json.dumps(body | {"colour": "red"}),
            "[" * 10_000,
        )
    )
    response = await client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400, (response.status_code, response.text, content[:200])
    assert response.json()["error"]["message"]
    return "refused"


async def besiege(
    server: Serving, requests: list[dict[str, Any]], alone: list[Any], rng: random.Random
) -> Counter[str]:
    """All requests, so many at a time; what became of them."""
    outcomes: Counter[str] = Counter()
    gate = asyncio.Semaphore(CONCURRENCY)
    limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY // 2)
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=limits) as client:

        async def one(body: dict[str, Any], right: Any) -> None:
            async with gate:
                fate = rng.random()
                if fate < 0.12:
                    outcomes[await leave(client, body, rng)] += 1
                elif fate < 0.25:
                    outcomes[await refused(client, body, rng)] += 1
                else:
                    assert await answer(client, body) == right
                    outcomes["right"] += 1

        await asyncio.gather(*(one(*pair) for pair in zip(requests, alone, strict=True)))
    return outcomes


def resident_bytes(pid: int) -> int:
    fields = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in fields if line.startswith("VmRSS:"))


def metric(text: str, name: str, label: str = "") -> float:
    """The sum of a metric's lines, of those that have the label."""
    lines = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} ")) and label in line]
    assert lines, f"no metric {name}"
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@pytest.mark.parametrize(("family", "dtype"), [("gemma2", "bf16")])
def test_a_thousand_requests_lose_nothing(engine_dir: CompileEngine, family: str, dtype: str) -> None:
    rng = random.Random(7)
    requests = bodies(rng)
    with Engine.load(
        engine_dir(family, dtype), threads=1, kv_tokens=2048, scheduling=SchedulingOptions(prefix_cache=False)
    ) as engine:
        alone = [expected(engine, body) for body in requests]
    options = (*SIZES, "--ttft", 0.5, "--tpot", 0.01, "--max-priority", 1)
    with Serving(engine_dir(family, dtype), "--port", 0, *options) as server:
        server.wait("ready")
        half = REQUESTS // 2
        outcomes = asyncio.run(besiege(server, requests[:half], alone[:half], rng))
        memory = resident_bytes(server.process.pid)
        outcomes += asyncio.run(besiege(server, requests[half:], alone[half:], rng))
        grown = resident_bytes(server.process.pid) - memory
        text = metrics_when_idle(server.url)
        assert outcomes.total() == REQUESTS and outcomes["right"] > REQUESTS / 2, outcomes
        assert outcomes["left in mid-stream"] > 10 and outcomes["left before the answer"] > 10, outcomes
        assert outcomes["refused"] > 50, outcomes
        assert metric(text, "xllmc_preemptions_total") > 0 and metric(text, "xllmc_prefix_cache_hit_tokens_total") > 0
        assert metric(text, "xllmc_pages", 'use="in_use"') == 0
        assert grown < MEMORY_GROWTH, f"{grown / 1e6:.1f} MB"
        server.process.terminate()
        assert server.ends() == 0


def metrics_when_idle(url: str) -> str:
    """The metrics, once nothing runs: those who left are noticed a moment later."""
    with httpx.Client(base_url=url, timeout=PATIENCE) as client:
        texts: list[str] = []

        def idle() -> bool:
            texts.append(client.get("/metrics").text)
            return metric(texts[-1], "xllmc_running") == metric(texts[-1], "xllmc_waiting") == 0

        wait_until(idle)
        return texts[-1]
