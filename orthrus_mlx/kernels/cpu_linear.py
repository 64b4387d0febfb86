"""Linear layers on the CPU through NumPy's BLAS, where a row's bits do not depend on the rows beside it.

MLX's Linux wheel multiplies with a reference BLAS, whose passes of 16 rows cost 16 passes of one. NumPy carries a
tuned one, which picks its kernels by the shape of a product, and several of them within one product. So rows that
must keep their bits are multiplied one by one: every product is one row times the weight, whatever the pass. The
weight then lies in the processor's caches for all rows but the first, and since a product of many rows first copies
the weight into another order, one by one costs no more than tiles of 8 rows, and a third of them at one row.

The weights are multiplied in float32. A float32 weight is shared with MLX; others are kept a second time for as long
as there is room, and beyond that converted piece by piece in every pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import mlx.core as mx
import numpy as np

from ..numpy_floats import numpy_view, widened
from .blas_threads import one_thread
from .linear import LinearWeight

COPY_LIMIT = 512 * 2**20
"""Most bytes that float32 copies of a model's weights may take: the demo's take 30 MB, a 0.6B model's 2.4 GB."""

_PIECE = 2**18
"""Numbers of a weight that are converted at a time: 1 MiB in float32, which a core's own cache holds."""

_FEW = 8
"""Rows below which a product of all of them is no faster than one by one."""

_DTYPES = (mx.float32, mx.float16, mx.bfloat16)
_SHIFTS = (0, 1, 3)
"""Floats by which a test's input is moved in memory: a BLAS may load aligned data differently."""

_CHECKED = 1024
"""Outputs of a weight that are compared with float64."""


def supports(weight: LinearWeight) -> bool:
    """True if `weight` can be multiplied in float32."""
    return weight.scales is not None or weight.w.dtype in _DTYPES


@cache
def library() -> str:
    """Names the BLAS that computes the products: "numpy 2.4.6 (scipy-openblas 0.3.31)"."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"numpy {np.__version__} ({blas['name']} {blas['version']})"


class Product:
    """Rows [R, K] times the transposes of weights [N, K], side by side.

    NumPy computes at once and on as many threads as BLAS likes: call it inside `one_thread`. More threads change bits
    with their number, and on a machine that does anything else they wait for each other: with both of two cores busy,
    a pass of 6 ms took 380.

    Args:
        weights: one weight or several of one K.
        room: bytes that a float32 copy may take.

    Attributes:
        copied: bytes that it takes; 0 where there is none.
        shape: N, of all weights together, and K.
    """

    def __init__(self, weights: Sequence[LinearWeight], room: int = COPY_LIMIT):
        self.shape = N, K = sum(weight.shape[0] for weight in weights), weights[0].shape[1]
        self.copied = 0
        if all(weight.scales is None and weight.w.dtype == mx.float32 for weight in weights):
            self._held = [_shared(weight.w) for weight in weights]
        elif room >= 4 * N * K:
            self.copied = 4 * N * K
            whole = np.empty((N, K), np.float32)
            for at, piece in _placed(piece for weight in weights for piece in _pieces(weight)):
                whole[at : at + len(piece)] = piece
            self._held = [whole]
        else:
            self._held = []
        self._weights = () if self._held else tuple(weights)

    def one_by_one(self, x: np.ndarray) -> np.ndarray:
        """x float32 [R, K] -> float32 [R, N], each row with the bits that it has alone."""
        y = np.empty((len(x), self.shape[0]), np.float32)
        for at, columns in self._columns():
            # A matrix product of one row is a product of a vector, which has a kernel of its own.
            np.matmul(x[:, None], columns, out=y[:, None, at : at + columns.shape[1]])
        return y

    def together(self, x: np.ndarray) -> np.ndarray:
        """The same with whatever bits are cheapest."""
        if len(x) < _FEW:
            return self.one_by_one(x)
        y = np.empty((len(x), self.shape[0]), np.float32)
        for at, columns in self._columns():
            np.matmul(x, columns, out=y[:, at : at + columns.shape[1]])
        return y

    def _columns(self) -> Iterator[tuple[int, np.ndarray]]:
        """Where in the output each piece's columns [K, n] go, and they."""
        pieces = self._held or (piece for weight in self._weights for piece in _pieces(weight))
        return ((at, piece.T) for at, piece in _placed(pieces))


def _placed(pieces: Sequence[np.ndarray] | Iterator[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    at = 0
    for piece in pieces:
        yield at, piece
        at += len(piece)


def _pieces(weight: LinearWeight) -> Iterator[np.ndarray]:
    """The weight's rows in float32, some at a time; each is gone with the next."""
    N, K = weight.shape
    rows = max(1, _PIECE // K)
    scratch = np.empty((min(rows, N), K), np.float32)
    for start in range(0, N, rows):
        part = slice(start, min(start + rows, N))
        if weight.scales is not None:
            yield _dequantized(weight, part)
        elif weight.w.dtype == mx.float32:
            yield _shared(weight.w[part])
        else:
            yield widened(numpy_view(weight.w)[part], scratch[: part.stop - start])


def _dequantized(weight: LinearWeight, part: slice) -> np.ndarray:
    assert weight.scales is not None
    scales, biases = weight.scales[part], None
    if weight.biases is not None:
        # In 16 bits scale * q + bias would be rounded once more.
        scales, biases = scales.astype(mx.float32), weight.biases[part].astype(mx.float32)
    dense = mx.dequantize(weight.w[part], scales, biases, weight.group_size, weight.bits, weight.mode)
    return _shared(dense.astype(mx.float32))


def _shared(array: mx.array) -> np.ndarray:
    return np.array(array, copy=False)


# Is it so here? ----------------------------------------------------------------------------------------------


def product_failure(product: Product) -> str | None:
    """Why rows must not be multiplied one by one by `product` on this machine; None if results were right and a row
    kept its bits beside other rows, beside zeros and wherever in memory it stood."""
    rows, K = 4, product.shape[1]
    x = np.random.default_rng(0x4F525448).standard_normal((rows, K), np.float32)
    with one_thread():
        whole = product.one_by_one(x)
        at, columns = next(product._columns())
        columns = columns[:, :_CHECKED]
        exact, size = x.astype(np.float64) @ columns, np.abs(x) @ np.abs(columns)
        # each of K additions may round by half a unit in the last place, 2^-24 of what is summed
        if not np.all(np.abs(whole[:, at : at + columns.shape[1]] - exact) <= K * 2.0**-23 * size):
            return "differs from float64"
        for place in range(rows):
            buffer = np.zeros(rows * K + max(_SHIFTS), np.float32)
            moved = buffer[_SHIFTS[place % len(_SHIFTS)] :][: rows * K].reshape(rows, K)
            moved[place] = x[0]
            if not np.array_equal(product.one_by_one(moved)[place], whole[0]):
                return "the bits of a row depend on the rows beside it"
            moved[:] = np.roll(x, place, axis=0)
            if not np.array_equal(product.one_by_one(moved), np.roll(whole, place, axis=0)):
                return "the bits of a row depend on its place"
    return None
