"""Products through NumPy on the CPU: right, row-exact, chosen by measurement, and out of the way of transformations."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from orthrus_mlx.acceleration import CpuMLP, accelerate
from orthrus_mlx.exactness import probe
from orthrus_mlx.generation import mlx_generate
from orthrus_mlx.kernels import AttentionShape, LinearWeight, Plan, cpu_linear, make_plan, model_weights, plan, tuning
from orthrus_mlx.kernels.blas_threads import controls
from orthrus_mlx.kernels.cpu_attention import chunked_attention, product_failure
from orthrus_mlx.kernels.cpu_linear import FAMILIES, TILES, tile_failure, tiled
from orthrus_mlx.kernels.layers import with_kernels
from orthrus_mlx.model import Model

SHAPE = AttentionShape(heads=4, kv_heads=2, head_dim=16, layers=2)
ROWS = 70
TOLERANCE = {mx.float32: 1e-5, mx.float16: 2e-3, mx.bfloat16: 1.6e-2}


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty cache folder, no setting, and one call per timing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ORTHRUS_KERNELS", raising=False)
    monkeypatch.setattr(tuning, "_CALLS", 1)
    monkeypatch.setattr(tuning, "_REPEATS", 1)
    yield


@pytest.fixture
def compiling() -> Iterator[None]:
    """`mx.compile` traces; there is nothing here for it to build."""
    mx.enable_compile()
    yield
    mx.disable_compile()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def proven(columns: np.ndarray) -> list[int]:
    return [tile for tile in TILES if tile_failure(columns, tile) is None]


SIZES = st.sampled_from([8, 31, 32, 64, 96, 250, 256])


@given(N=SIZES, K=SIZES, rows=st.integers(1, ROWS), first=st.integers(0, ROWS), seed=st.integers(0, 9))
def test_a_row_keeps_its_bits_in_any_pass_where_the_self_test_passed(N, K, rows, first, seed) -> None:
    columns, x = noise(N, K, seed=seed).T, noise(2 * ROWS, K, seed=seed + 1)
    tiles = proven(columns)
    assert 1 in tiles, "a product of one row has no rows beside it"
    for tile in tiles:
        alone = np.concatenate([tiled(x[i : i + 1], columns, tile) for i in range(first, first + rows)])
        assert np.array_equal(tiled(x[first : first + rows], columns, tile), alone), (N, K, rows, tile)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_agree_with_stock_mlx_within_rounding_at_any_length(dtype: mx.Dtype, family: str) -> None:
    stock = nn.Linear(64, 48, bias=False)
    stock.set_dtype(dtype)
    head = nn.Embedding(48, 64)
    head.set_dtype(dtype)
    stock.eval()
    head.eval()
    ours, our_head = with_kernels(stock, family), with_kernels(head, family)
    for shape in ((64,), (1, 64), (1, 7, 64), (2, 16, 64), (1, 90, 64)):
        x = mx.random.normal(shape, key=mx.random.key(3)).astype(dtype)
        for y, expected in ((ours(x), stock(x)), (our_head.as_linear(x), head.as_linear(x))):
            assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
            assert mx.allclose(y, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]).item()
    assert mx.array_equal(our_head(mx.array([3, 5])), head(mx.array([3, 5])))


@pytest.mark.parametrize("quantization", ["affine4", "affine8", "mxfp4", "nvfp4", "mxfp8"])
def test_quantised_layers_agree_with_stock_mlx(quantization: str) -> None:
    stock = nn.Linear(64, 48, bias=False).to_quantized(**tiny.QUANTIZATIONS[quantization])
    stock.eval()
    x = mx.random.normal((1, 9, 64), key=mx.random.key(4))
    assert mx.allclose(with_kernels(stock, "numpy4")(x), stock(x), rtol=1e-4, atol=1e-4).item()


def test_a_blas_whose_rows_depend_on_their_place_or_neighbours_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, product = noise(64, 32).T, cpu_linear.product

    def by_place(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        y = product(a, b)
        y[..., -1, :] = np.nextafter(y[..., -1, :], np.float32(np.inf))
        return y

    def by_neighbours(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return product(a, b) + np.float32(1e-6) * np.count_nonzero(a.sum(axis=-1))

    def wrong(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return product(a, b) * (np.float32(1.01) if a.dtype == np.float32 else 1)

    assert tile_failure(columns, 4) is None
    for fault, reason in ((by_place, "its place"), (by_neighbours, "rows beside it"), (wrong, "float64")):
        monkeypatch.setattr(cpu_linear, "product", fault)
        assert reason in (tile_failure(columns, 4) or "passed")


def test_products_from_several_threads_have_the_same_bits_and_leave_the_thread_count_alone() -> None:
    columns, x = noise(512, 256).T, [noise(16, 256, seed=seed) for seed in range(8)]
    counts = [get() for get, _ in controls()]
    expected = [tiled(each, columns, 8) for each in x]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: tiled(x[i % 8], columns, 8), range(64)))
    assert all(np.array_equal(y, expected[i % 8]) for i, y in enumerate(found))
    assert [get() for get, _ in controls()] == counts


# Attention --------------------------------------------------------------------------------------------


def rows_at(offset: int, rows: int, *, heads: int, groups: int, D: int, capacity: int) -> tuple[mx.array, ...]:
    """q, cached keys and values, the block's own keys and values."""
    shapes = (heads, rows), (groups, capacity), (groups, capacity), (groups, rows), (groups, rows)
    return tuple(mx.array(noise(1, h, n, D, seed=i)) for i, (h, n) in enumerate(shapes))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("offset", "rows"), [(0, 1), (0, 32), (7, 5), (250, 9), (256, 1), (511, 2), (600, 33)])
