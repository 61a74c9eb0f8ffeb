"""The serving process: from a bound socket to its last answer."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import uvicorn
from prometheus_client import disable_created_metrics

from ..artifact.version import xllmc_version
from ..trace import TraceWriter
from .app import create_app
from .connections import limited
from .hosts import is_loopback
from .logs import LOGGER
from .metrics import Metrics
from .served import Served
from .service import Service
from .settings import ServeSettings
from .startup import address_of, seconds_alive

_CLOSE_SECONDS = 2
"""For connections that are still open after draining."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server(uvicorn.Server):
    """uvicorn's, without its handling of signals: it would stop to listen at once, and be killed by them in the end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Process:
    """The server's life: it serves from the start, is ready when the engine is loaded, and drains at SIGTERM or SIGINT;
    a second signal ends it at once.
    """

    def __init__(self, settings: ServeSettings, listener: socket.socket, loading: "Future[Served]") -> None:
        """Raises OptionError for API keys or a trace's path that will not do."""
        self._settings = settings
        self._listener = listener
        self._loading = loading
        self.service = Service(settings, Metrics())
        config = uvicorn.Config(
            create_app(self.service),
            http=limited(settings.max_connections, settings.idle_timeout),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=max(1, int(settings.idle_timeout)),
            timeout_graceful_shutdown=_CLOSE_SECONDS,
        )
        self._server = Server(config)
        self._trace = TraceWriter(settings.trace) if settings.trace else None
        self._draining: asyncio.Task[None] | None = None
        self._on_ready: Callable[[], None] = lambda: None

    def run(self, on_ready: Callable[[], None]) -> None:
        """Return when all is answered; ``on_ready`` is called once when requests are taken. Raises what loading the
        engine raised.
        """
        self._on_ready = on_ready
        # Series of when other series were made, twice as many for nothing.
        disable_created_metrics()
        address = address_of(self._listener)
        LOGGER.info("listening", extra={"url": address, "version": xllmc_version(), "pid": os.getpid()})
        if not is_loopback(self._settings.host) and not self._settings.keys():
            LOGGER.warning("whoever reaches this address may use the model: there are no API keys")
        try:
            asyncio.run(self._run())
        finally:
            if self.service.served is not None:
                self.service.served.engine.close()
            if self._trace is not None:
                self._trace.close()
                LOGGER.info("trace written", extra={"trace": self._trace.summary})
        LOGGER.info("stopped")

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        await self.serve()

    async def serve(self) -> None:
        """Serve until ``stop``. Raises what loading the engine raised."""
        opening = asyncio.ensure_future(self._open())
        opening.add_done_callback(self._opened)
        await self._server.serve(sockets=[self._listener])
        if opening.done():
            opening.result()

    async def _open(self) -> None:
        served = await asyncio.wrap_future(self._loading)
        engine = served.engine
        self.service.metrics.watch(engine)
        if self._trace is not None:
            engine.observe(self._trace)
        self.service.served = served
        self._on_ready()
        model = engine.manifest.model
        LOGGER.info(
            "ready",
            extra={
                "model": served.names[0],
                "architecture": model.architecture,
                "dtype": model.dtype,
                "max_context": served.context,
                "digest": engine.manifest.digest[:12],
                "seconds": seconds_alive(),
            },
        )

    def _opened(self, opening: "asyncio.Future[None]") -> None:
        if opening.cancelled() or opening.exception() is not None:
            self._server.should_exit = True

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._draining is not None:
            LOGGER.warning("stopped at once", extra={"signal": name})
            os._exit(128 + number)
        LOGGER.info("draining", extra={"signal": name, "requests": self.service.active})
        self.stop()

    def stop(self) -> None:
        """Take no more requests, answer those that were accepted, and end. Called in the event loop."""
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        await self.service.drain(self._settings.drain_timeout)
        self._server.should_exit = True
