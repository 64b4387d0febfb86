"""One BLAS thread for a while: OpenBLAS, as NumPy's Linux wheels carry it, asked through its C interface."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from threading import Lock

_MAPS = Path("/proc/self/maps")
_one_at_a_time = Lock()

Controls = tuple[Callable[[], int], Callable[[int], None]]
"""`openblas_get_num_threads` and `openblas_set_num_threads` of a library."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Products inside use one thread, in every loaded OpenBLAS; with another BLAS nothing changes.

    The number is the process's, so only one Python thread at a time may be inside, and products that other code
    computes meanwhile have one thread too.
    """
    with _one_at_a_time:
        before = [get() for get, _ in controls()]
        try:
            for _, set_threads in controls():
                set_threads(1)
            yield
        finally:
            for (_, set_threads), threads in zip(controls(), before, strict=True):
                set_threads(threads)


@cache
def controls() -> tuple[Controls, ...]:
    """Those of every OpenBLAS in this process; none where the system does not list loaded libraries."""
    try:
        maps = _MAPS.read_text()
    except OSError:
        return ()
    paths = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if "openblas" in line}
    return tuple(found for path in sorted(paths) if (found := _controls(ctypes.CDLL(path))))


def _controls(library: ctypes.CDLL) -> Controls | None:
    for prefix, suffix in product(("", "scipy_"), ("", "64_", "_64")):
        get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
        put = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
        if get is not None and put is not None:
            get.argtypes, get.restype = (), ctypes.c_int
            put.argtypes, put.restype = (ctypes.c_int,), None
            return get, put
    return None
