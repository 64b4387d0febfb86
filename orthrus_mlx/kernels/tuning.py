"""Timings of kernel variants on this device, kept on disk.

A timing is valid for one device, operating system, MLX version and kernel text; the key says all four. A cache
that is missing, damaged or of another machine is only a cache: it is measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from ..atomic_file import write_json

Timing = Mapping[str, float]
"""Milliseconds by variant and row count, "fma/16" for example."""

_CALLS = 20
_REPEATS = 5
_SLICE = 5e-3
"""Seconds that a run of calls should take: slow calls need fewer of them to be told apart."""


def cache_file() -> Path:
    """`kernels.json` in `$XDG_CACHE_HOME/orthrus-mlx`, by default `~/.cache/orthrus-mlx`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "orthrus-mlx" / "kernels.json"


@cache
def text_hash() -> str:
    """Short hash of all of `metal/`."""
    digest = hashlib.sha256()
    for file in sorted(resources.files("orthrus_mlx.metal").iterdir(), key=lambda f: f.name):
        if file.name.endswith((".metal", ".h")):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def cache_key(what: str) -> str:
    """Key of `what` on this machine: device, operating system, MLX version, kernel text."""
    device = mx.device_info().get("device_name", "unknown device")
    system = platform.mac_ver()[0] or platform.release()
    return f"{device} | {system} | mlx {version('mlx')} | {text_hash()} | {what}"


def measure(calls: Sequence[Callable[[], mx.array]]) -> float:
    """Milliseconds per call: the best of some runs over `calls` in turn.

    Several calls with different weights keep the weights out of the caches, as in a model.
    """

    def seconds(count: int) -> float:
        start = time.perf_counter()
        mx.eval([calls[i % len(calls)]() for i in range(count)])
        return time.perf_counter() - start

    seconds(1)  # compiles
    count = min(_CALLS, max(1, round(_SLICE / seconds(1))))
    return min(seconds(count) for _ in range(_REPEATS)) / count * 1e3


def timings(what: str, variants: Mapping[str, Sequence[Callable[[], mx.array]]]) -> Timing:
    """Timing of each of `variants`, from disk where they were measured before."""
    found = recall(what)
    if found is not None and set(found) >= set(variants):
        return {name: found[name] for name in variants}
    measured = {name: measure(calls) for name, calls in variants.items()}
    remember(what, measured)
    return measured


def recall(what: str) -> Timing | None:
    """What was measured of `what` on this machine before; None if nothing was or the file cannot be read."""
    return _read(cache_file()).get(cache_key(what))


def remember(what: str, measured: Timing) -> None:
    """Keep what was measured of `what`. A home that cannot be written to costs measuring again, nothing else."""
    with suppress(OSError):
        write_json(cache_file(), {**_read(cache_file()), cache_key(what): dict(measured)})


def _read(path: Path) -> dict[str, dict[str, float]]:
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return {key: entry for key, entry in entries.items() if _valid(entry)} if isinstance(entries, dict) else {}


def _valid(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(ms, float) and 0 < ms < float("inf") for ms in entry.values())
