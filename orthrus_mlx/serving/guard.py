"""Who may talk to the server: the API key, and the names under which a loopback server may be addressed."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from ipaddress import ip_address

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import HttpError, error_response, speaks_anthropic
from .metrics import Metrics

log = logging.getLogger(__name__)

OPEN_PATHS = ("/", "/health")
"""Served without a key: the page holds nothing secret, and health checks have none."""

_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:\d+)?")


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, can only be this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def addressed(header: str) -> str:
    """The name or address in a Host header, without the port and the brackets of IPv6; "" for a malformed one."""
    found = _HOST.fullmatch(header.lower())
    return found[1].strip("[]") if found else ""


class Guard:
    """ASGI middleware.

    Args:
        app: what it guards.
        api_key: the key that clients must send, as `Authorization: Bearer KEY` or `x-api-key: KEY`; None asks for none.
        loopback: whether only this machine may talk to the server. A web page could reach it through a name of its
            own that resolves to 127.0.0.1; such names are refused.
    """

    def __init__(self, app: ASGIApp, *, api_key: str | None, loopback: bool):
        self._app, self._loopback = app, loopback
        self._key = None if api_key is None else _digest(api_key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            refusal = self._refusal(request)
            if refusal is not None:
                await error_response(refusal, speaks_anthropic(request))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, request: Request) -> HttpError | None:
        if self._loopback and not is_loopback(addressed(request.headers.get("host", ""))):
            return HttpError(421, "this server answers to localhost and 127.0.0.1 only (see --host)")
        # Not `request.url`, which is made of the Host header, too.
        if self._key is None or request.scope["path"] in OPEN_PATHS or request.method == "OPTIONS":
            return None
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        offered = bearer.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        if not hmac.compare_digest(_digest(offered), self._key):
            return HttpError(
                401,
                "a valid API key is needed: Authorization: Bearer KEY, or x-api-key: KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return None


def _digest(key: str) -> bytes:
    # Equal lengths, so that the comparison takes the same time for every guess.
    return hashlib.sha256(key.encode(errors="replace")).digest()


class Book:
    """ASGI middleware that counts and logs every request: route, status and time, never what it said."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, routes: frozenset[str]):
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 499, time.monotonic()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            path = scope["path"]
            route = path if path in self._routes else "other"
            self._metrics.requests.labels(route, str(status)).inc()
            log.info("%s %s %d %.3f s", scope["method"], route, status, time.monotonic() - start)
