"""Rule A on the device: the token of each row, and how much of a draft it confirms.

    y_t = argmax_v(logits_t[v] / T + gumbel(seed, t)[v])

The noise is made on the fly from the same counter-based bits as `mx.random.gumbel(key=[seed, t])` draws. Its
uniforms are equal bit for bit; the two logarithms are the GPU's, as they are when MLX computes them there, and may
differ in the last bit from a CPU's. A row's choice does not depend on the rows beside it.
"""

from __future__ import annotations

import mlx.core as mx

from .source import kernel

_PAIRS = 8
"""Pairs of logits per thread: 38 threadgroups a row at Qwen3's vocabulary, enough to fill a GPU with one row."""


def choose(logits: mx.array, temperature: float, keys: mx.array | None = None) -> mx.array:
    """Tokens uint32 [R] for logits [R, V]; ties go to the lowest token.

    Args:
        temperature: 0 is greedy.
        keys: uint32 [R, 2], the key (seed, position) of each row; not read when greedy.
    """
    R, V = logits.shape
    pieces = -(-(V - V // 2) // (256 * _PAIRS))
    noise = temperature > 0
    run = kernel(
        "choose_pieces",
        ("logits", "keys", "inverse_temperature"),
        ("values", "tokens"),
        ("choose_pieces.metal",),
        ("threefry.h", "choice.h"),
    )
    values, tokens = run(
        inputs=[
            logits,
            mx.zeros((R, 2), mx.uint32) if keys is None else keys,
            mx.array([1 / temperature if noise else 1.0], dtype=mx.float32),
        ],
        template=[("T", logits.dtype), ("NOISE", noise), ("PAIRS", _PAIRS)],
        grid=(pieces * 256, R, 1),
        threadgroup=(256, 1, 1),
        output_shapes=[(R, pieces), (R, pieces)],
        output_dtypes=[mx.float32, mx.uint32],
    )
    merge = kernel("choose_merge", ("values", "tokens"), ("chosen",), ("choose_merge.metal",), ("choice.h",))
    (chosen,) = merge(
        inputs=[values, tokens],
        grid=(R * 32, 1, 1),
        threadgroup=(32, 1, 1),
        output_shapes=[(R,)],
        output_dtypes=[mx.uint32],
    )
    return chosen


def accepted_path(tokens: mx.array, chosen: mx.array, parents: mx.array | None = None) -> tuple[mx.array, mx.array]:
    """The drafted nodes that the choices confirm: (path int32 [R], count int32 [1]).

    Row 0 is the pending token and always on the path; it goes on to the child whose token was chosen at its end.
    path holds `count` rows in order, then -1; `chosen[path[count - 1]]` is the next pending token.

    Args:
        tokens: uint32 [R], the tokens that the rows were computed for.
        chosen: uint32 [R], the choice made at each row.
        parents: int32 [R], parents[i] < i, siblings with different tokens; None is a chain.
    """
    R = tokens.shape[0]
    run = kernel("accepted_path", ("tokens", "chosen", "parents"), ("path", "count"), ("accepted_path.metal",), ())
    path, count = run(
        inputs=[tokens, chosen, _chain(R) if parents is None else parents],
        grid=(1, 1, 1),
        threadgroup=(1, 1, 1),
        output_shapes=[(R,), (1,)],
        output_dtypes=[mx.int32, mx.int32],
    )
    return path, count


def choose_reference(logits: mx.array, temperature: float, keys: mx.array | None = None) -> mx.array:
    """`choose` in plain MLX: what it is tested against, and the fallback."""
    if temperature == 0 or keys is None:
        return mx.argmax(logits, axis=-1)
    V = logits.shape[-1]
    noise = mx.stack([mx.random.gumbel((V,), key=key) for key in keys])
    return mx.argmax(logits.astype(mx.float32) * (1 / temperature) + noise, axis=-1)


def accepted_path_reference(
    tokens: mx.array, chosen: mx.array, parents: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """`accepted_path` in plain MLX."""
    R = tokens.shape[0]
    rows = mx.arange(R)
    above = mx.maximum(_chain(R) if parents is None else parents, 0)
    confirmed = (rows == 0) | (tokens == chosen[above])
    for _ in range((R - 1).bit_length()):
        confirmed = confirmed & confirmed[above]
        above = above[above]
    path = mx.sort(mx.where(confirmed, rows, R))
    return mx.where(path < R, path, -1), mx.sum(confirmed, keepdims=True).astype(mx.int32)


def _chain(rows: int) -> mx.array:
    return mx.arange(-1, rows - 1)