def test_attention_agrees_with_plain_mlx(dtype: mx.Dtype, offset: int, rows: int) -> None:
    arrays = rows_at(offset, rows, heads=4, groups=2, D=64, capacity=offset + 3)
    q, keys, values, own_keys, own_values = (a.astype(dtype) for a in arrays)
    args = (q, keys if offset else None, values if offset else None, offset, own_keys, own_values)
    for causal in (True, False):
        y = chunked_attention(*args, causal=causal, scale=0.125, tile=8)
        seen = [a.astype(mx.float32) for a in (q, own_keys, own_values)]
        if offset:
            seen[1:] = [
                mx.concatenate([c[:, :, :offset].astype(mx.float32), own], axis=2)
                for c, own in zip((keys, values), seen[1:], strict=True)
            ]
        expected = mx.fast.scaled_dot_product_attention(*seen, scale=0.125, mask="causal" if causal else None)
        assert (y.dtype, y.shape) == (dtype, q.shape)
        assert mx.allclose(y, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]).item()


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
    tiles = [tile for tile in TILES if product_failure(D, tile) is None]
    assert 1 in tiles
    q, keys, values, own_keys, own_values = rows_at(offset, 32, heads=heads, groups=groups, D=D, capacity=offset + 32)
    cached = [mx.concatenate([c[:, :, :offset], own], axis=2) for c, own in ((keys, own_keys), (values, own_values))]
    part = slice(first, first + rows)
    for tile in tiles:
        options = {"causal": True, "scale": D**-0.5, "tile": tile}
        whole = chunked_attention(q, *cached, offset, own_keys, own_values, **options)
        some = chunked_attention(
            q[:, :, part], *cached, offset + first, own_keys[:, :, part], own_values[:, :, part], **options
        )
        assert mx.array_equal(some, whole[:, :, part]), (offset, first, rows, shape, tile)


def test_a_tree_s_rows_have_the_bits_of_the_chains_that_they_end() -> None:
    parents = (-1, 0, 0, 1, 2, 2, 4)
    q, keys, values, own_keys, own_values = rows_at(253, len(parents), heads=4, groups=2, D=64, capacity=300)
    options = {"causal": True, "scale": 0.125, "tile": 4}
    tree = chunked_attention(q, keys, values, 253, own_keys, own_values, parents=parents, **options)
    for path in ([0, 1, 3], [0, 2, 5], [0, 2, 4, 6]):
        at = mx.array(path)
        chain = chunked_attention(q[:, :, at], keys, values, 253, own_keys[:, :, at], own_values[:, :, at], **options)
        assert mx.array_equal(tree[:, :, at], chain)


