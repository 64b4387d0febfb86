"""The server's own description in OpenAPI, made of the classes that check the bodies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from .. import __version__
from .anthropic_bodies import CountBody
from .body import Body

if TYPE_CHECKING:
    from .app import Protocol

_REF = "#/components/schemas/{model}"
_JSON = "application/json"


def description(protocols: Sequence[Protocol]) -> dict[str, Any]:
    """An OpenAPI 3.1 document."""
    bodies: dict[str, type[Body]] = {p.path: p.body for p in protocols} | {"/v1/messages/count_tokens": CountBody}
    _, schemas = models_json_schema([(body, "validation") for body in bodies.values()], ref_template=_REF)
    paths: dict[str, Any] = {path: {"post": _post(path, body)} for path, body in bodies.items()}
    for path, what in _GET.items():
        paths[path] = {"get": _get(path, *what)}
    components = {"schemas": {**schemas.get("$defs", {}), "Error": {"type": "object", "required": ["error"]}}}
    info = {"title": "orthrus-mlx", "version": __version__}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}


_GET = {
    "/": ("The chat page", "text/html", {"200"}),
    "/health": ("Whether the server is up", _JSON, {"200"}),
    "/metrics": ("Prometheus metrics", "text/plain", {"200", "401"}),
    "/v1/models": ("The model's names", _JSON, {"200", "401"}),
    "/v1/models/{name}": ("One of them", _JSON, {"200", "401", "404"}),
}
_ERRORS = ("400", "401", "404", "408", "413", "415", "429", "500", "503", "504")


def _post(path: str, kind: type[Body]) -> dict[str, Any]:
    body = {"$ref": _REF.format(model=kind.__name__)}
    whole = {"description": "The answer", "content": {_JSON: {"schema": {"type": "object"}}, "text/event-stream": {}}}
    return {
        "summary": path,
        "requestBody": {"required": True, "content": {_JSON: {"schema": body}}},
        "responses": {"200": whole, **{status: _error_response() for status in _ERRORS}},
    }


def _get(path: str, summary: str, kind: str, statuses: set[str]) -> dict[str, Any]:
    schema = {"type": "object" if kind == _JSON else "string"}
    responses: dict[str, Any] = {s: _error_response() for s in sorted(statuses) if s != "200"}
    responses["200"] = {"description": summary, "content": {kind: {"schema": schema}}}
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if "{name}" in path:
        operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    return operation


def _error_response() -> dict[str, Any]:
    schema = {"$ref": _REF.format(model="Error")}
    return {"description": "An error", "content": {_JSON: {"schema": schema}}}
