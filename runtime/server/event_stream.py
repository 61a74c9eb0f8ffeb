"""Answers as server-sent events, in OpenAI's form."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .attend import attend
from .call import Call
from .errors import ClientGoneError, told
from .service import Service

DONE = b"data: [DONE]\n\n"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event(json: bytes) -> bytes:
    """One event."""
    return b"data: " + json + b"\n\n"


class EventStream(Response):
    """Sends ``events`` as they come, until the client leaves or the server stops.

    The first is awaited before anything is sent: what goes wrong until then is raised, and gets a status of its own.
    What goes wrong later is the stream's last event, named ``error``; there is no [DONE] then.
    """

    media_type = "text/event-stream"

    def __init__(self, service: Service, call: Call, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._service = service
        self._call = call
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stopping = self._service.stopping
        with self._service:
            async with aclosing(self._events) as events:
                first = await attend(receive, stopping, anext(events))
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                try:
                    await attend(receive, stopping, _sent(first, events, send))
                except ClientGoneError:
                    self._call.outcome = "disconnected"
                    return
                except Exception as problem:
                    error = told(problem)
                    self._call.fail(error)
                    last = b"event: error\n" + event(error.json())
                    await send({"type": "http.response.body", "body": last, "more_body": False})
                    if error.body.error.code == "internal":
                        raise
                    return
                await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _sent(first: bytes, events: AsyncIterator[bytes], send: Send) -> None:
    await send({"type": "http.response.body", "body": first, "more_body": True})
    async for each in events:
        # Neither this nor taking what is there lets others run: a burst of tokens would hold up all other answers, and
        # be written to a client that left.
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": each, "more_body": True})
