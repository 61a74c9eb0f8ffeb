"""What a server does first: takes its address, and begins to load the engine, while its own modules are imported."""

import os
import socket
import threading
import time
from concurrent.futures import Future
from pathlib import Path

from ..artifact.errors import OptionError
from ..engine import Engine
from .served import Served
from .settings import ServeSettings

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections already. Raises OptionError for an address that cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        # With the protocol named, asyncio sends small pieces at once (TCP_NODELAY); else a token may wait for 40 ms.
        listener = socket.socket(family, kind, protocol)
    except OSError as problem:
        raise OptionError(f"the server cannot listen on {host}: {problem.strerror}; choose another --host") from problem
    try:
        # Else connections of a server that was just killed would keep the port from its successor for a minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as problem:
        listener.close()
        raise OptionError(
            f"the server cannot listen on {host} port {port}: {problem.strerror}; choose another --port, or 0 for any"
        ) from problem
    return listener


def address_of(listener: socket.socket) -> str:
    """As clients write it: http://127.0.0.1:8000."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def seconds_alive() -> float:
    """Since this process was started, its interpreter's own start included; to 0.01 s."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"), 2)


def begin_load(settings: ServeSettings) -> "Future[Served]":
    """The engine, in the making in a thread of its own."""
    made: Future[Served] = Future()
    made.set_running_or_notify_cancel()

    def load() -> None:
        try:
            engine = Engine.load(settings.engine, **settings.load_options())
            made.set_result(Served(engine, settings))
        except BaseException as problem:
            made.set_exception(problem)
            if not isinstance(problem, Exception):
                raise

    # A daemon: a server told to stop while it loads does not wait for it.
    threading.Thread(target=load, name="xllmc-load", daemon=True).start()
    return made
