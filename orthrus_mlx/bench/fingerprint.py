"""Digests that tell whether two measurements may stand in one report."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

_SAMPLE = 1 << 20


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def model_digest(folder: Path) -> str:
    """Of the config, and of the size and both ends of every weight file: reading all of 16 GB would take a minute."""
    total = hashlib.sha256((folder / "config.json").read_bytes())
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        total.update(f"{file.name} {size}".encode())
        with file.open("rb") as stream:
            total.update(stream.read(_SAMPLE))
            stream.seek(max(size - _SAMPLE, 0))
            total.update(stream.read(_SAMPLE))
    return total.hexdigest()[:16]


def code_digest() -> str:
    """Of this package's own sources and kernel texts."""
    total = hashlib.sha256()
    for package in ("orthrus_mlx", "orthrus_mlx.metal"):
        for name, data in sorted(_sources(files(package))):
            total.update(name.encode() + data)
    return total.hexdigest()[:16]


def _sources(folder: Traversable) -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in ("assets", "training", "__pycache__"):
            found += _sources(entry)
        elif entry.name.endswith((".py", ".metal", ".h")):
            found.append((str(entry), entry.read_bytes()))
    return found