def test_traced_attention_is_left_to_mlx(compiling: None) -> None:
    arrays = rows_at(9, 3, heads=4, groups=2, D=64, capacity=16)
    traced = []

    def attend(q: mx.array) -> mx.array:
        found = chunked_attention(q, *arrays[1:3], 9, *arrays[3:], causal=True, scale=0.125, tile=4)
        traced.append(found)
        return q

    mx.eval(mx.compile(attend)(arrays[0]))
    assert traced == [None]


# Layers under transformations -------------------------------------------------------------------------


def test_compiled_and_mapped_layers_run_on_mlx(compiling: None) -> None:
    stock = nn.Linear(32, 24, bias=False)
    stock.eval()
    ours = with_kernels(stock, "numpy4")
    x = mx.random.normal((5, 32), key=mx.random.key(1))
    for transformed in (mx.compile(ours), mx.compile(ours, shapeless=True), mx.vmap(ours)):
        assert mx.allclose(transformed(x), stock(x), atol=1e-5).item()


def test_gradients_in_training_are_those_of_mlx() -> None:
    stock = nn.Linear(32, 24, bias=False)
    ours = with_kernels(stock, "numpy4")
    x = mx.random.normal((5, 32), key=mx.random.key(1))
    ours.train()
    gradient = mx.grad(lambda x: mx.square(ours(x)).sum())(x)
    assert mx.array_equal(gradient, mx.grad(lambda x: mx.square(stock(x)).sum())(x))
    assert mx.any(gradient != 0).item()


def test_a_new_weight_is_used_at_once() -> None:
    stock = nn.Linear(32, 24, bias=False)
    stock.eval()
    ours, x = with_kernels(stock, "numpy1"), mx.ones((2, 32))
    before = ours(x)
    ours.update({"weight": 2 * ours.weight})
    assert mx.allclose(ours(x), 2 * before, atol=1e-6).item()


# The plan ---------------------------------------------------------------------------------------------


def time_as(monkeypatch: pytest.MonkeyPatch, **milliseconds: float) -> None:
    monkeypatch.setattr(
        plan,
        "timings",
        lambda what, variants: {name: milliseconds.get(name.split("/")[0], 9.0) for name in variants},
    )


def weights(dtype: str = "bfloat16") -> list[LinearWeight]:
    return model_weights(tiny.tiny_model(0, dtype=dtype), tied_head=False)


def test_the_fastest_proven_tile_is_chosen_and_a_slower_one_only_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    time_as(monkeypatch, numpy1=3.0, numpy4=1.0, stock=2.0)
    found = make_plan(weights(), SHAPE, mx.bfloat16, "auto")
    assert set(found.linear.values()) == {"numpy4"}
    assert (found.attention, found.choice) == ("numpy4", False)
    time_as(monkeypatch, numpy1=3.0, numpy4=4.0, stock=2.0)
    found = make_plan(weights(), SHAPE, mx.bfloat16, "auto")
    assert (found.linear, found.attention) == ({}, None)
    assert all(": stock MLX (" in note and "numpy1/16 rows 3 ms" in note for note in found.notes)
    assert set(make_plan(weights(), SHAPE, mx.bfloat16, "force").linear.values()) == {"numpy1"}
    assert make_plan(weights(), SHAPE, mx.bfloat16, "off") == Plan(notes=("kernels: off by request",))


def test_a_tile_that_fails_is_never_used_and_the_notes_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    time_as(monkeypatch, numpy4=1.0, numpy1=2.0, stock=5.0)
    monkeypatch.setattr(cpu_linear, "tile_failure", lambda columns, tile: "of a fault" if tile > 1 else None)
    found = make_plan(weights(), SHAPE, mx.bfloat16, "force")
    assert set(found.linear.values()) == {"numpy1"}
    assert all("numpy4 failed: of a fault" in note for note in found.notes if note.startswith("linear"))


