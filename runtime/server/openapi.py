"""The OpenAPI document: what each endpoint reads and answers. Made when it is first asked for."""

from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .chat_request import ChatRequest
from .completion_request import CompletionRequest
from .errors import ErrorResponse
from .responses import ChatBody, ChatChunk, CompletionBody, ModelBody, ModelList, Status, Version
from .watch import OPEN_PATHS

_RETRY = {"headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}}
_ERRORS: dict[int, dict[str, Any]] = {
    400: {"description": "The request is wrong; it says where."},
    401: {"description": "An API key is required."},
    403: {"description": "Without keys on a loopback address: the Host header is another machine's name."},
    404: {"description": "There is no such model."},
    408: {"description": "It was not done, or not sent, in time."},
    413: {"description": "The body is too large."},
    415: {"description": "The body is no application/json."},
    429: {"description": "Too many requests wait already."} | _RETRY,
    500: {"description": "The model computed what is no number, or the server has a fault."},
    503: {"description": "The engine is being loaded, or the server is about to stop."} | _RETRY,
}
_ALL = tuple(_ERRORS)


class _Endpoint(NamedTuple):
    method: str
    answer: type[BaseModel] | None
    """None: plain text."""
    errors: tuple[int, ...] = ()
    body: type[BaseModel] | None = None
    chunk: type[BaseModel] | None = None
    """Of a stream."""


_ENDPOINTS = {
    "/health": _Endpoint("get", Status, (403,)),
    "/ready": _Endpoint("get", Status, (403,)),
    "/version": _Endpoint("get", Version, (401, 403)),
    "/metrics": _Endpoint("get", None, (401, 403)),
    "/v1/models": _Endpoint("get", ModelList, (401, 403, 503)),
    "/v1/models/{name}": _Endpoint("get", ModelBody, (401, 403, 404, 503)),
    "/v1/completions": _Endpoint("post", CompletionBody, _ALL, CompletionRequest, CompletionBody),
    "/v1/chat/completions": _Endpoint("post", ChatBody, _ALL, ChatRequest, ChatChunk),
}


def document(app: FastAPI, keyed: bool) -> dict[str, Any]:
    """The document of ``app``. ``keyed``: API keys are asked for."""
    made = get_openapi(title=app.title, version=app.version, routes=app.routes)
    for path, endpoint in _ENDPOINTS.items():
        operation = made["paths"][path][endpoint.method]
        operation["responses"] = _responses(path, endpoint)
        if endpoint.body is not None:
            operation["requestBody"] = {"required": True, "content": _json(endpoint.body)}
        if keyed and path in OPEN_PATHS:
            operation["security"] = []
    kinds: list[Any] = [(ErrorResponse, "serialization")]
    for endpoint in _ENDPOINTS.values():
        kinds += [(kind, "validation") for kind in (endpoint.body,) if kind is not None]
        kinds += [(kind, "serialization") for kind in (endpoint.answer, endpoint.chunk) if kind is not None]
    _, definitions = models_json_schema(kinds, ref_template="#/components/schemas/{model}")
    made["components"] = {"schemas": definitions["$defs"]}
    if keyed:
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"key": []}]
    return made


def _responses(path: str, endpoint: _Endpoint) -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    answer = text if endpoint.answer is None else _json(endpoint.answer)
    if endpoint.chunk is not None:
        answer["text/event-stream"] = {"schema": _event(endpoint.chunk)}
    responses = {"200": {"description": "Done.", "content": answer}}
    if path == "/ready":
        responses["503"] = {"description": "Not ready, or no more.", "content": _json(Status)}
    return responses | {str(status): _ERRORS[status] | {"content": _json(ErrorResponse)} for status in endpoint.errors}


def _event(chunk: type[BaseModel]) -> dict[str, Any]:
    """The schema of a server-sent event."""
    said = f"A {chunk.__name__} in JSON; [DONE] in the last event; an ErrorResponse in an event named error."
    data = {"type": "string", "description": said}
    properties = {"event": {"enum": ["message", "error"]}, "data": data}
    return {"type": "object", "properties": properties, "required": ["data"]}


def _json(kind: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
