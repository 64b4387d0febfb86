"""Request bodies: strict pydantic models, and what is wrong with a body in one line that names the parameter."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import HttpError


class Body(BaseModel):
    """A JSON object that may hold nothing but the fields of its class."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Body)


def parse(kind: type[Kind], raw: bytes) -> Kind:
    """The checked body.

    Raises:
        HttpError: 400; the message and `param` name the parameter at fault.
    """
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        # The union members that were tried all complain; the one that got deepest says what is really wrong.
        problems = error.errors(include_url=False, include_input=False)
        raise _explained(max(problems, key=_depth), raw, kind) from None


def _depth(problem: Any) -> tuple[int, bool]:
    return len(problem["loc"]), problem["type"] == "extra_forbidden"


def _explained(problem: Any, raw: bytes, kind: type[Body]) -> HttpError:
    if problem["type"] == "json_invalid":
        return HttpError(400, f"the body is not valid JSON: {problem['ctx']['error']}")
    path = _path(problem["loc"], problem["type"], raw)
    if not path:
        return HttpError(400, f"the body must be a JSON object ({problem['msg']})")
    name = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = f"; supported: {', '.join(sorted(kind.model_fields))}" if len(path) == 1 else ""
        return HttpError(400, f"{name}: not supported{known}", param=name, code="unsupported_parameter")
    if problem["type"] == "missing":
        return HttpError(400, f"{name}: missing", param=name, code="missing_required_parameter")
    message = problem["msg"].removeprefix("Value error, ")
    return HttpError(400, f"{name}: {message[:1].lower()}{message[1:]}", param=name)


def _path(loc: tuple[int | str, ...], kind: str, raw: bytes) -> list[str]:
    """`loc` without the names of union members, which are no part of the client's data."""
    path: list[str] = []
    value: Any = json.loads(raw)
    for i, step in enumerate(loc):
        if (isinstance(value, dict) and step in value) or (isinstance(value, list) and isinstance(step, int)):
            value = value[step]  # type: ignore[index]
        elif not (kind == "missing" and i == len(loc) - 1):
            continue
        path.append(str(step))
    return path
