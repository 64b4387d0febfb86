"""Attention of short passes on the CPU through NumPy, where a row's bits do not depend on the rows beside it.

The keys are cut into chunks at fixed absolute positions and the query rows into tiles, so every product has one
shape (see cpu_linear.py); a chunk's keys that a row does not see get weight 0. The chunks' sums are added in
ascending order, and a chunk behind a row's last key adds exactly nothing: how many there are changes no bits.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from ..trees import paths
from .cpu_linear import product, tile_failure

CHUNK = 256
"""Absolute positions per chunk."""


def chunked_attention(
    q: mx.array,
    keys: mx.array | None,
    values: mx.array | None,
    offset: int,
    block_keys: mx.array,
    block_values: mx.array,
    *,
    causal: bool,
    parents: tuple[int, ...] | None = None,
    scale: float,
    tile: int,
) -> mx.array | None:
    """Attention [1, H, L, D] of queries [1, H, L, D] over cached rows 0 .. offset - 1 and the block.

    Args:
        keys, values: the cache's whole buffers [1, G, capacity, D]; None for an empty cache.
        block_keys, block_values: the block's own rows [1, G, L, D].
        causal: rows see the block's earlier rows; else they see all of them.
        parents: of a tree of causal rows (`orthrus_mlx.trees`): a row sees its ancestors, as a chain would.
        tile: query rows per product.

    Returns:
        None while a function transformation traces the inputs.
    """
    inputs = [q[0], block_keys[0], block_values[0]]
    if keys is not None and values is not None and offset:
        inputs += [keys[0, :, :offset], values[0, :, :offset]]
    inputs = [a.astype(mx.float32) for a in inputs]
    try:
        mx.eval(inputs)
    except ValueError:
        # MLX refuses to evaluate what is being traced.
        return None
    queries, own_keys, own_values, *cached = map(np.asarray, inputs)
    G, L, D = own_keys.shape
    chunks = -(-(offset + L) // CHUNK)
    seen = np.zeros((2, G, chunks * CHUNK, D), np.float32)
    for whole, prefix in zip(seen, cached, strict=False):
        whole[:, :offset] = prefix

    def chain(rows: slice | list[int]) -> np.ndarray:
        own = own_keys[:, rows], own_values[:, rows]
        for whole, block in zip(seen, own, strict=True):
            whole[:, offset : offset + block.shape[1]] = block
        return _chain(queries[:, rows], seen[0], seen[1], offset, causal, scale, tile)

    if parents is None:
        attended = chain(slice(None))
    else:
        # Each path is attended to as the chain that it is: that gives its nodes a chain's bits.
        attended = np.empty_like(queries)
        for path in paths(parents):
            attended[:, path] = chain(list(path))
    return mx.array(attended[None], dtype=q.dtype)


def _chain(
    q: np.ndarray, keys: np.ndarray, values: np.ndarray, offset: int, causal: bool, scale: float, tile: int
) -> np.ndarray:
    """Attention [H, L, D] of q [H, L, D] over keys and values [G, chunks * CHUNK, D], the block's at `offset`."""
    (H, L, D), G = q.shape, keys.shape[0]
    R = H // G * L
    tiles = -(-R // tile)
    rows = np.zeros((G, tiles * tile, D), np.float32)
    rows[:, :R] = q.reshape(G, R, D)
    last = np.full(tiles * tile, offset + L - 1)
    if causal:
        last[:R] = offset + np.arange(R) % L

    # [G, chunks, tiles, tile, CHUNK]
    scores = product(
        rows.reshape(G, 1, tiles, tile, D), keys.reshape(G, -1, 1, CHUNK, D).swapaxes(-1, -2)
    ) * np.float32(scale)
    unseen = offset // CHUNK
    positions = np.arange(unseen * CHUNK, keys.shape[1]).reshape(-1, 1, 1, CHUNK)
    np.copyto(scores[:, unseen:], -np.inf, where=positions > last.reshape(tiles, tile, 1))
    weights = np.exp(scores - scores.max(axis=(1, 4), keepdims=True))
    masses = weights.sum(axis=-1, keepdims=True)
    sums = product(weights, values.reshape(G, -1, 1, CHUNK, D))
    for chunk in range(1, sums.shape[1]):
        sums[:, 0] += sums[:, chunk]
        masses[:, 0] += masses[:, chunk]
    return (sums[:, 0] / masses[:, 0]).reshape(G, -1, D)[:, :R].reshape(H, L, D)


def supports(heads: int, kv_heads: int, dtype: mx.Dtype) -> bool:
    """True if the products cover these shapes."""
    return heads % kv_heads == 0 and dtype in (mx.float32, mx.float16, mx.bfloat16)


def product_failure(head_dim: int, tile: int) -> str | None:
    """Why tiles of `tile` rows must not be used for this head_dim on this machine; None if rows kept their bits."""
    chunk = np.random.default_rng(1).standard_normal((CHUNK, head_dim), np.float32)
    return tile_failure(chunk.T, tile) or tile_failure(chunk, tile)
