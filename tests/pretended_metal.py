"""Lets MLX look like a Mac's to the tests: `pytest -p tests.pretended_metal tests/test_kernels_linear.py`.

`mx.metal.is_available()` is true and every kernel runs in the emulator, but nothing says so: `emulated_metal()` takes
the machine for a Mac and stands aside. So the path that the macOS workflow takes can be walked on Linux.
"""

from __future__ import annotations

from tests.emulator import emulated_metal, metal

_pretence = emulated_metal()
_pretence.__enter__()
metal.on_metal = lambda: True
