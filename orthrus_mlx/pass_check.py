"""Is a pass of other kernels right, and does a row of it keep its bits? Asked of the first layer, at load."""

from __future__ import annotations

from typing import Protocol, cast

import mlx.core as mx

from .cache import KVCache
from .model import AR, DIFFUSION, Model, Part

TOLERANCE = 0.1
"""Relative difference from MLX's layer that may be rounding; a wrong kernel is off by the whole."""

_CHECKED_ROWS = (3, 5, 19)
"""One block behind the other: all sizes of tiles."""

_FIRST, _ROWS = 250, 9
"""A block that spans the boundaries of chunks of keys (128, 256)."""


class Layers(Protocol):
    """A pass that can be taken apart."""

    def layer(self, index: int, h: mx.array, part: Part) -> mx.array:
        """Layer `index` alone: hidden states [L, hidden] of a block."""


def layer_failure(model: Model, layers: Layers, dtype: mx.Dtype | None = None) -> str | None:
    """What is wrong with the first layer's results, next to MLX's; None if nothing.

    Args:
        dtype: what MLX computes in; None is the model's own. Where MLX's CPU build sums in 16 bits, its own results are
            off by a tenth.
    """
    views = (AR, DIFFUSION) if model.args.has_diffusion_view else (AR,)
    try:
        for view in views:
            ours, stock = KVCache(1), KVCache(1)
            for rows in _CHECKED_ROWS:
                h = _noise(model, rows)
                got = layers.layer(0, h, Part(0, rows, view, ours))
                h = h if dtype is None else h.astype(dtype)
                want = model.layers[0].parts(h[None], [Part(0, rows, view, stock)], 0)[0]
                off, size = (_size(a) for a in (got - want, want - h))
                # What is not a number fails; a layer that adds nothing has to be met.
                if not (off < TOLERANCE * size or off == size == 0):
                    return (
                        f"{rows} rows of view {view or 'AR'!r} differ from MLX's by {off:.3g} where {size:.3g} is added"
                    )
                ours.commit(rows)
                stock.commit(rows)
    except (RuntimeError, ValueError) as error:
        return str(error).strip().splitlines()[0]
    return None


def row_failure(model: Model, layers: Layers) -> str | None:
    """Whether rows of a block have other bits in the first layer than one by one, in words; None if they do not."""
    h, cache = _noise(model, _ROWS), KVCache(1)
    mx.eval(layers.layer(0, h, Part(0, _ROWS, AR, cache)))
    cache.commit(_FIRST, [i % _ROWS for i in range(_FIRST)])
    whole = layers.layer(0, h, Part(0, _ROWS, AR, cache))
    mx.eval(whole)
    for row in range(_ROWS):
        if not mx.array_equal(layers.layer(0, h[row : row + 1], Part(0, 1, AR, cache))[0], whole[row]).item():
            return f"row {row} of a block of {_ROWS} has other bits alone"
        cache.commit(1)
    return None


def _size(a: mx.array) -> float:
    return cast(float, mx.linalg.norm(a.astype(mx.float32)).item())


def _noise(model: Model, rows: int) -> mx.array:
    """Rows that are small next to what a layer adds, so that the residual's rounding does not count."""
    noise = mx.random.normal((rows, model.args.hidden_size), key=mx.random.key(rows)) / 128
    return noise.astype(model.model.norm.weight.dtype)
