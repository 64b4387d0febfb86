"""Attention of short passes on the CPU through NumPy, where a row's bits do not depend on the rows beside it.

The keys are cut into chunks at fixed absolute positions, and rows are multiplied one by one (see cpu_linear.py), so
every product has one shape; a chunk's keys that a row does not see get weight 0. The chunks' sums are added in
ascending order, and a chunk behind a row's last key adds exactly nothing: how many there are changes no bits.

Shapes: L rows, H query heads, G key/value heads, D head_dim. Queries are scaled already. Call these inside
`blas_threads.one_thread`.
"""

from __future__ import annotations

import numpy as np

CHUNK = 128
"""Absolute positions per chunk. On an AMD EPYC 16 rows behind 100 keys took 67 us with 64 or 128, 119 with 256; one
row behind 1,000 keys 78, 55 and 48."""


def causal_attention(q: np.ndarray, keys: np.ndarray, values: np.ndarray, offset: int) -> np.ndarray:
    """Attention [L, H * D] of a chain: queries [L, H, D], of which row i sees positions 0 .. offset + i.

    Args:
        keys, values: float32 [G, capacity, D] from position 0 on, capacity a multiple of `CHUNK`; what lies behind
            the last row is finite.
    """
    (L, H, D), G = q.shape, keys.shape[0]
    chunks = -(-(offset + L) // CHUNK)
    keys, values = (a[:, : chunks * CHUNK].reshape(G, chunks, 1, 1, CHUNK, D) for a in (keys, values))
    # [G, chunks, L, H / G, 1, CHUNK]
    rows = q.reshape(L, G, H // G, D).transpose(1, 0, 2, 3)[:, None, :, :, None]
    weights = np.matmul(rows, keys.swapaxes(-1, -2))
    if L == 1:
        weights[:, -1, ..., offset % CHUNK + 1 :] = -np.inf
    else:
        first = offset // CHUNK
        positions = np.arange(first * CHUNK, chunks * CHUNK).reshape(-1, 1, 1, 1, CHUNK)
        last = np.arange(offset, offset + L).reshape(L, 1, 1, 1)
        np.copyto(weights[:, first:], -np.inf, where=positions > last)
    np.subtract(weights, weights.max(axis=(1, 5), keepdims=True), out=weights)
    np.exp(weights, out=weights)
    masses, sums = weights.sum(axis=-1, keepdims=True), np.matmul(weights, values)
    for chunk in range(1, chunks):
        sums[:, 0] += sums[:, chunk]
        masses[:, 0] += masses[:, chunk]
    return (sums[:, 0] / masses[:, 0]).transpose(1, 0, 2, 3, 4).reshape(L, H * D)


def full_attention(q: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Attention [L, H * D] of queries [L, H, D] over all keys and values [G, n, D], with whatever bits are cheapest."""
    (L, H, D), G = q.shape, keys.shape[0]
    rows = np.ascontiguousarray(q.reshape(L, G, H // G, D).transpose(1, 0, 2, 3)).reshape(G, -1, D)
    weights = rows @ keys.swapaxes(-1, -2)
    weights -= weights.max(axis=-1, keepdims=True)
    np.exp(weights, out=weights)
    sums = weights @ values
    sums /= weights.sum(axis=-1, keepdims=True)
    return sums.reshape(G, L, H // G, D).transpose(1, 0, 2, 3).reshape(L, H * D)
