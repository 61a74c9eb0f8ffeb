"""Connections whose clients take nothing of what they are sent."""

import asyncio
import socket

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState
from xllmc.runtime.server.connections import limited

from tests.runtime.server.serving import PATIENCE

IDLE = 0.2
PIECE = bytes(1 << 20)


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """An answer that ends when its client leaves."""
    await receive()
    gone = asyncio.ensure_future(receive())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while not gone.done():
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await asyncio.sleep(0)


async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    """More than the kernel keeps for a reader, at once."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": PIECE * 32})


async def asked(app: object, read: bool, header: bytes = b"") -> tuple[int, ServerState]:
    """Ask, and read all or nothing; return when the connection is gone."""
    state = ServerState()
    config = uvicorn.Config(app, http=limited(8, IDLE), log_config=None, lifespan="off", timeout_keep_alive=1)
    config.load()
    protocol = config.http_protocol_class
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config, state, {}, loop), "127.0.0.1", 0)
    received = 0
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        client.setblocking(False)
        while not state.connections:
            await asyncio.sleep(0.01)
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n")
        while read and received < 32 * len(PIECE):
            received += len(await loop.sock_recv(client, 1 << 20))
        async with asyncio.timeout(PATIENCE):
            while state.connections or state.tasks:
                await asyncio.sleep(0.01)
    server.close()
    return received, state


@pytest.mark.parametrize("app", [endless, whole])
@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
def test_readers_that_stopped_are_left(app: object, header: bytes) -> None:
    """Their connections end, and what answers them."""
    asyncio.run(asked(app, read=False, header=header))


def test_readers_get_all_of_a_long_answer() -> None:
    received, _ = asyncio.run(asked(whole, read=True))
    assert received >= 32 * len(PIECE)
