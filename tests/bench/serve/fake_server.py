"""A server of OpenAI's protocol whose every delay and fault is known, in a thread of this process."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Script:
    """How one request is answered: after each delay (seconds), a piece of the body."""

    parts: tuple[tuple[float, bytes], ...] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    cut: bool = False
    """The connection ends there, in the middle of the answer."""


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def completion(
    asked: dict[str, Any],
    *,
    first: float = 0.0,
    each: float = 0.0,
    per_chunk: int = 1,
    usage: bool = True,
    cached: int | None = None,
    tokens: int | None = None,
) -> Script:
    """As many tokens as asked for, ``per_chunk`` in each event, the first event after ``first`` seconds and the others
    ``each`` apart.
    """
    total = asked["max_tokens"] if tokens is None else tokens
    chunks = -(-total // per_chunk)
    parts = [(first if i == 0 else each, event(chunk(asked, " word" * per_chunk))) for i in range(chunks)]
    parts.append((0.0, event(chunk(asked, "", "length"))))
    if usage and asked.get("stream_options", {}).get("include_usage"):
        counts: dict[str, Any] = {"prompt_tokens": prompt_tokens(asked), "completion_tokens": total}
        if cached is not None:
            counts["prompt_tokens_details"] = {"cached_tokens": cached}
        parts.append((0.0, event({"choices": [], "usage": counts})))
    return Script((*parts, (0.0, DONE)))


def chunk(asked: dict[str, Any], text: str, reason: str | None = None) -> dict[str, Any]:
    if "messages" in asked:
        return {"choices": [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": reason}]}
    return {"choices": [{"index": 0, "text": text, "finish_reason": reason}]}


def prompt_tokens(asked: dict[str, Any]) -> int:
    prompt = asked["prompt"] if "prompt" in asked else " ".join(m["content"] for m in asked["messages"])
    return len(prompt.split() if isinstance(prompt, str) else prompt)


def refusal(status: int, message: str, **headers: str) -> Script:
    body = json.dumps({"error": {"message": message, "type": "x"}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Script(((0.0, body),), status, {"Content-Type": "application/json", **named})


Answer = Callable[[dict[str, Any]], Script | None]
"""None: the server ends altogether."""


@dataclass
class FakeServer:
    """``asked`` collects the bodies of requests for completions, in order of arrival."""

    answer: Answer
    at_once: int | None
    """Requests served at a time; the others wait their turn."""
    models: tuple[str, ...]
    version: object
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""
    _server: asyncio.Server | None = None
    _turn: asyncio.Semaphore | None = None
    _stop: asyncio.Event | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._turn = asyncio.Semaphore(self.at_once or 10**6)
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        ready.set()
        await self._stop.wait()
        self._server.close()

    def end(self) -> None:
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if method == "GET":
            script = self._page(path)
        else:
            asked = json.loads(body)
            assert path == ("/v1/chat/completions" if "messages" in asked else "/v1/completions")
            self.asked.append(asked)
            self.keys.append(headers.get("authorization"))
            found = self.answer(asked)
            if found is None:
                assert self._server is not None
                self._server.close()
                return False
            script = found
        assert self._turn is not None
        async with self._turn:
            return await _play(script, writer)

    def _page(self, path: str) -> Script:
        pages = {"/v1/models": {"object": "list", "data": [{"id": name} for name in self.models]}}
        if self.version is not None:
            pages["/version"] = {"version": self.version}
        if path not in pages:
            return refusal(404, "no such page")
        return Script(((0.0, json.dumps(pages[path]).encode()),), 200, {"Content-Type": "application/json"})


async def _play(script: Script, writer: asyncio.StreamWriter) -> bool:
    head = "".join(f"{name}: {value}\r\n" for name, value in script.headers.items())
    writer.write(f"HTTP/1.1 {script.status} X\r\n{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    for delay, part in script.parts:
        if delay:
            await writer.drain()
            await asyncio.sleep(delay)
        writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    if script.cut:
        return False
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


@contextmanager
def fake_server(
    answer: Answer = completion,
    *,
    at_once: int | None = None,
    models: Iterable[str] = ("fake",),
    version: object = "1.2",
) -> Iterator[FakeServer]:
    server, ready = FakeServer(answer, at_once, tuple(models), version), threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(server.serve(ready),))
    thread.start()
    try:
        assert ready.wait(10)
        yield server
    finally:
        server.end()
        thread.join(10)
