"""Files that appear whole or not at all: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside `file` for the block to write to; it takes `file`'s place when the block ends without an error.

    Whatever fails, a file that was there stays as it was. Folders that are missing are made. The path keeps the
    file's suffix, which MLX insists on.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.stem}.partial-{secrets.token_hex(4)}{file.suffix}")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(file: Path, text: str) -> None:
    """Write a UTF-8 text file, atomically."""
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(file: Path, value: Any) -> None:
    """Write an indented JSON file, atomically."""
    write_text(file, json.dumps(value, ensure_ascii=False, indent=2) + "\n")
