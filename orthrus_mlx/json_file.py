"""JSON from checkpoints, read strictly: what two readers could understand differently is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from .errors import CheckpointError

MAX_BYTES = 256 * 1024 * 1024
"""No JSON file of a checkpoint comes near it (the largest, tokenizer.json, has some 10 MB)."""


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `data` (UTF-8). `where` names it in errors.

    Raises:
        CheckpointError: bad UTF-8 or JSON, a repeated key, NaN or Infinity, nesting too deep, or not an object.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise CheckpointError(f"{where}: JSON is nested too deeply") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError and numbers of too many digits
        raise CheckpointError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: expected a JSON object at the top level")
    return value


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`. Raises CheckpointError as `parse_object`, or when it is missing or unreadable."""
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file")
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise CheckpointError(f"{file}: larger than {MAX_BYTES} bytes, not a checkpoint's JSON")
    return parse_object(data, str(file))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        repeated, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"key {repeated[:80]!r} appears twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
