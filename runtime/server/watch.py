"""Around the whole application: request ids, API keys, logs and metrics."""

import hashlib
import hmac
import time
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .call import Call, request_id
from .errors import CLIENT_GONE, ApiError, error_response
from .hosts import may_name
from .logs import LOGGER
from .metrics import Metrics

OPEN_PATHS = frozenset({"/health", "/ready"})
"""Whoever asks whether the server lives needs no key, and is not logged unless it does not."""


class Keys:
    """API keys, kept as digests."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def holder(self, authorization: str) -> str | None:
        """A name for whose key ``Authorization`` holds; None: nobody's. Takes as long for every wrong key."""
        kind, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode()).digest()
        found = [hmac.compare_digest(digest, known) for known in self._digests]
        return f"key:{digest.hex()[:12]}" if kind.lower() == "bearer" and any(found) else None


class Watch:
    """Gives every request an id and a Call (``scope["state"]["call"]``), asks for keys, and reports its end."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        metrics: Metrics,
        open_paths: frozenset[str] = OPEN_PATHS,
        host: str | None = None,
    ) -> None:
        """``host``: of a server for this machine only, which other names are not meant for; None: any name will do."""
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._open = open_paths
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        call = Call(request_id(headers.get("x-request-id")))
        scope.setdefault("state", {})["call"] = call
        status = 0
        done = False

        async def watched(message: Message) -> None:
            nonlocal status, done
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = call.request_id
            elif message["type"] == "http.response.body":
                done = not message.get("more_body", False)
            await send(message)

        self._metrics.active.inc()
        try:
            await self._answer(scope, headers, call)(scope, receive, watched)
        except Exception:
            LOGGER.exception("a request failed by a fault of the server's", extra={"request_id": call.request_id})
            if not done:  # the connection must be seen to break
                raise
        finally:
            self._metrics.active.dec()
            self._report(scope, call, status)

    def _answer(self, scope: Scope, headers: Headers, call: Call) -> ASGIApp:
        asked = headers.get("host", "")
        # What checks whether a server lives may call it anything, or nothing.
        checked = self._host is not None and asked and scope["path"] not in OPEN_PATHS
        if checked and not may_name(asked, str(self._host)):
            message = (
                "a server for its own machine, without API keys, takes requests for localhost only (the Host header), "
                f"got {asked[:100]!r}; send that name, or start the server with API keys"
            )
            call.error = "wrong_host"
            return error_response(ApiError(403, message, code=call.error))
        if self._keys and scope["path"] not in self._open:
            holder = self._keys.holder(headers.get("authorization", ""))
            if holder is None:
                message = "an API key is required: send one that this server knows as Authorization: Bearer KEY"
                code = "invalid_api_key"
                call.error = code
                return error_response(ApiError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"}))
            call.key = holder
        return self._app

    def _report(self, scope: Scope, call: Call, status: int) -> None:
        status = CLIENT_GONE if call.outcome == "disconnected" else status or 500  # 0: it was cancelled
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.answered(route, _known(scope["method"]), status, time.perf_counter() - call.began)
        quiet = scope["path"] in OPEN_PATHS or scope["path"] == "/metrics"
        level = "error" if status >= 500 and status != 503 else "debug" if quiet else "info"
        client = scope.get("client")
        fields = {
            "client": f"{client[0]}:{client[1]}" if client else None,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
        }
        getattr(LOGGER, level)("request", extra=fields | call.fields())


def _known(method: str) -> str:
    """A label's value, of which callers must not make any number."""
    return method if method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH") else "other"
