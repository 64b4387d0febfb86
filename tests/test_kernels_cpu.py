"""Products and attention through NumPy on the CPU: right, and blind to the rows that travel along."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from orthrus_mlx.kernels import LinearWeight, cpu_choice, cpu_linear
from orthrus_mlx.kernels.blas_threads import controls, one_thread
from orthrus_mlx.kernels.cpu_attention import CHUNK, causal_attention, full_attention
from orthrus_mlx.kernels.cpu_linear import Product, product_failure
from orthrus_mlx.kernels.layers import linear_weight
from orthrus_mlx.numpy_floats import narrowed, numpy_view, widened
from orthrus_mlx.sampling import Sampling, position_keys

ROWS = 70
DTYPES = (mx.float32, mx.float16, mx.bfloat16)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def dense(N: int, K: int, dtype: mx.Dtype = mx.float32, seed: int = 0) -> LinearWeight:
    return LinearWeight(mx.array(noise(N, K, seed=seed)).astype(dtype))


# Products ---------------------------------------------------------------------------------------------

SIZES = st.sampled_from([8, 31, 32, 64, 96, 250, 256])


@given(
    N=SIZES,
    K=SIZES,
    dtype=st.sampled_from(DTYPES),
    room=st.sampled_from([0, cpu_linear.COPY_LIMIT]),
    rows=st.integers(1, ROWS),
    first=st.integers(0, ROWS),
    seed=st.integers(0, 9),
)
def test_a_row_of_a_product_keeps_its_bits_in_any_pass(N, K, dtype, room, rows, first, seed) -> None:
    product = Product([dense(N, K, dtype, seed), dense(7, K, dtype, seed + 1)], room)
    x = noise(2 * ROWS, K, seed=seed + 2)
    assert product_failure(product) is None
    with one_thread():
        alone = np.concatenate([product.one_by_one(x[i : i + 1]) for i in range(first, first + rows)])
        assert np.array_equal(product.one_by_one(x[first : first + rows]), alone)


@pytest.mark.parametrize("room", [0, cpu_linear.COPY_LIMIT], ids=["converted", "kept"])
@pytest.mark.parametrize("quantization", tiny.QUANTIZATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_agree_with_mlx_in_every_format(dtype, quantization, room, monkeypatch) -> None:
    monkeypatch.setattr(cpu_linear, "_PIECE", 7 * 64)
    layers = [nn.Linear(64, size, bias=False) for size in (48, 16)]
    for layer in layers:
        layer.set_dtype(dtype)
    settings = tiny.QUANTIZATIONS[quantization]
    if settings is not None:
        layers = [layer.to_quantized(**settings) for layer in layers]
    product = Product([linear_weight(layer) for layer in layers], room)
    x = noise(9, 64)
    expected = np.concatenate([np.array(layer(mx.array(x))) for layer in layers], axis=1)
    with one_thread():
        for found in (product.one_by_one(x), product.together(x)):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_float32_weights_are_shared_and_copies_of_others_stay_within_their_room() -> None:
    weight = dense(32, 64)
    shared, kept = Product([weight], 0), Product([dense(32, 64, mx.bfloat16)], 4 * 32 * 64)
    converted = Product([dense(32, 64, mx.bfloat16)], 4 * 32 * 64 - 1)
    assert [product.copied for product in (shared, kept, converted)] == [0, 4 * 32 * 64, 0]
    assert np.shares_memory(next(shared._columns())[1], np.array(weight.w, copy=False))


def test_a_blas_whose_rows_depend_on_their_place_or_neighbours_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    product, right = Product([dense(64, 32)]), Product.one_by_one

    def by_place(self: Product, x: np.ndarray) -> np.ndarray:
        y = right(self, x)
        y[-1] = np.nextafter(y[-1], np.float32(np.inf))
        return y

    def by_neighbours(self: Product, x: np.ndarray) -> np.ndarray:
        return right(self, x) + np.float32(1e-6) * np.count_nonzero(x.sum(axis=-1))

    def wrong(self: Product, x: np.ndarray) -> np.ndarray:
        return right(self, x) * np.float32(1.01)

    assert product_failure(product) is None
    for fault, reason in ((by_place, "its place"), (by_neighbours, "rows beside it"), (wrong, "float64")):
        monkeypatch.setattr(Product, "one_by_one", fault)
        assert reason in (product_failure(product) or "passed")


def test_one_thread_leaves_the_thread_counts_as_they_were() -> None:
    counts = [get() for get, _ in controls()]
    with one_thread():
        assert [get() for get, _ in controls()] == [1] * len(counts)
    assert [get() for get, _ in controls()] == counts


# bfloat16 ---------------------------------------------------------------------------------------------


def test_bfloat16_is_rounded_and_widened_as_mlx_does() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    halfway = (bits & 0xFFFF0000) | 0x8000
    floats = np.concatenate([bits, halfway, [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7F7FFFFF]]).astype(np.uint32)
    floats = floats.view(np.float32)
    floats = floats[~np.isnan(floats)]
    narrow = np.empty(floats.shape, np.uint16)
    narrowed(floats, narrow)
    expected = mx.array(floats).astype(mx.bfloat16)
    assert np.array_equal(narrow, numpy_view(expected))
    assert np.array_equal(widened(narrow, np.empty_like(floats)), np.array(expected.astype(mx.float32)))


def test_not_a_number_stays_one_in_bfloat16() -> None:
    narrow = np.empty(2, np.uint16)
    narrowed(np.array([np.nan, -np.nan], np.float32), narrow)
    assert np.isnan(widened(narrow, np.empty(2, np.float32))).all()


def test_numpy_writes_where_mlx_reads() -> None:
    for dtype in DTYPES:
        array = mx.zeros((3, 4), dtype)
        narrowed(noise(3, 4), numpy_view(array))
        assert mx.array_equal(array, mx.array(noise(3, 4)).astype(dtype))


# Attention --------------------------------------------------------------------------------------------


def rows_at(end: int, *, heads: int, groups: int, D: int) -> tuple[np.ndarray, ...]:
    """Queries [end, H, D], keys and values [G, capacity, D]; those behind `end` are noise as well."""
    capacity = (end // CHUNK + 2) * CHUNK
    return noise(end, heads, D), noise(groups, capacity, D, seed=1), noise(groups, capacity, D, seed=2)


@pytest.mark.parametrize(
    ("offset", "rows"), [(0, 1), (0, 32), (7, 5), (127, 1), (128, 1), (250, 9), (511, 2), (600, 64)]
)
def test_attention_agrees_with_plain_mlx(offset: int, rows: int) -> None:
    end = offset + rows
    q, keys, values = rows_at(end, heads=4, groups=2, D=64)
    q = q[offset:]
    seen = [mx.array(a)[None] for a in (q.swapaxes(0, 1), keys[:, :end], values[:, :end])]
    with one_thread():
        found = {"causal": causal_attention(q, keys, values, offset)}
        found[None] = full_attention(q, keys[:, :end], values[:, :end])
    for mask, attended in found.items():
        expected = mx.fast.scaled_dot_product_attention(*seen, scale=1.0, mask=mask)[0].swapaxes(0, 1).reshape(rows, -1)
        np.testing.assert_allclose(attended, np.array(expected), rtol=1e-4, atol=1e-5)


@given(
    offset=st.integers(0, 600),
    rows=st.integers(1, 32),
    first=st.integers(0, 31),
    shape=st.sampled_from([(4, 2, 64), (4, 4, 16), (2, 1, 128)]),
)
def test_a_row_of_attention_keeps_its_bits_in_any_block(offset, rows, first, shape) -> None:
    """A block of 32 rows, against some of them behind a cache that holds the ones before."""
    heads, groups, D = shape
    rows = min(rows, 32 - first)
    q, keys, values = rows_at(offset + 32, heads=heads, groups=groups, D=D)
    with one_thread():
        whole = causal_attention(q[offset:], keys, values, offset)
        start, stop = offset + first, offset + first + rows
        # What a shorter block has not written yet is of no account.
        keys[:, stop:] = 3
        values[:, stop:] = -3
        some = causal_attention(q[start:stop], keys, values, start)
    assert np.array_equal(some, whole[first : first + rows])


# Choice -----------------------------------------------------------------------------------------------


@given(rows=st.integers(1, 5), seed=st.integers(0, 99), temperature=st.sampled_from([0.0, 0.7, 1.0]))
def test_tokens_are_those_of_rule_a_and_of_equals_the_first(rows, seed, temperature) -> None:
    # Few different values, so that the largest is there several times.
    logits = mx.array(np.random.default_rng(seed).integers(0, 4, (rows, 40)).astype(np.float32))
    keys = position_keys(seed, 7, rows) if temperature else None
    expected = Sampling(temperature, seed=seed).choose(logits, 7).astype(mx.int32)
    found = cpu_choice.choose(logits, temperature, keys)
    assert found.dtype == mx.int32
    assert mx.array_equal(found, expected)
