"""Errors as a client sees them, in OpenAI's and in Anthropic's shape."""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from ..errors import OrthrusError, RequestError
from .engine import Busy

_OPENAI_TYPES = {401: "authentication_error", 429: "rate_limit_error", 503: "server_error", 504: "timeout_error"}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_PARAMETER = re.compile(r"^([a-z_]+(?:\.[\w$-]+)*)(?::| must\b)")
"""A message that begins with a parameter's name, as those of this package do."""


class HttpError(OrthrusError):
    """An error with a status, the parameter at fault and a machine-readable code, where there are any."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}


def as_http_error(error: BaseException) -> HttpError:
    """What the client is told of `error`; of one that was not foreseen, nothing but that it happened."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, Busy):
        retry = {"Retry-After": str(error.retry_after)}
        return HttpError(429, str(error), code="busy", headers=retry)
    if isinstance(error, RequestError):
        named = _PARAMETER.match(str(error))
        return HttpError(400, str(error), param=named[1] if named else None)
    return HttpError(500, "the server failed on this request; its log has the details", code="internal_error")


def speaks_anthropic(request: Request) -> bool:
    return request.scope["path"].startswith("/v1/messages")


def error_body(error: HttpError, anthropic: bool = False) -> dict[str, Any]:
    """The JSON body of an error."""
    if anthropic:
        kind = _ANTHROPIC_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": error.message}}
    kind = _OPENAI_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def error_response(error: HttpError, anthropic: bool = False) -> JSONResponse:
    return JSONResponse(error_body(error, anthropic), status_code=error.status, headers=error.headers)
