"""Linear layers on the CPU through NumPy's BLAS, where a row's bits do not depend on the rows beside it.

MLX's Linux wheel multiplies with a reference BLAS, whose passes of 16 rows cost 16 passes of one. NumPy carries a
tuned one, which picks its kernels by the shape of a product, and several of them within one product. So every
product here has one shape: the rows are cut into tiles of a fixed number of rows, the last one filled up with zeros,
and each tile is a product of its own. The pass is row-exact if, within a tile, a row's bits do not depend on its
place; `tile_failure` tests that for a weight's shape, and a tile size that fails is not used.

Products run on one BLAS thread. More of them change bits with their number, and on a machine that does anything else
they wait for each other: with both of two cores busy, a pass of 6 ms took 380.

The weights are multiplied in float32. A float32 weight is shared with MLX, any other is kept a second time. NumPy
computes at once, so a layer waits for its input; where a function transformation (compile, vmap, export) traces the
layer there is nothing to wait for, and plain MLX takes over.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import mlx.core as mx
import numpy as np

from .blas_threads import one_thread
from .linear import LinearWeight

TILES = (1, 4, 8, 16, 32)
"""Rows of a tile. More of them make a wide pass cheaper and a one-row pass dearer."""

FAMILIES = {f"numpy{tile}": tile for tile in TILES}
"""Names of the variants, beside the families of the Metal kernels, and their rows per tile."""

COPY_LIMIT = 512 * 2**20
"""Most bytes that float32 copies of a model's weights may take: the demo's take 30 MB, a 0.6B model's 2.4 GB."""

_DTYPES = (mx.float32, mx.float16, mx.bfloat16)
_SHIFTS = (0, 1, 3)
"""Floats by which a test's input is moved in memory: a BLAS may load aligned data differently."""


def supports(weight: LinearWeight, dtype: mx.Dtype) -> bool:
    """True if products with `weight` and inputs of `dtype` can be computed in float32 and rounded to `dtype`."""
    return dtype in _DTYPES and (weight.scales is not None or weight.w.dtype in _DTYPES)


def copied_bytes(weight: LinearWeight) -> int:
    """Bytes that the float32 copy of `weight` takes; 0 where it is shared with MLX."""
    N, K = weight.shape
    return 0 if weight.scales is None and weight.w.dtype == mx.float32 else 4 * N * K


@cache
def library() -> str:
    """Names the BLAS that computes the products: "numpy 2.4.6 (scipy-openblas 0.3.31)"."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"numpy {np.__version__} ({blas['name']} {blas['version']})"


def columns(weight: LinearWeight) -> np.ndarray:
    """The transposed weight, float32 [K, N]."""
    w = weight.w
    if weight.scales is not None:
        w = mx.dequantize(w, weight.scales, weight.biases, weight.group_size, weight.bits, weight.mode)
    w = w.astype(mx.float32)
    mx.eval(w)
    return np.asarray(w).T


def rows_of(x: mx.array) -> np.ndarray | None:
    """The rows of `x` [..., K] as float32 [R, K], computed now; None while a function transformation traces `x`."""
    flat = x.reshape(-1, x.shape[-1]).astype(mx.float32)
    try:
        mx.eval(flat)
    except ValueError:
        # MLX has no way to ask; it refuses to evaluate what is being traced.
        return None
    return np.asarray(flat)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b on one BLAS thread."""
    with one_thread():
        return a @ b


def tiled(x: np.ndarray, columns: np.ndarray, tile: int) -> np.ndarray:
    """x [R, K] times columns [K, N], float32 [R, N], as products of `tile` rows each."""
    R, K = x.shape
    tiles = -(-R // tile)
    if R % tile:
        filled = np.zeros((tiles * tile, K), np.float32)
        filled[:R] = x
        x = filled
    return product(x.reshape(tiles, tile, K), columns).reshape(tiles * tile, -1)[:R]


@dataclass(frozen=True)
class Product:
    """Rows times a weight's `columns` [K, N], in tiles of `tile` rows."""

    columns: np.ndarray
    tile: int

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Rows [R, K] -> [R, N]."""
        return tiled(x, self.columns, self.tile)


def cpu_linear(x: mx.array, weight: Product) -> mx.array | None:
    """`weight` of x [..., K] in x's dtype, [..., N]; None while a function transformation traces `x`."""
    rows = rows_of(x)
    return None if rows is None else _like(x, weight(rows))


def cpu_gated_mlp(x: mx.array, gate_up: Product, down: Product) -> mx.array | None:
    """down(silu(gate) * up) of x [..., K], `gate_up` giving both side by side; None as `cpu_linear`."""
    rows = rows_of(x)
    if rows is None:
        return None
    gate, up = np.split(gate_up(rows), 2, axis=-1)
    # Below -88 exp overflows to infinity, and silu is 0 as it should be.
    with np.errstate(over="ignore"):
        return _like(x, down(gate / (1 + np.exp(-gate)) * up))


def _like(x: mx.array, rows: np.ndarray) -> mx.array:
    return mx.array(rows, dtype=x.dtype).reshape(*x.shape[:-1], -1)


def tile_failure(columns: np.ndarray, tile: int) -> str | None:
    """Why tiles of `tile` rows must not be used with this weight on this machine; None if a row kept its bits at
    every place of a tile, beside other rows and beside zeros."""
    K = columns.shape[0]
    x = np.random.default_rng(0x4F525448).standard_normal((tile, K), np.float32)
    whole = tiled(x, columns, tile)
    exact = product(x.astype(np.float64), columns)
    # each of K additions may round by half a unit in the last place, 2^-24 of what is summed
    if not np.all(np.abs(whole - exact) <= K * 2.0**-23 * product(np.abs(x), np.abs(columns))):
        return "differs from float64"
    for place in range(tile):
        buffer = np.empty(tile * K + max(_SHIFTS), np.float32)
        moved = buffer[_SHIFTS[place % len(_SHIFTS)] :][: tile * K].reshape(tile, K)
        moved[:] = np.roll(x, place, axis=0)
        if not np.array_equal(tiled(moved, columns, tile), np.roll(whole, place, axis=0)):
            return "the bits of a row depend on its place"
        moved[:] = 0
        moved[place] = x[0]
        if not np.array_equal(tiled(moved, columns, tile)[place], whole[0]):
            return "the bits of a row depend on the rows beside it"
    return None
