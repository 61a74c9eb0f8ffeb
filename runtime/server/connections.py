"""Connections: how many there may be, how long one may be silent, and how long it may leave what it is sent."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from .errors import ApiError


def limited(most: int, idle_seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol with limits: more than ``most`` connections are told so and closed, and so are those that do
    not send a whole request's head within ``idle_seconds``. Those that take nothing of an answer for that long are
    broken, which ends their requests.
    """

    class LimitedProtocol(H11Protocol):
        idle_timer: asyncio.TimerHandle | None = None
        """Cancelled as soon as it can be: it keeps the connection in memory, and what was asked over it."""
        stall_timer: asyncio.TimerHandle | None = None
        """While something waits to be read."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            # Writing pauses as soon as the kernel takes no more, and goes on when it has all.
            transport.set_write_buffer_limits(high=0)
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.write(_refusal(most))
                transport.close()
            else:
                self._expect_request()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop_timer()
            self._stop_stall_timer()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._expect_reading()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_stall_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_answering():
                self._stop_timer()
            elif self.idle_timer is None:
                self._expect_request()

        def _expect_request(self) -> None:
            """uvicorn itself waits for ever once the first byte is there."""
            self.idle_timer = self.loop.call_later(idle_seconds, self._close_if_idle)

        def _close_if_idle(self) -> None:
            self.idle_timer = None
            if not self._is_answering() and not self.transport.is_closing():
                self.transport.close()

        def _stop_timer(self) -> None:
            if self.idle_timer is not None:
                self.idle_timer.cancel()
                self.idle_timer = None

        def _expect_reading(self) -> None:
            left = self.transport.get_write_buffer_size()
            self.stall_timer = self.loop.call_later(idle_seconds, self._break_if_stalled, left)

        def _break_if_stalled(self, before: int) -> None:
            """Closing would wait for the reader."""
            if self.transport.get_write_buffer_size() < before:
                self._expect_reading()
            else:
                self.transport.abort()

        def _stop_stall_timer(self) -> None:
            if self.stall_timer is not None:
                self.stall_timer.cancel()
                self.stall_timer = None

        def _is_answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

    return LimitedProtocol


def _refusal(most: int) -> bytes:
    body = ApiError(
        503, f"this server takes {most} connections at once, and has them; try again", kind="service_unavailable"
    ).json()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
