"""The server's application: its endpoints, and what they answer."""

import asyncio
from collections.abc import Mapping
from functools import cache

from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from ..artifact.errors import XllmcError
from ..artifact.version import xllmc_version
from .attend import attend
from .body import read_json_body
from .call import Call
from .chat import ChatAnswer, conversation_ids
from .chat_request import ChatRequest
from .completion_request import CompletionRequest
from .completions import CompletionAnswer
from .errors import CLIENT_GONE, ApiError, ClientGoneError, error_response, told
from .event_stream import EventStream
from .fields import Fields, parse
from .hosts import is_loopback
from .openapi import document
from .prompts import check_length, prompt_ids, require_tokenizer
from .responses import Body, ModelBody, ModelList, Status, Version
from .served import Served
from .service import Service
from .watch import OPEN_PATHS, Keys, Watch


def create_app(service: Service) -> ASGIApp:
    """The application of ``service``, which may still be without its engine. Raises OptionError for bad API keys."""
    keys = Keys(service.settings.keys())
    open_paths = OPEN_PATHS | ({"/metrics"} if service.settings.open_metrics else set())
    host = service.settings.host
    called = host if is_loopback(host) and not keys else None
    return Watch(_endpoints(service, bool(keys)), keys, service.metrics, frozenset(open_paths), called)


def _endpoints(service: Service, keyed: bool) -> FastAPI:
    limits = service.settings
    app = FastAPI(
        title="xllmc",
        version=xllmc_version(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for kind in (ApiError, XllmcError, ClientGoneError, HTTPException, Exception):
        app.add_exception_handler(kind, _on_error)

    @app.get("/health", response_model=None, summary="Whether the process lives")
    async def health() -> Response:
        return _json(Status(status=service.status))

    @app.get("/ready", response_model=None, summary="Whether requests are taken")
    async def ready() -> Response:
        status = service.status
        headers = {} if status == "ok" else {"Retry-After": "1"}
        return _json(Status(status=status), 200 if status == "ok" else 503, headers)

    @app.get("/version", response_model=None, summary="What serves")
    async def version() -> Response:
        return _json(Version(version=xllmc_version()))

    @app.get("/metrics", response_model=None, summary="Metrics for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    @app.get("/v1/models", response_model=None, summary="Names of the model")
    async def models() -> Response:
        served = service.loaded()
        return _json(ModelList(object="list", data=[_model(served, name) for name in served.names]))

    @app.get("/v1/models/{name:path}", response_model=None, summary="The model of a name")
    async def model(name: str) -> Response:
        served = service.loaded()
        return _json(_model(served, served.name(name)))

    @app.post("/v1/completions", response_model=None, summary="Continue prompts")
    async def completions(request: Request) -> Response:
        served, call = service.ready(), _call(request)
        asked = await _read(request, CompletionRequest, service)
        served.name(asked.model)
        _check_samples(len(asked.prompt) * asked.samples, limits.max_samples)
        params = asked.params(served.defaults)
        options = asked.options(call.request_id, call.key, limits.request_timeout, limits.max_priority)
        ids = await prompt_ids(served, asked.prompt)
        answer = CompletionAnswer(served, call, asked, asked.prompt, ids)
        if asked.stream:
            return EventStream(service, call, answer.events(params, options))
        with service:
            return _json(await attend(request.receive, service.stopping, answer.whole(params, options)))

    @app.post("/v1/chat/completions", response_model=None, summary="Answer a conversation")
    async def chat(request: Request) -> Response:
        served, call = service.ready(), _call(request)
        asked = await _read(request, ChatRequest, service)
        served.name(asked.model)
        require_tokenizer(served, "the model of a chat")
        ids = await conversation_ids(served, asked)
        check_length(ids, served.context, "messages")
        params = asked.params(served.defaults, served.context - len(ids))
        options = asked.options(call.request_id, call.key, limits.request_timeout, limits.max_priority)
        answer = ChatAnswer(served, call, asked, ids)
        if asked.stream:
            return EventStream(service, call, answer.events(params, options))
        with service:
            return _json(await attend(request.receive, service.stopping, answer.whole(params, options)))

    app.openapi = cache(lambda: document(app, keyed))  # type: ignore[method-assign]
    return app


async def _read(request: Request, kind: type[Fields], service: Service) -> Fields:
    try:
        async with asyncio.timeout(service.settings.idle_timeout):
            body = await read_json_body(request, service.settings.max_body_bytes)
    except TimeoutError as problem:
        said = f"a request's body must come within {service.settings.idle_timeout:g} s; send it faster"
        raise ApiError(408, said, kind="timeout_error", code="slow_body") from problem
    return parse(kind, body)


def _check_samples(count: int, most: int) -> None:
    if count > most:
        raise ApiError(
            400, f"a request may ask for {most} samples (prompts times n) at most, got {count}; ask in several"
        )


async def _on_error(request: Request, problem: Exception) -> Response:
    call = _call(request)
    if isinstance(problem, ClientGoneError):
        call.outcome = "disconnected"
        return Response(status_code=CLIENT_GONE)
    if isinstance(problem, HTTPException):
        method, path = request.method, request.url.path[:100]
        said = {
            404: f"there is no {path} here; see /openapi.json",
            405: f"{path} does not take {method}; see /openapi.json",
        }
        error = ApiError(problem.status_code, said.get(problem.status_code, problem.detail), headers=problem.headers)
    else:
        error = told(problem)
    call.fail(error)
    return error_response(error)


def _call(request: Request) -> Call:
    call = request.scope["state"]["call"]
    assert isinstance(call, Call)
    return call


def _json(body: Body, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body.json_bytes(), status, headers, "application/json")


def _model(served: Served, name: str) -> ModelBody:
    return ModelBody(id=name, object="model", created=served.created, owned_by="xllmc", max_model_len=served.context)
