"""Reading a request's body, within limits."""

from starlette.requests import ClientDisconnect, Request

from .errors import ApiError, ClientGoneError


async def read_json_body(request: Request, limit: int) -> bytes:
    """The body, at most ``limit`` bytes. Raises ApiError, and ClientGoneError when the client leaves meanwhile.

    Only application/json is read: other types can be sent from any web page to a server on the reader's own machine
    without asking that server first.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        got = f"got {kind[:60]!r}" if kind else "got none"
        raise ApiError(415, f"Content-Type must be application/json, {got}")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
    except ClientDisconnect as problem:
        raise ClientGoneError from problem
    return b"".join(parts)


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413, f"a request's body may hold {limit} bytes at most; send less, or start the server with a larger limit"
    )
