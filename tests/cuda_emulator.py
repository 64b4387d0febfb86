"""The CUDA kernels' own text, run on the CPU: each kernel's body is compiled as C++ over `cuda_emulator.h`."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import mlx.core as mx
import numpy as np

from orthrus_mlx.kernels.cuda import operations

_TYPES = {
    mx.bfloat16: "__nv_bfloat16",
    mx.float32: "float",
    mx.int32: "int",
    mx.uint32: "unsigned",
    mx.uint64: "uint64_t",
}

_MULTIPROCESSORS = 3


@contextmanager
def emulated_cuda():
    """Inside, `orthrus_mlx.kernels.cuda` runs here, in bfloat16, and writes the cache in place as it does there."""
    original = operations._kernel, operations.multiprocessors
    operations._kernel, operations.multiprocessors = _kernel, lambda: _MULTIPROCESSORS
    try:
        yield
    finally:
        operations._kernel, operations.multiprocessors = original


def _kernel(name: str, inputs: Sequence[str], outputs: Sequence[str], bits: int) -> Callable[..., list[mx.array]]:
    def run(*, inputs: list, template: list, grid, threadgroup, output_shapes, output_dtypes) -> list[mx.array]:
        given = [_memory(a) for a in inputs]
        made = [_unwritten(s, d) for s, d in zip(output_shapes, output_dtypes, strict=True)]
        arrays = [*given, *map(_memory, made)]
        parameters = tuple(
            (_TYPES[a.dtype], n, a.ndim) for a, n in zip([*inputs, *made], [*names, *results], strict=True)
        )
        constants = tuple((key, int(value)) for key, value in template if key != "T")
        pointers = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
        sizes = [n for a in arrays for n in a.shape]
        blocks = [-(-g // t) for g, t in zip(grid, threadgroup, strict=True)]
        _compiled(name, tuple(names), parameters, constants)(
            pointers, (ctypes.c_int * len(sizes))(*sizes), *blocks, threadgroup[0]
        )
        return made

    names, results = inputs, outputs
    return run


def _unwritten(shape: Sequence[int], dtype: mx.Dtype) -> mx.array:
    """NaN or a large number everywhere, so that what is not written shows."""
    return mx.full(shape, float("nan") if mx.issubdtype(dtype, mx.floating) else 0x7BADBAD, dtype=dtype)


def _memory(a: mx.array) -> np.ndarray:
    """The array's own memory."""
    mx.eval(a)
    words = a.view(mx.uint16) if a.dtype == mx.bfloat16 else a
    mx.eval(words)
    return np.array(words, copy=False)


@cache
def _folder() -> Path:
    return Path(mkdtemp(prefix="orthrus-cuda-"))


@cache
def _compiled(name: str, inputs: tuple, parameters: tuple, constants: tuple) -> Any:
    body = operations.body(name, inputs)
    header = Path(__file__).with_suffix(".h")
    lines = [operations.sizes(dict(constants)["BITS"]), f'#include "{header}"', operations.header()]
    lines += ['extern "C" void run(void** at, int* sizes, int grid_x, int grid_y, int grid_z, int threads) {']
    first = 0
    for i, (kind, parameter, dimensions) in enumerate(parameters):
        lines.append(f"{kind}* {parameter} = ({kind}*)at[{i}]; int* {parameter}_shape = sizes + {first};")
        first += dimensions
    lines.append("launch({grid_x, grid_y, grid_z}, threads, [=] { using T = __nv_bfloat16;")
    lines += [f"constexpr int {key} = {value};" for key, value in constants]
    text = "\n".join([*lines, body, "}); }"])
    source = _folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.cpp"
    source.write_text(text)
    library = source.with_suffix(".so")
    command = ["g++", "-std=c++20", "-O1", "-w", "-pthread", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library)).run
