"""What the exactness probe found, kept on disk for models of the same shapes on the same machine.

A note is valid for one device, operating system, MLX version, BLAS, program text and choice of kernels, and for one
set of layers, shapes and dtypes; the key says all of them. A file that is missing or damaged is probed for again.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten

from .atomic_file import write_json
from .kernels.cpu_linear import library
from .kernels.tuning import cache_file, cache_key
from .model import Model

KINDS = ("row-exact", "row-class", "inexact")


@dataclass(frozen=True)
class Note:
    """The probe's finding, as `orthrus_mlx.exactness.Exactness` describes it."""

    kind: str
    rows: int | None
    evidence: str


def notes_file() -> Path:
    """`exactness.json`, beside the timings of kernels."""
    return cache_file().with_name("exactness.json")


def key(model: Model) -> str:
    """Names all that the probe's finding for `model` depends on here."""
    plan: Any = model.kernels
    digest = hashlib.sha256(_program())
    digest.update(repr((model.args, *plan.chosen)).encode())
    digest.update(repr([(name, type(module).__qualname__) for name, module in model.named_modules()]).encode())
    parameters: Any = tree_flatten(model.parameters())
    digest.update(repr([(name, p.shape, str(p.dtype)) for name, p in parameters]).encode())
    return cache_key(f"{library()} | exactness {digest.hexdigest()[:16]}")


def read(key: str) -> Note | None:
    """The note under `key`; None where there is none that can be read."""
    entry = _entries().get(key)
    if not isinstance(entry, dict) or set(entry) != {"kind", "rows", "evidence"}:
        return None
    kind, rows, evidence = entry["kind"], entry["rows"], entry["evidence"]
    padded = isinstance(rows, int) and 1 <= rows <= 32
    if kind not in KINDS or not isinstance(evidence, str) or (rows is not None) != padded:
        return None
    return Note(kind, rows, evidence) if padded == (kind == "row-class") else None


def write(key: str, note: Note) -> None:
    """Keep `note`, atomically. A home that cannot be written to costs probing again, nothing else."""
    with suppress(OSError):
        write_json(notes_file(), {**_entries(), key: asdict(note)})


def _entries() -> dict[str, Any]:
    try:
        entries = json.loads(notes_file().read_bytes())
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


@cache
def _program() -> bytes:
    """Hash of what the package computes a pass with."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for file in sorted([*package.glob("*.py"), *package.glob("kernels/*.py")]):
        digest.update(file.read_bytes())
    return digest.digest()
