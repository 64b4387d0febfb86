"""The ASGI application: routes, what guards them, and errors in the protocol's shape."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from . import anthropic_messages, openai_chat, openai_completions, responses
from .anthropic_bodies import CountBody, MessagesBody
from .body import Body, parse
from .connection import ClientGone, EventStream, read_body, sse, while_connected
from .errors import HttpError, as_http_error, error_body, error_response, speaks_anthropic
from .guard import Book, Guard
from .metrics import CONTENT_TYPE_LATEST, Metrics
from .openai_bodies import ChatBody, CompletionBody
from .openapi import description
from .responses_bodies import ResponsesBody
from .run import Run
from .service import Plan, Service

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Protocol:
    """One way to ask for text.

    Attributes:
        path: of the POST route.
        body: the class of its bodies.
        plan: (service, body) -> plan; runs in a thread.
        reply: (service, body, model name, run) -> something with `whole()` and `events()`.
        anthropic: whose shape errors have.
    """

    path: str
    body: type[Body]
    plan: Callable[[Service, Any], Plan]
    reply: Callable[[Service, Any, str, Run], Any]
    anthropic: bool = False


PROTOCOLS = (
    Protocol("/v1/chat/completions", ChatBody, openai_chat.plan, openai_chat.ChatReply),
    Protocol("/v1/completions", CompletionBody, openai_completions.plan, openai_completions.CompletionReply),
    Protocol("/v1/responses", ResponsesBody, responses.plan, responses.ResponsesReply),
    Protocol("/v1/messages", MessagesBody, anthropic_messages.plan, anthropic_messages.MessagesReply, anthropic=True),
)


def build_app(
    service: Service, *, api_key: str | None = None, allowed_origins: tuple[str, ...] = (), loopback: bool = True
) -> Starlette:
    """The server as an ASGI application; its shutdown drains the engine.

    Args:
        service: the model and its limits.
        api_key: see `Guard`.
        allowed_origins: web origins that browsers may call from ("*" for all); none by default.
        loopback: see `Guard`.
    """
    metrics = Metrics(service.engine.metrics)
    # One at a time: rendering and tokenising hold the GIL, and grammars should not all compile at once.
    preparing = CapacityLimiter(1)
    routes = [
        *(Route(p.path, _endpoint(service, metrics, preparing, p), methods=["POST"]) for p in PROTOCOLS),
        Route(
            "/v1/messages/count_tokens",
            _told(partial(_count_tokens, service, preparing), anthropic=True),
            methods=["POST"],
        ),
        Route("/", _page),
        Route("/health", partial(_health, service)),
        Route("/metrics", partial(_metrics, metrics)),
        Route("/v1/models", partial(_models, service)),
        Route("/v1/models/{name:path}", partial(_model, service)),
        Route("/openapi.json", partial(_openapi, description(PROTOCOLS))),
    ]
    guards = [
        Middleware(Book, metrics=metrics, routes=frozenset(route.path for route in routes)),
        Middleware(Guard, api_key=api_key, loopback=loopback),
    ]
    if allowed_origins:
        guards.insert(
            1,
            Middleware(CORSMiddleware, allow_origins=list(allowed_origins), allow_methods=["*"], allow_headers=["*"]),
        )

    @asynccontextmanager
    async def lifespan(app: Starlette):
        yield
        await asyncio.to_thread(service.engine.close, True)

    handlers: Any = {HTTPException: _plain_http_error, Exception: _error}
    return Starlette(routes=routes, middleware=guards, exception_handlers=handlers, lifespan=lifespan)


def _endpoint(service: Service, metrics: Metrics, preparing: CapacityLimiter, protocol: Protocol):
    async def work(request: Request) -> Response:
        return await _answer(service, metrics, preparing, protocol, request)

    return _told(work, anthropic=protocol.anthropic)


def _told(work: Callable[[Request], Awaitable[Response]], *, anthropic: bool):
    """`work`, whose errors become responses."""

    async def answer(request: Request) -> Response:
        try:
            return await work(request)
        except ClientGone:
            log.info("the client left before its answer was ready; the request is given up")
            return Response(status_code=499)
        except BaseException as error:
            # Rust libraries (tokenizer, grammar) panic with an exception that is no Exception.
            if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            told = as_http_error(error)
            if told.status == 500:
                log.exception("a request failed")
            return error_response(told, anthropic)

    return answer


async def _answer(
    service: Service, metrics: Metrics, preparing: CapacityLimiter, protocol: Protocol, request: Request
) -> Response:
    deadline = time.monotonic() + service.limits.seconds
    body, name, plan = await _prepared(service, preparing, request, protocol.body, protocol.plan)
    run = Run(service, plan, deadline)
    reply = protocol.reply(service, body, name, run)
    if body.stream:
        failed = partial(_failed_event, anthropic=protocol.anthropic)
        return EventStream(run, _timed(metrics, run, reply.events()), failed)
    try:
        return JSONResponse(await while_connected(request.receive, reply.whole()))
    finally:
        run.close()
        metrics.finished(run, time.monotonic() - run.started)


async def _count_tokens(service: Service, preparing: CapacityLimiter, request: Request) -> Response:
    _, _, prompt = await _prepared(service, preparing, request, CountBody, anthropic_messages.prompt)
    return JSONResponse({"input_tokens": len(prompt.tokens)})


async def _prepared(
    service: Service, preparing: CapacityLimiter, request: Request, kind: type[Body], prepare: Callable[..., Any]
) -> tuple[Any, str, Any]:
    """(body, model name, what `prepare` makes of the body in a thread)."""
    body: Any = parse(kind, await read_body(request, service.limits.body_bytes, service.limits.seconds))
    name = service.check_model(body.model)
    work = to_thread.run_sync(partial(prepare, service, body), limiter=preparing)
    return body, name, await while_connected(request.receive, work)


async def _timed(metrics: Metrics, run: Run, events):
    try:
        async for event in events:
            yield event
    finally:
        await events.aclose()
        metrics.finished(run, time.monotonic() - run.started)


def _failed_event(error: HttpError, *, anthropic: bool) -> bytes:
    return sse(error_body(error, anthropic), "error" if anthropic else None)


# Other routes ---------------------------------------------------------------------------------------


async def _page(request: Request) -> Response:
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
    )
    headers = {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff"}
    return HTMLResponse((files(__package__) / "page.html").read_text(encoding="utf-8"), headers=headers)


async def _health(service: Service, request: Request) -> Response:
    return JSONResponse({"status": "ok", "model": service.names[0]})


async def _metrics(metrics: Metrics, request: Request) -> Response:
    return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def _described(service: Service, name: str) -> dict[str, Any]:
    """A model in OpenAI's and Anthropic's form at once, and what it can do."""
    return {
        "id": name,
        "object": "model",
        "created": service.loaded_at,
        "owned_by": "orthrus-mlx",
        "type": "model",
        "display_name": name,
        "created_at": datetime.fromtimestamp(service.loaded_at, UTC).isoformat(),
        "context_length": service.args.context_length,
        "block_size": service.args.block_size,
        "exactness": service.engine.exactness,
    }


async def _models(service: Service, request: Request) -> Response:
    listed = [_described(service, name) for name in service.names]
    ends = {"has_more": False, "first_id": service.names[0], "last_id": service.names[-1]}
    return JSONResponse({"object": "list", "data": listed, **ends})


async def _model(service: Service, request: Request) -> Response:
    try:
        return JSONResponse(_described(service, service.check_model(request.path_params["name"])))
    except HttpError as error:
        return error_response(error)


async def _openapi(document: dict[str, Any], request: Request) -> Response:
    return JSONResponse(document)


async def _plain_http_error(request: Request, error: HTTPException) -> Response:
    told = HttpError(error.status_code, f"{request.method} {request.scope['path'][:200]}: {error.detail.lower()}")
    told.headers = dict(error.headers or {})
    return error_response(told, speaks_anthropic(request))


async def _error(request: Request, error: Exception) -> Response:
    return error_response(as_http_error(error), speaks_anthropic(request))
