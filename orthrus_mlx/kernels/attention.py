"""`block_attention`: up to 32 query rows over the cache buffers and the block's own keys and values.

No slice and no concatenation: the whole buffers go to the kernels with the offset. A row's bits depend on its
query and the keys it sees, in order of absolute position, and on nothing else (`metal/attention.h` says how), so
a token decoded alone, in a chain or on a path of a tree gets the same bits.
"""

from __future__ import annotations

import math

import mlx.core as mx

from .source import kernel

MAX_ROWS = 32
CHUNK = 256
"""Absolute positions per threadgroup: `CHUNK` of metal/attention.h."""

Rows = mx.array | tuple[mx.array, mx.array, mx.array]
"""Keys or values [1, G, rows, D]: an array, or mlx-lm's quantised triple (words, scales, biases)."""

FAMILIES = ("fma", "mma")

_TILE_ROWS = {"fma": 4, "mma": 8}
"""Query rows (heads times block rows) of a tile of scores; as many make a "few" launch."""

_ROW_CLASSES = {"fma": (4, 8), "mma": (8, 16)}
"""Query rows per simdgroup of a "many" launch. Scalar scores hold more in registers, so a group of 65 rows and up
takes a second threadgroup, which reads the cache again; with matrix tiles that begins at 129."""

_HELPERS = {"fma": ("lane_sums.h", "scores_fma.h"), "mma": ("matrix_tile.h", "scores_mma.h")}
_SUFFIXES = ("s", "_scales", "_biases")


def causal_mask(rows: int) -> mx.array:
    """Mask words [rows] of a chain: row i sees block rows 0 .. i."""
    return mx.array([(2 << i) - 1 for i in range(rows)], dtype=mx.uint32)


def full_mask(rows: int) -> mx.array:
    """Mask words [rows] of a block whose rows see each other in both directions."""
    return mx.full((rows,), (1 << rows) - 1, dtype=mx.uint32)


def tree_mask(parents: list[int]) -> mx.array:
    """Mask words of a tree: node i sees itself and its ancestors. `parents[i]` < i; the root's is -1."""
    words: list[int] = []
    for i, parent in enumerate(parents):
        words.append((words[parent] if parent >= 0 else 0) | 1 << i)
    return mx.array(words, dtype=mx.uint32)


def supports(heads: int, kv_heads: int, head_dim: int, dtype: mx.Dtype, rows: int) -> bool:
    """True if the kernels cover these shapes."""
    return (
        head_dim in (64, 128)
        and heads % kv_heads == 0
        and heads // kv_heads <= 8
        and dtype in (mx.float32, mx.float16, mx.bfloat16)
        and 1 <= rows <= MAX_ROWS
    )


