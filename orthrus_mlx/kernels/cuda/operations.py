"""The kernels' calls. Shapes: L rows of one block, H query heads, G key/value heads, D head_dim."""

from __future__ import annotations

import math
from functools import cache
from importlib import resources
from typing import Any

import mlx.core as mx

from ..linear import LinearWeight

MAX_ROWS = 32
CHUNK = 128
"""Keys per thread block of `attention.cu`."""

_ROW_TILES = (1, 2, 4)

_FEW_BLOCKS = 264
"""Thread blocks below which a linear layer spreads K over 16 warps instead of 8: two for each of an H100's 132
multiprocessors keep enough loads in flight."""


def supports(weight: LinearWeight, dtype: mx.Dtype) -> bool:
    """True if `linear` takes `weight` with inputs of `dtype`: 16-bit floats, dense or affine 4-bit."""
    N, K = weight.shape
    if dtype not in (mx.bfloat16, mx.float16) or N % 32:
        return False
    if weight.scales is None:
        return weight.w.dtype == dtype and K % 64 == 0
    settled = (weight.mode, weight.bits) == ("affine", 4) and weight.group_size in (32, 64, 128)
    return settled and weight.scales.dtype == dtype and K % 128 == 0


def linear(x: mx.array, weight: LinearWeight, *, residual: mx.array | None = None, gated: bool = False) -> mx.array:
    """x [L, K] W^T -> [L, N], L <= 32.

    Args:
        residual: [L, N], added to the product.
        gated: W is [gate; up], and the result is silu(x gate^T) * (x up^T) [L, N / 2].
    """
    M = x.shape[0]
    N, _ = weight.shape
    width = N // 2 if gated else N
    tiles = 2 if not gated and width // 32 >= _FEW_BLOCKS else 1
    warps = 16 if not gated and tiles == 1 and width // 16 <= _FEW_BLOCKS else 8
    dense = weight.scales is None
    run = _kernel("linear", ("x", "w", "scales", "biases", "residual"), ("y",))
    (y,) = run(
        inputs=[
            x,
            weight.w,
            x if dense else weight.scales,
            x if dense else weight.biases,
            x if residual is None else residual,
        ],
        template=[
            ("T", x.dtype),
            ("M_TILES", next(t for t in _ROW_TILES if 8 * t >= M)),
            ("N_TILES", tiles),
            ("WARPS", warps),
            ("GATED", gated),
            ("RESIDUAL", residual is not None),
            ("BITS", 0 if dense else weight.bits),
            ("GROUP", weight.group_size),
        ],
        grid=(width // (16 * tiles) * 32 * warps, 1, 1),
        threadgroup=(32 * warps, 1, 1),
        output_shapes=[(M, width)],
        output_dtypes=[x.dtype],
    )
    return y


def settings(eps: float, scale: float) -> mx.array:
    """What `rotate` and `attention` need to know of a model: the norms' epsilon and the factor on the scores."""
    return mx.array([eps, scale * math.log2(math.e)], dtype=mx.float32)


def rotate(
    qkv: mx.array,
    query_weight: mx.array,
    key_weight: mx.array,
    frequencies: mx.array,
    constants: mx.array,
    depths: mx.array,
    offset: mx.array,
    keys: mx.array,
    values: mx.array,
) -> mx.array:
    """Queries [H, L, D] of projections [L, (H + 2 G) D]; keys and values go into the cache, IN PLACE.

    Args:
        query_weight, key_weight: [D], of the heads' norms.
        frequencies: float32 [D / 2], radians per position.
        constants: from `settings`.
        depths: int32 [L], the rows' positions behind `offset`.
        offset: int32 [1], the block's first position and first row in the buffers.
        keys, values: the cache's buffers [1, G, capacity, D]; rows offset .. offset + L - 1 are written. MLX does not
            know: whatever reads them must depend on the result.
    """
    L, (_, G, _, D) = qkv.shape[0], keys.shape
    heads = qkv.shape[1] // D
    H = heads - 2 * G
    names = ("qkv", "query_weight", "key_weight", "frequencies", "settings", "depths", "offset", "keys", "values")
    (queries,) = _kernel("rotate", names, ("queries",))(
        inputs=[qkv, query_weight, key_weight, frequencies, constants, depths, offset, keys, values],
        template=[("T", qkv.dtype), ("H", H), ("G", G), ("D", D)],
        grid=(-(-L * heads // 4) * 128, 1, 1),
        threadgroup=(128, 1, 1),
        output_shapes=[(H, L, D)],
        output_dtypes=[qkv.dtype],
    )
    return queries


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    paths: mx.array,
    offset: mx.array,
    constants: mx.array,
    *,
    causal: bool,
) -> mx.array:
    """Attention [L, H D] of a block's queries [H, L, D] over the prefix and the block, whose rows are in the cache.

    Args:
        keys, values: the cache's buffers [1, G, capacity, D]; rows below `offset` are the prefix, the block follows.
        paths: int32 [P, S], the block's rows on each path from the root, -1 behind a path's end. A chain is one path.
        offset: int32 [1].
        constants: from `settings`.
        causal: a row sees its path's rows up to itself; otherwise all of them.
    """
    (H, L, D), (_, G, capacity, _), (P, S) = queries.shape, keys.shape, paths.shape
    repeats, chunks = H // G, -(-capacity // CHUNK)
    rows = repeats * S
    attend = _kernel(
        "attention",
        ("queries", "keys", "values", "paths", "offset", "settings"),
        ("chunk_sums", "chunk_peaks", "chunk_masses"),
    )
    sums, peaks, masses = attend(
        inputs=[queries, keys, values, paths, offset, constants],
        template=[("T", queries.dtype), ("D", D), ("REPEATS", repeats), ("CAUSAL", causal)],
        grid=(chunks * 128, G, P * -(-rows // 16)),
        threadgroup=(128, 1, 1),
        output_shapes=[(P, G, chunks, rows, D), (P, G, chunks, rows), (P, G, chunks, rows)],
        output_dtypes=[mx.float32] * 3,
    )
    (y,) = _kernel("merge", ("sums", "peaks", "masses", "paths", "offset"), ("y",))(
        inputs=[sums, peaks, masses, paths, offset],
        template=[("T", queries.dtype), ("D", D), ("REPEATS", repeats), ("G", G)],
        grid=(-(-P * G * rows // 4) * 128, 1, 1),
        threadgroup=(128, 1, 1),
        output_shapes=[(L, H * D)],
        output_dtypes=[queries.dtype],
    )
    return y


@cache
def _text(file: str) -> str:
    return (resources.files(__package__) / file).read_text()


@cache
def _kernel(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Any:
    """Built on first use: MLX refuses to where there is no CUDA."""
    return mx.fast.cuda_kernel(
        name=f"orthrus_{name}",
        input_names=list(inputs),
        output_names=list(outputs),
        source=_text(f"{name}.cu"),
        header=_text("tiles.cuh"),
    )
