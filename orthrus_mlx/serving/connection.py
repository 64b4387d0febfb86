"""One HTTP exchange: the body within its limit, work that ends when the client goes, and server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .errors import HttpError, as_http_error
from .run import Run

log = logging.getLogger(__name__)

T = TypeVar("T")
GRACE = 5.0
"""Seconds beyond a request's time after which a reader that takes nothing is dropped."""


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_CURL = "curl: -H 'Content-Type: application/json'"


class ClientGone(Exception):
    """The client closed the connection."""


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """The body of a JSON request.

    Raises:
        HttpError: 415 for another content type, 413 beyond `limit` bytes, 408 where it does not arrive in time.
        ClientGone: the client left.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also what keeps web pages of other origins out: this type makes their browser ask first.
        raise HttpError(415, f"the body must be sent as application/json, not {kind[:80]!r} ({_CURL})")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise HttpError(413, f"the body has {declared} bytes, more than the {limit} that are allowed")
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > limit:
                    raise HttpError(413, f"the body has more than the {limit} bytes that are allowed")
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise HttpError(408, f"the body did not arrive within {seconds:g} seconds") from None


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T], deadline: float | None = None) -> T:
    """The result of `work`, which is cancelled when the client goes or at `deadline` (of `time.monotonic`).

    Raises:
        ClientGone: it went.
        TimeoutError: the time is up.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        timeout = None if deadline is None else max(0, deadline - time.monotonic())
        await asyncio.wait({task, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone if gone.done() else TimeoutError
    finally:
        for future in (task, gone):
            future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


Events = AsyncGenerator[bytes]


def sse(data: Any, event: str | None = None) -> bytes:
    """One server-sent event with JSON data."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {_encode(data)}\n\n".encode(errors="replace")


def keepalive(run: Run) -> bytes:
    """A comment, as mlx-lm's server sends it: what has been read of the prompt."""
    read, total = run.progress
    return f": keepalive {read}/{total}\n\n".encode()


class EventStream(Response):
    """Streams `events`; whatever ends it, the run is given up and the generator closed before the call returns.

    Args:
        run: what the events tell of.
        events: server-sent events.
        failed: the event that tells of an error.
    """

    media_type = "text/event-stream"

    def __init__(self, run: Run, events: Events, failed: Callable[[HttpError], bytes]):
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._run, self._events, self._failed = run, events, failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(receive, self._send(send), self._run.deadline + GRACE)
        except (ClientGone, TimeoutError):
            log.info("the client of a stream left, or reads too slowly; the request is given up")
        finally:
            self._run.close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events) as events:
            try:
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            except Exception as error:
                told = as_http_error(error)
                if told.status == 500:
                    log.exception("a stream failed")
                await send({"type": "http.response.body", "body": self._failed(told), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