def block_attention(
    q: mx.array,
    keys: Rows | None,
    values: Rows | None,
    offset: int | mx.array,
    block_keys: Rows,
    block_values: Rows,
    mask: mx.array | None = None,
    *,
    scale: float,
    family: str,
) -> mx.array:
    """Attention [1, H, L, D] of queries [1, H, L, D], L <= 32, over cached rows 0 .. offset - 1 and the block.

    Args:
        keys, values: the cache's whole buffers [1, G, capacity, D]; rows from `offset` on are not read. None for
            an empty cache. Quantised buffers are triples as mlx-lm's `QuantizedKVCache` holds them.
        offset: absolute position of the block; an int array [1] keeps it on the device, and the launch then spans
            the buffers' capacity.
        block_keys, block_values: the block's own rows [1, G, L, D], in the form of the cache.
        mask: uint32 [L], bit j of word i lets row i see block row j. A row sees them at positions offset, offset + 1,
            ... in ascending order of j, so tree nodes must be numbered parents first. None is causal.
        scale: factor on the scores.
        family: "fma" or "mma", what the scores are computed with; they differ in the last bits.
    """
    _, H, L, D = q.shape
    own_keys, own_values = _parts(block_keys), _parts(block_values)
    cached_keys, cached_values = (
        own_keys if keys is None else _parts(keys),
        own_values if values is None else _parts(values),
    )
    G, capacity = cached_keys[0].shape[1:3]
    if isinstance(offset, int):
        end = offset + L
        offset = mx.array([offset], dtype=mx.int32)
    else:
        end = capacity + L
    chunks = -(-end // CHUNK)
    rows = H // G * L

    inputs = {"q": q}
    for name, parts in (
        ("key", cached_keys),
        ("value", cached_values),
        ("block_key", own_keys),
        ("block_value", own_values),
    ):
        inputs |= {name + suffix: part for suffix, part in zip(_SUFFIXES, parts, strict=False)}
    inputs["mask"] = causal_mask(L) if mask is None else mask
    inputs["offset"] = offset
    inputs["scale"] = mx.array([scale * math.log2(math.e)], dtype=mx.float32)

    template: list[tuple[str, object]] = [("T", q.dtype), ("D", D)]
    cache = "plain"
    if len(own_keys) == 3:
        cache = "quantized"
        bits = own_keys[0].shape[-1] * 32 // D
        template += [("BITS", bits), ("GROUP", D // own_keys[1].shape[-1])]
    tiling, parties = "few", 1
    if rows > _TILE_ROWS[family]:
        tiling, parties = "many", -(-rows // (8 * _ROW_CLASSES[family][-1]))
        template.append(("ROWS", next(c for c in _ROW_CLASSES[family] if 8 * c * parties >= rows)))
    run = kernel(
        f"attention_{tiling}_{family}_{cache}",
        tuple(inputs),
        ("chunk_sums", "chunk_peaks", "chunk_masses"),
        (f"cache_{cache}.metal", f"block_attention_{tiling}.metal"),
        ("attention.h", *_HELPERS[family]),
    )
    sums, peaks, masses = run(
        inputs=list(inputs.values()),
        template=template,
        grid=(chunks * 256, G, parties),
        threadgroup=(256, 1, 1),
        output_shapes=[(G, chunks, rows, D), (G, chunks, rows), (G, chunks, rows)],
        output_dtypes=[mx.float32] * 3,
    )
    merge = kernel("attention_merge", ("sums", "peaks", "masses"), ("y",), ("block_attention_merge.metal",), ())
    (y,) = merge(
        inputs=[sums, peaks, masses],
        template=[("T", q.dtype), ("D", D)],
        grid=(-(-G * rows // 8) * 256, 1, 1),
        threadgroup=(256, 1, 1),
        output_shapes=[q.shape],
        output_dtypes=[q.dtype],
    )
    return y


def attention_reference(
    q: mx.array,
    keys: Rows | None,
    values: Rows | None,
    offset: int,
    block_keys: Rows,
    block_values: Rows,
    mask: mx.array | None = None,
    *,
    scale: float,
) -> mx.array:
    """The same in plain MLX: what `block_attention` is tested against, and the fallback."""
    L, D = q.shape[-2:]
    own_keys, own_values = _dequantized(block_keys, D), _dequantized(block_values, D)
    if keys is not None and values is not None and offset:
        own_keys = mx.concatenate([_dequantized(keys, D)[:, :, :offset], own_keys], axis=2)
        own_values = mx.concatenate([_dequantized(values, D)[:, :, :offset], own_values], axis=2)
    words = causal_mask(L) if mask is None else mask
    seen = (words[:, None] >> mx.arange(L, dtype=mx.uint32)) & 1
    seen = mx.concatenate([mx.ones((L, offset), dtype=mx.bool_), seen.astype(mx.bool_)], axis=1)
    return mx.fast.scaled_dot_product_attention(q, own_keys, own_values, scale=scale, mask=seen)


def _parts(rows: Rows) -> tuple[mx.array, ...]:
    return (rows,) if isinstance(rows, mx.array) else tuple(rows)


def _dequantized(rows: Rows, D: int) -> mx.array:
    if isinstance(rows, mx.array):
        return rows
    words, scales, biases = rows
    return mx.dequantize(words, scales, biases, group_size=D // scales.shape[-1], bits=words.shape[-1] * 32 // D)
