"""Does a kernel variant compile on this device, agree with plain MLX, and give a row the same bits in any batch?

A variant that fails is not used; the reason is kept for `orthrus-mlx info`. Each test runs once per process, on
small inputs: the arithmetic does not depend on the sizes, and sizes are what the tests in the repository vary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import mlx.core as mx

from .attention import attention_reference, block_attention, causal_mask
from .linear import LinearWeight, block_linear
from .verify import accepted_path, accepted_path_reference, choose

_TOLERANCE = {mx.float32: 1e-4, mx.float16: 4e-3, mx.bfloat16: 3e-2}
"""Four units in the last place of a value near 1, and for float32 what sums of 640 products may lose."""

_BATCHES = (1, 2, 3, 8, 16, 32)
_OFFSET = 250
"""A block behind it spans a chunk boundary (256)."""


@cache
def linear_failure(
    family: str, dtype: mx.Dtype, quantized: bool, aligned: bool, group_size: int, bits: int, mode: str
) -> str | None:
    """Why this variant of `block_linear` must not be used here; None if it passed."""

    def test() -> str | None:
        N, K = 70, 640 if quantized or aligned else 643
        w, x = _noise((N, K), 1) * K**-0.5, _noise((32, K), 2).astype(dtype)
        if quantized:
            packed = mx.quantize(w.astype(dtype), group_size=group_size, bits=bits, mode=mode)
            weight = LinearWeight(*packed, *((None,) if len(packed) == 2 else ()), group_size, bits, mode)
            w = mx.dequantize(*packed, group_size=group_size, bits=bits, mode=mode)
        else:
            weight = LinearWeight(w.astype(dtype))
            w = weight.w
        expected = mx.matmul(x.astype(mx.float32), w.astype(mx.float32).T, stream=mx.cpu)
        whole = block_linear(x, weight, family)
        return _distance(whole, expected) or _batches(
            whole, lambda first, rows: block_linear(x[first : first + rows], weight, family)
        )

    return _outcome(test)


@cache
def attention_failure(family: str, dtype: mx.Dtype, head_dim: int, repeats: int) -> str | None:
    """Why this variant of `block_attention` must not be used here; None if it passed."""

    def test() -> str | None:
        q = _noise((1, 2 * repeats, 32, head_dim), 3).astype(dtype)
        k, v = (_noise((1, 2, 512, head_dim), seed).astype(dtype) for seed in (4, 5))
        scale = head_dim**-0.5

        def block(first: int, rows: int) -> mx.array:
            start, end = _OFFSET + first, _OFFSET + first + rows
            own = k[:, :, start:end], v[:, :, start:end]
            return block_attention(q[:, :, first : first + rows], k, v, start, *own, scale=scale, family=family)

        wide_q, wide_k, wide_v = (a.astype(mx.float32) for a in (q, k, v))
        own_k, own_v = (a[:, :, _OFFSET : _OFFSET + 32] for a in (wide_k, wide_v))
        with mx.stream(mx.cpu):
            expected = attention_reference(wide_q, wide_k, wide_v, _OFFSET, own_k, own_v, causal_mask(32), scale=scale)
        whole = block(0, 32)
        return _distance(whole, expected) or _batches(
            whole.swapaxes(0, 2), lambda first, rows: block(first, rows).swapaxes(0, 2)
        )

    return _outcome(test)


@cache
def choice_failure(dtype: mx.Dtype) -> str | None:
    """Why `choose` and `accepted_path` must not be used here; None if they passed."""

    def test() -> str | None:
        logits = (_noise((8, 5001), 6) * 3).astype(dtype)
        keys = mx.stack([mx.full((8,), 7, dtype=mx.uint32), mx.arange(8, dtype=mx.uint32)], axis=1)
        with mx.stream(mx.cpu):
            noise = mx.stack([mx.random.gumbel((5001,), key=key) for key in keys])
            scores = logits.astype(mx.float32) + noise
            best = mx.max(scores, axis=-1)
        # the logarithms of two devices differ in the last bit, so a near-tie may fall either way
        drawn = mx.take_along_axis(scores, choose(logits, 1.0, keys)[:, None], axis=-1)[:, 0]
        if mx.any(drawn < best - 1e-4).item():
            return "the noise is not that of mx.random"
        greedy = choose(logits, 0.0)
        if not mx.array_equal(greedy, mx.argmax(logits, axis=-1, stream=mx.cpu)).item():
            return "greedy choices differ from argmax"
        tokens = mx.concatenate([mx.zeros((1,), mx.uint32), greedy[:5], mx.zeros((2,), mx.uint32)])
        found, expected = accepted_path(tokens, greedy), accepted_path_reference(tokens, greedy)
        if not all(mx.array_equal(a, b).item() for a, b in zip(found, expected, strict=True)):
            return "the accepted path is wrong"
        return None

    return _outcome(test)


def _outcome(test: Callable[[], str | None]) -> str | None:
    try:
        return test()
    except Exception as error:
        # Whatever a compiler or driver objects to must cost the variant, not the program.
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _noise(shape: tuple[int, ...], seed: int) -> mx.array:
    return mx.random.normal(shape, key=mx.array([0x4F525448, seed], dtype=mx.uint32))


def _distance(y: mx.array, expected: mx.array) -> str | None:
    error = mx.abs(y.astype(mx.float32) - expected) / mx.maximum(mx.abs(expected), 1)
    worst = float(mx.max(error))
    # not (<=) rather than (>), so that a NaN fails
    if not worst <= _TOLERANCE[y.dtype]:
        return f"differs from plain MLX by {worst:.2g} (allowed: {_TOLERANCE[y.dtype]:.2g})"
    return None


def _batches(whole: mx.array, part: Callable[[int, int], mx.array]) -> str | None:
    """Compare the bits of `part(first, rows)` with those of `whole`, rows being the first dimension."""
    for rows in _BATCHES:
        first = min(5, 32 - rows)
        if not mx.array_equal(part(first, rows), whole[first : first + rows]).item():
            return f"the bits of a row differ between passes of {rows} and 32 rows"
    return None