def test_copies_stay_below_their_limit_and_shared_weights_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    time_as(monkeypatch, numpy4=1.0, stock=5.0)
    needed = sum(map(cpu_linear.copied_bytes, weights()))
    assert needed == sum(4 * N * K for N, K in (weight.shape for weight in weights()))
    assert make_plan(weights(), SHAPE, mx.bfloat16).linear
    monkeypatch.setattr(cpu_linear, "COPY_LIMIT", needed - 1)
    found = make_plan(weights(), SHAPE, mx.bfloat16)
    assert sum("float32 copies for NumPy would take" in note for note in found.notes) == 1
    monkeypatch.setattr(cpu_linear, "COPY_LIMIT", 0)
    assert make_plan(weights(), SHAPE, mx.bfloat16).linear == {}
    assert make_plan(weights("float32"), SHAPE, mx.float32).linear
    assert np.shares_memory(cpu_linear.columns(weights("float32")[0]), np.asarray(weights("float32")[0].w))


# Models -----------------------------------------------------------------------------------------------


def accelerated(dtype: str = "float32", quantization: str = "none", **changes) -> Model:
    settings = tiny.config(**changes)
    model = tiny.build(settings, tiny.weights(settings), dtype, quantization)
    found = accelerate(model, "force")
    assert found.linear and found.attention, found.notes
    assert type(model.layers[0].mlp) is CpuMLP
    return model


@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [("float32", "none"), ("bfloat16", "none"), ("float16", "none"), ("bfloat16", "affine4"), ("float32", "mxfp4")],
)
def test_a_model_on_numpy_is_row_exact_and_block_decoding_lossless(dtype: str, quantization: str) -> None:
    model = accelerated(dtype, quantization)
    assert probe(model).kind == "row-exact"
    for seed, temperature in ((0, 0.0), (1, 0.8), (2, 1.3)):
        prompt = tiny.prompt(seed)
        expected = list(mlx_generate(model, prompt, None, 40, temperature, mode="ar", seed=seed))
        for block_size in (3, 32):
            options = {"mode": "diffusion", "seed": seed, "block_size": block_size}
            assert list(mlx_generate(model, prompt, None, 40, temperature, **options)) == expected


def test_a_model_on_numpy_decodes_the_same_from_another_thread() -> None:
    model = accelerated()

    def answer() -> list[int]:
        return list(mlx_generate(model, tiny.prompt(3), None, 25, 0.8, mode="diffusion", seed=3))

    expected = answer()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(answer).result() == expected


def test_training_an_accelerated_model_runs_on_mlx() -> None:
    model, stock = accelerated(), tiny.tiny_model(0)
    tokens = mx.array([tiny.prompt(5, 8)])

    def loss(weights: dict, of: Model) -> mx.array:
        of.model.norm.update(weights)
        return mx.square(of(tokens)).mean()

    model.train()
    weight = {"weight": stock.model.norm.weight}
    found, expected = (mx.grad(lambda w, of=of: loss(w, of))(weight)["weight"] for of in (model, stock))
    stock.model.norm.update(weight)
    assert mx.any(expected != 0).item()
    assert mx.allclose(found, expected, rtol=1e-3, atol=1e-6).item()


def test_an_mlp_far_below_zero_gives_no_warning_and_no_nan() -> None:
    model = accelerated()
    with np.errstate(all="raise", under="ignore", over="ignore"):
        y = model.layers[0].mlp(1000 * mx.random.normal((1, 5, 32), key=mx.random.key(0)))
    assert mx.all(mx.isfinite(y)).item()


def test_a_model_keeps_its_parameters_and_computes_what_stock_mlx_does() -> None:
    model = accelerated(tie_word_embeddings=True)
    stock = tiny.tiny_model(0, tie_word_embeddings=True)
    tokens = mx.array([tiny.prompt(5, 40)])
    assert mx.allclose(model(tokens), stock(tokens), rtol=1e-3, atol=1e-3).item()
    count = sum(p.size for _, p in tree_flatten(model.parameters()))
    assert count == sum(p.size for _, p in tree_flatten(stock.parameters()))
