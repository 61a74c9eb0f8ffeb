"""Servers for tests: in a thread of this process, or as a process of its own."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI
from xllmc.runtime.engine import Engine
from xllmc.runtime.server.process import Process
from xllmc.runtime.server.served import Served
from xllmc.runtime.server.service import Service
from xllmc.runtime.server.settings import load_settings
from xllmc.runtime.server.startup import address_of, listen

SERVE = [sys.executable, "-c", "from xllmc.runtime.cli import main; main()", "serve"]
PATIENCE = 60.0
"""Seconds that a busy machine may take; nothing that works comes near."""


class Running:
    """A server in a thread, and clients of it."""

    def __init__(self, url: str, service: Service, stop: Callable[[], object]) -> None:
        self.url = url
        self.service = service
        self.stop = stop
        self.http = httpx.Client(base_url=url, timeout=PATIENCE)
        self.openai = client(url)

    def post(self, path: str = "/v1/completions", **body: Any) -> httpx.Response:
        return self.http.post(path, json=body)


def client(url: str, key: str = "none") -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)


@contextmanager
def running(engine: Engine, loaded: threading.Event | None = None, **settings: Any) -> Iterator[Running]:
    """Serve ``engine`` until the block ends: from the start, or when it is ``loaded``."""
    found = load_settings({"engine": Path("toy.engine"), "port": 0, "drain_timeout": 0.0} | settings)
    loading: Future[Served] = Future()
    if loaded is None:
        loading.set_result(Served(engine, found))
    else:
        threading.Thread(target=lambda: loaded.wait() and loading.set_result(Served(engine, found))).start()
    listener = listen(found.host, found.port)
    url = address_of(listener)
    process = Process(found, listener, loading)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(process.serve()), daemon=True)
    thread.start()
    server = Running(url, process.service, lambda: loop.call_soon_threadsafe(process.stop))
    try:
        if loaded is None:
            wait_until(lambda: process.service.served is not None)
        yield server
    finally:
        server.http.close()
        server.openai.close()
        if thread.is_alive():
            server.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        loop.close()
        if process.service.served is not None:
            process.service.served.engine.unobserve(process.service.metrics)


def wait_until(true: Callable[[], bool]) -> None:
    """Return when ``true()`` is; fail after a long time."""
    event = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        if true():
            return
        event.wait(0.005)
    raise AssertionError("it never came")


class Serving:
    """A server as a process of its own; its log's lines as they come."""

    def __init__(self, *arguments: object, environment: dict[str, str] | None = None) -> None:
        command = [*SERVE, *map(str, arguments), "--log-format", "json"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("XLLMC_")}
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=clean | (environment or {}), bufsize=1
        )
        self.log: list[dict[str, Any]] = []
        self.other: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        return self.wait("listening")["url"]

    def wait(self, message: str) -> dict[str, Any]:
        """The first log line of this message."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found.extend(line for line in list(self.log) if line["message"] == message)
            return bool(found) or self.process.poll() is not None

        wait_until(there)
        assert found, (message, self.log, self.other)
        return found[0]

    def ends(self) -> int:
        """Its exit code, when it has ended and all of its log is read."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.other.append(line)

    def __enter__(self) -> "Serving":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)
