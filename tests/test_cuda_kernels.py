"""The CUDA kernels, run from their own text on the CPU: right, and blind to the rows that travel along."""

from __future__ import annotations

import shutil

import mlx.core as mx
import mlx.nn as nn
import pytest

import orthrus_mlx.pass_check as pass_check
from orthrus_mlx.acceleration import pack
from orthrus_mlx.cache import KVCache
from orthrus_mlx.config import ModelArgs
from orthrus_mlx.decoding.alone import Generation
from orthrus_mlx.decoding.loop import Decoder
from orthrus_mlx.decoding.policy import FixedPolicy
from orthrus_mlx.decoding.stats import DecodeStats
from orthrus_mlx.exactness import OFF
from orthrus_mlx.fused_pass import fused_pass
from orthrus_mlx.kernels import LinearWeight, cuda
from orthrus_mlx.model import Model, Part
from orthrus_mlx.pass_check import layer_failure
from orthrus_mlx.passes import Block, run_pass
from orthrus_mlx.sampling import Sampling
from orthrus_mlx.weights import AR, DIFFUSION
from tests.cuda_emulator import emulated_cuda

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator is compiled with g++")


@pytest.fixture(autouse=True)
def emulated():
    with emulated_cuda():
        yield


def normal(*shape: int, seed: int = 0) -> mx.array:
    return (mx.random.normal(shape, key=mx.random.key(seed)) / 2).astype(mx.bfloat16)


def close(got: mx.array, want: mx.array) -> bool:
    got, want = got.astype(mx.float32), want.astype(mx.float32)
    return (mx.abs(got - want).max() <= 0.01 * mx.abs(want).max()).item()


def same(a: mx.array, b: mx.array) -> bool:
    return mx.array_equal(a, b).item()


def tiny(bits: int = 16) -> Model:
    mx.random.seed(1)
    args = ModelArgs("orthrus", 128, 2, 192 if bits == 16 else 256, 2, 1, 64, 96, 1e-6, 4096, True, 1e6, None, 8, 95)
    # Else neither the pass nor its head would run.
    model = Model(args).eval()
    model.set_dtype(mx.bfloat16)
    if bits < 16:
        nn.quantize(model, 64, bits)
    pack(model)
    return model


def fused(model: Model) -> Model:
    found = fused_pass(model)
    assert found is not None
    model.model.fused, model.fused_head = found, found.head
    return model


def test_linear_is_right_and_a_row_is_blind_to_the_others():
    weight, x = LinearWeight(normal(192, 1088, seed=1)), normal(11, 1088, seed=2)
    got = cuda.linear(x, weight)
    assert close(got, x.astype(mx.float32) @ weight.w.astype(mx.float32).T)
    assert same(cuda.linear(x[9:10], weight), got[9:10])


@pytest.mark.parametrize("group_size", [32, 128])
def test_linear_takes_4_bit_weights(group_size):
    columns = 512 if group_size == 128 else 384
    w, scales, biases = mx.quantize(normal(32, columns, seed=4).astype(mx.float32), group_size, 4)
    weight = LinearWeight(w, scales.astype(mx.bfloat16), biases.astype(mx.bfloat16), group_size, 4)
    assert cuda.supports(weight, mx.bfloat16)
    x = normal(3, columns, seed=5)
    dense = mx.dequantize(w, weight.scales, weight.biases, group_size, 4).astype(mx.float32)
    assert close(cuda.linear(x, weight), x.astype(mx.float32) @ dense.T)


@pytest.mark.parametrize(("columns", "rows"), [(6144, 320), (12288, 256)])
def test_linear_takes_scales_in_turns_where_those_of_all_units_do_not_fit(columns, rows):
    w, scales, biases = mx.quantize(normal(rows, columns, seed=6).astype(mx.float32), 32, 4)
    weight = LinearWeight(w, scales.astype(mx.bfloat16), biases.astype(mx.bfloat16), 32, 4)
    assert cuda.supports(weight, mx.bfloat16)
    x = normal(2, columns, seed=7)
    dense = mx.dequantize(w, weight.scales, weight.biases, 32, 4).astype(mx.float32)
    assert close(cuda.linear(x, weight), x.astype(mx.float32) @ dense.T)


def test_a_weight_that_does_not_fit_the_tiles_is_not_taken():
    assert cuda.supports(LinearWeight(normal(32, 64)), mx.bfloat16)
    assert not cuda.supports(LinearWeight(normal(40, 64)), mx.bfloat16)
    assert not cuda.supports(LinearWeight(normal(32, 48)), mx.bfloat16)
    assert not cuda.supports(LinearWeight(normal(32, 64)), mx.float32)
    quantized = mx.quantize(normal(32, 384), 128, 4)
    assert not cuda.supports(LinearWeight(*quantized, 128, 4), mx.bfloat16)
    too_long = mx.quantize(normal(32, 13312), 32, 4)
    assert not cuda.supports(LinearWeight(*too_long, 32, 4), mx.bfloat16)


