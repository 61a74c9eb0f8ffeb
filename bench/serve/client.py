"""Requests over HTTP, and when what came back of them. aiohttp: it takes half of httpx's time for an event."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aiohttp

from .drive import Send
from .protocol import Dialect, Usage, error_message, read_event, shown
from .records import Failure, Record, Work
from .sse import EventReader, EventStreamError

IDLE_SECONDS = 1.0
"""A connection idle for longer is not used again: the server may be closing it, which would look like a failure."""
RETRY_SECONDS = 1.0
"""Before asking again, where a refusal does not say how long."""
RETRIED = (429, 503)


def open_session(api_key: str | None) -> aiohttp.ClientSession:
    """As many connections as there are requests; answers are not compressed, as that would hold events back."""
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS)
    return aiohttp.ClientSession(headers=headers, connector=connector, timeout=aiohttp.ClientTimeout())


@dataclass
class _Answer:
    """What one request has brought so far; times by the event loop's clock."""

    chunks: list[float] = field(default_factory=list)
    finished: float | None = None
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    status: int | None = None
    retry_after: float = RETRY_SECONDS
    failure: Failure | None = None


@dataclass(frozen=True)
class Client:
    """Sends to one server. ``retries``: how often a request that a server refuses (429, 503) is sent again, after
    the time that the server says; ``timeout``: seconds for a request with all its retries.
    """

    session: aiohttp.ClientSession
    base: str
    """With the version: ``http://127.0.0.1:8000/v1``."""
    dialect: Dialect
    timeout: float
    retries: int = 0

    def prepare(self, works: Sequence[Work]) -> Send:
        """A function that sends these. Bodies are made now, so that sending takes no time for it."""
        bodies = {work.index: self.dialect.body(work) for work in works}

        async def send(work: Work, scheduled: float, clock: Callable[[], float]) -> Record:
            return await self._send(work, bodies[work.index], scheduled, clock)

        return send

    async def _send(self, work: Work, body: bytes, scheduled: float, clock: Callable[[], float]) -> Record:
        sent, attempts = clock(), 0
        answer = _Answer()
        try:
            async with asyncio.timeout(self.timeout):
                while True:
                    answer, attempts = _Answer(), attempts + 1
                    await self._ask(body, answer, clock)
                    if answer.status not in RETRIED or attempts > self.retries:
                        break
                    await asyncio.sleep(answer.retry_after)
        except TimeoutError:
            answer.failure = Failure("timeout", f"not done after {self.timeout:g} s")
        return Record(
            index=work.index,
            scheduled=scheduled,
            sent=sent,
            ended=clock(),
            chunks=tuple(answer.chunks),
            asked_tokens=work.output_tokens,
            finished=answer.finished,
            failure=answer.failure,
            prompt_tokens=answer.usage.prompt,
            output_tokens=answer.usage.output,
            cached_tokens=answer.usage.cached,
            finish_reason=answer.finish_reason,
            attempts=attempts,
            group=work.group,
            first_of_group=work.first_of_group,
        )

    async def _ask(self, body: bytes, answer: _Answer, clock: Callable[[], float]) -> None:
        """Send once; failures are left in ``answer``."""
        url, headers = self.base + self.dialect.path, {"Content-Type": "application/json"}
        try:
            async with self.session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                answer.status = response.status
                if response.status != 200:
                    answer.failure = Failure(str(response.status), await _explanation(response))
                    answer.retry_after = _retry_after(response.headers.get("Retry-After"))
                elif response.content_type != "text/event-stream":
                    answer.failure = Failure("not streamed", f"the answer is {response.content_type}, no event stream")
                else:
                    answer.failure = await _read(response, self.dialect.chat, answer, clock)
        except aiohttp.ClientConnectorError as problem:
            answer.failure = Failure("connect", shown(str(problem)))
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientOSError) as problem:
            answer.failure = Failure("disconnected", shown(str(problem) or type(problem).__name__))
        except aiohttp.ClientError as problem:
            answer.failure = Failure("http", shown(str(problem) or type(problem).__name__))
        except EventStreamError as problem:
            answer.failure = Failure("malformed", shown(str(problem)))


async def _read(
    response: aiohttp.ClientResponse, chat: bool, answer: _Answer, clock: Callable[[], float]
) -> Failure | None:
    reader = EventReader()
    async for received in response.content.iter_any():
        now = clock()
        for data in reader.feed(received):
            if data == b"[DONE]":
                return _complete(answer)
            event = read_event(data, chat)
            if event.error is not None:
                return Failure("error event", event.error)
            if event.spoke:
                answer.chunks.append(now)
            if event.finish_reason:
                answer.finished, answer.finish_reason = now, event.finish_reason
            answer.usage = event.usage or answer.usage
    return _complete(answer)


def _complete(answer: _Answer) -> Failure | None:
    """What is wrong with an answer whose stream has ended in good order."""
    if answer.finished is None:
        return Failure("disconnected", f"the stream ended after {len(answer.chunks)} chunks, without a finish_reason")
    if not answer.chunks and answer.usage.output:
        answer.chunks.append(answer.finished)  # one token, which makes no text
    return None if answer.chunks else Failure("no tokens", "the stream ended without a token")


async def _explanation(response: aiohttp.ClientResponse) -> str:
    text = await response.text(errors="replace")
    try:
        return error_message(json.loads(text))
    except ValueError:
        return shown(text) or response.reason or ""


def _retry_after(header: str | None) -> float:
    """Seconds; the date that HTTP allows too is not read."""
    try:
        seconds = float(header) if header else RETRY_SECONDS
    except ValueError:
        return RETRY_SECONDS
    return seconds if 0 <= seconds < float("inf") else RETRY_SECONDS
