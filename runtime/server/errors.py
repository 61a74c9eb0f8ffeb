"""Errors as OpenAI's API words them: an HTTP status and one JSON object."""

import math
from collections.abc import Mapping
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from ..artifact.errors import (
    DeadlineError,
    DrainingError,
    NumericError,
    OptionError,
    QueueFullError,
    RefusedError,
    XllmcError,
)

CLIENT_GONE = 499
"""What logs and metrics call a request whose client left before the answer (nginx's number); no client sees it."""
_UNION_TAGS = ("str", "int", "float", "bool", "none", "dict", "list")
"""Of pydantic's, in the place of an error: which of several types was tried."""


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    """What requires what, what it got, and what to try."""
    type: str
    param: str | None
    """The field of the request that is at fault."""
    code: str | None


class ErrorResponse(BaseModel):
    """The body of every response that is no success."""

    error: ErrorBody


class ApiError(Exception):
    """A request that ends with a status and an error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body = ErrorResponse(error=ErrorBody(message=message, type=kind, param=param, code=code))

    def json(self) -> bytes:
        """The response's body."""
        return self.body.model_dump_json().encode()


class ClientGoneError(Exception):
    """The client closed its connection before the answer."""


def as_api_error(problem: XllmcError) -> ApiError:
    """What a client is told of an error of the engine's."""
    message = str(problem)
    match problem:
        case QueueFullError(retry_after=seconds):
            return ApiError(
                429, message, kind="rate_limit_error", code="queue_full", headers={"Retry-After": retry_after(seconds)}
            )
        case DrainingError(retry_after=seconds):
            return _unavailable(message, "draining", seconds)
        case RefusedError(retry_after=seconds):
            return _unavailable(message, "refused", seconds)
        case DeadlineError():
            # The official clients would ask again, for the same number of seconds.
            return ApiError(408, message, kind="timeout_error", code="deadline", headers={"X-Should-Retry": "false"})
        case NumericError():
            return ApiError(500, message, kind="server_error", code="not_finite", headers={"X-Should-Retry": "false"})
        case OptionError():
            return ApiError(400, message)
    return ApiError(500, message, kind="server_error")


def not_ready() -> ApiError:
    """While the engine is being loaded."""
    return _unavailable("the engine is still being loaded; ask /ready, and try again when it says so", "loading", 1)


def retry_after(seconds: float) -> str:
    """The header's value, which is whole seconds."""
    return str(max(1, math.ceil(seconds)))


def _unavailable(message: str, code: str, seconds: float) -> ApiError:
    headers = {"Retry-After": retry_after(seconds)}
    return ApiError(503, message, kind="service_unavailable", code=code, headers=headers)


def refuse(problem: ValidationError) -> NoReturn:
    """Raise ApiError for what is wrong with a request's fields: the first mistake, or of a value that could be of
    several types, the one found deepest.
    """
    found = problem.errors(include_url=False, include_context=False)
    place = found[0]["loc"][:1]
    first = max((error for error in found if error["loc"][:1] == place), key=lambda error: len(error["loc"]))
    param = _path(first["loc"])
    if first["type"] == "extra_forbidden":
        raise ApiError(
            400, f"{param} is no field that this server knows; leave it out", param=param, code="unknown_field"
        )
    if first["type"] == "missing":
        raise ApiError(400, f"{param} is required, got none", param=param, code="missing_field")
    said = first["msg"].removeprefix("Value error, ").replace("Input should ", "must ", 1)
    # What is wrong between several fields has the whole object as its value; it says itself what it is about.
    whole = first["type"] == "value_error" and isinstance(first["input"], dict) and not said.startswith("must ")
    words = f"{param}: {said}".removeprefix(": ") if whole else f"{param or 'the body'} {said}{_shown(first['input'])}"
    raise ApiError(400, words, param=param or None, code="invalid_value")


def _path(location: tuple[int | str, ...]) -> str:
    """As a caller would write it: messages[0].content."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in _UNION_TAGS:
            path += f".{part}" if path else part
    return path


def _shown(value: Any) -> str:
    """A short value, to be told back; long ones may be a whole prompt."""
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        return f", got {text}" if len(text) <= 60 else f", got {text[:60]}..."
    return f", got {type(value).__name__}"


def told(problem: Exception) -> ApiError:
    """What a client is told of any exception: of one that is a fault of the server's own, nothing but that."""
    if isinstance(problem, ApiError):
        return problem
    if isinstance(problem, XllmcError):
        return as_api_error(problem)
    return ApiError(500, "the server failed at this request; its logs say why", kind="server_error", code="internal")


def error_response(problem: ApiError) -> Response:
    """The answer that says it."""
    return Response(problem.json(), problem.status, problem.headers, "application/json")