@pytest.mark.parametrize("bits", [16, 4])
def test_a_layer_agrees_with_mlx_in_both_views(bits, monkeypatch):
    monkeypatch.setattr(pass_check, "_CHECKED_ROWS", (2, 9) if bits == 16 else (3,))
    model = tiny(bits)
    found = fused_pass(model)
    assert found is not None and layer_failure(model, found) is None


def test_a_wrong_layer_is_found_out():
    model = tiny()
    found = fused_pass(model)
    assert found is not None
    model.layers[0].mlp.down_proj.weight = -model.layers[0].mlp.down_proj.weight
    assert "differ from MLX's" in (layer_failure(model, found) or "")


def test_a_model_in_training_stays_with_mlx():
    model = fused(tiny())
    ours = logits(model, filled(model, 8), [3, 14, 15])
    model.model.fused = model.fused_head = None
    stock = logits(model, filled(model, 8), [3, 14, 15])
    assert not same(ours, stock)
    fused(model).train()
    assert same(logits(model, filled(model, 8), [3, 14, 15]), stock)


def test_a_float32_model_stays_with_mlx():
    model = tiny()
    model.set_dtype(mx.float32)
    assert fused_pass(model) is None


def logits(model: Model, cache: KVCache, ids: list[int], parents: tuple[int, ...] | None = None) -> mx.array:
    found = run_pass(model, [Block(cache, mx.array(ids, dtype=mx.int32), parents=parents)])[0]
    mx.eval(found)
    return found


def filled(model: Model, length: int) -> KVCache:
    cache = KVCache(len(model.layers))
    model.model(mx.arange(length)[None] % 90, cache)
    cache.commit(length)
    return cache


@pytest.mark.parametrize("prefix", [125, 4093])
def test_a_row_of_a_block_has_the_bits_of_a_one_token_step(prefix):
    model = fused(tiny())
    ids = [3, 14, 15, 92, 65]
    block, steps = filled(model, prefix), filled(model, prefix)
    whole = logits(model, block, ids)
    for i, token in enumerate(ids):
        assert same(logits(model, steps, [token])[0], whole[i]), f"row {i}"
        steps.commit(1)


def test_a_node_of_a_tree_has_the_bits_of_its_path_alone():
    model = fused(tiny())
    tokens, parents = [7, 8, 9, 10, 11], (-1, 0, 0, 1, 2)
    tree = logits(model, filled(model, 126), tokens, parents)
    chain = logits(model, filled(model, 126), [7, 9, 11])
    assert same(tree[mx.array([0, 2, 4])], chain)


def test_a_draft_leaves_no_trace_in_the_verification():
    model = fused(tiny())
    cache, clean = filled(model, 10), filled(model, 10)
    mx.eval(run_pass(model, [Block(cache, mx.array([5] + [95] * 7, dtype=mx.int32), DIFFUSION)]))
    assert same(logits(model, cache, [5, 6]), logits(model, clean, [5, 6]))


def test_what_others_hold_is_not_written_in_place():
    model = fused(tiny())
    cache = filled(model, 10)
    logits(model, cache, [5, 6, 7])
    cache.commit(3)
    held = [mx.array(a) for a in cache.arrays]
    before = [mx.array(a[..., :13, :].astype(mx.float32)) for a in held]
    mx.eval(before)
    cache.trim(3)
    logits(model, cache, [50, 60, 70])
    after = [a[..., :13, :].astype(mx.float32) for a in held]
    assert all(map(same, after, before))


def test_a_long_pass_stays_with_mlx():
    model, plain = fused(tiny()), tiny()
    ids = mx.arange(40) % 90
    caches = KVCache(2), KVCache(2)
    found = [m.model.parts(ids, [Part(0, 40, AR, c)]) for m, c in zip((model, plain), caches, strict=True)]
    assert same(*found)


def test_a_cache_of_another_dtype_is_read():
    model = fused(tiny())
    elsewhere = filled(model, 9)
    own = logits(model, filled(model, 9), [5, 6])
    for layer in elsewhere:
        layer.keys, layer.values = layer.keys.astype(mx.float32), layer.values.astype(mx.float32)
    assert same(logits(model, elsewhere, [5, 6]), own)


def decoded(model: Model, rows: int) -> tuple[list[int], DecodeStats]:
    stats = DecodeStats()
    decoder = Decoder(
        model,
        KVCache(2),
        sampling=Sampling(temperature=0.9, seed=3),
        policy=FixedPolicy(rows),
        exactness=OFF,
        block_size=8,
        stop_tokens=(),
        limit=14,
        stats=stats,
    )
    generation = Generation(model, decoder, OFF)
    generation.read([7 * i % 90 for i in range(246)], step_size=100, progress=None)
    return [emission.token for emission in generation.run()], stats


def test_blocks_emit_the_tokens_of_one_token_steps_while_the_cache_grows():
    model = fused(tiny())
    steps, _ = decoded(model, 1)
    blocks, stats = decoded(model, 4)
    assert blocks == steps and len(steps) == 14
    assert stats.accepted > 0
