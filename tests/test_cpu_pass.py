"""NumPy's pass on the CPU: right, row-exact, at home in the one cache, and out of the way of transformations."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from mlx_lm.models.cache import KVCache as MlxLmCache
from mlx_lm.models.cache import make_prompt_cache

from orthrus_mlx import cpu_pass
from orthrus_mlx.acceleration import accelerate
from orthrus_mlx.cache import KVCache
from orthrus_mlx.decoding import alone, prefill
from orthrus_mlx.decoding.prefill import read_chunk, read_last_chunk
from orthrus_mlx.decoding.stats import DecodeStats
from orthrus_mlx.exactness import OFF, probe, trees_agree
from orthrus_mlx.generation import mlx_generate
from orthrus_mlx.kernels import tuning
from orthrus_mlx.kernels.cpu_linear import Product
from orthrus_mlx.model import AR, DIFFUSION, Model
from orthrus_mlx.pass_check import layer_failure
from orthrus_mlx.passes import Block, run_pass
from orthrus_mlx.trees import path_to

TOLERANCE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.35}
"""Of logits, some 10 in size, after two layers of rounding MLX's way or in float32."""

FORMATS = [
    ("float32", "none"),
    ("bfloat16", "none"),
    ("float16", "none"),
    ("bfloat16", "affine4"),
    ("float32", "mxfp4"),
]


pytestmark = pytest.mark.usefixtures("quick_timings")


@pytest.fixture
def compiling() -> Iterator[None]:
    """`mx.compile` traces; there is nothing here for it to build."""
    mx.enable_compile()
    yield
    mx.disable_compile()


def through_numpy(dtype: str = "float32", quantization: str = "none", **changes) -> Model:
    made = tiny.config(**changes)
    model = tiny.build(made, tiny.weights(made), dtype, quantization)
    assert accelerate(model, "force").whole == "numpy", model.kernels.notes
    return model


def ids(seed: int, length: int) -> mx.array:
    return mx.array(tiny.prompt(seed, length), dtype=mx.int32)


def filled(model: Model, text: mx.array) -> KVCache:
    cache = KVCache(len(model.layers))
    if text.size:
        read_chunk(model, text, cache)
    return cache


def logits(model: Model, cache: KVCache, tokens: mx.array, **options) -> mx.array:
    (found,) = run_pass(model, [Block(cache, tokens, **options)])
    mx.eval(found)
    return found


def rows_of(cache: KVCache) -> list[mx.array]:
    return [a[..., : cache.offset, :] for a in cache.arrays]


def same(a: Sequence[mx.array], b: Sequence[mx.array]) -> bool:
    return all(mx.array_equal(x, y).item() for x, y in zip(a, b, strict=True))


# Right ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "quantization"), FORMATS)
def test_passes_agree_with_the_layers_in_both_views_and_in_trees(dtype: str, quantization: str) -> None:
    ours = through_numpy(dtype, quantization)
    stock = tiny.tiny_model(0, dtype=dtype, quantization=quantization)
    text, block = ids(1, 140), ids(2, 9)
    caches = filled(ours, text), filled(stock, text)
    for options in ({}, {"view": DIFFUSION}, {"parents": (-1, 0, 0, 1, 2, 2, 4, 5, 1)}, {"wanted": 3}):
        found, expected = (
            logits(model, cache, block, **options) for model, cache in zip((ours, stock), caches, strict=True)
        )
        assert found.shape == expected.shape
        assert mx.abs(found - expected).max().item() < TOLERANCE[dtype], options
    for mine, theirs in zip(*map(rows_of, caches), strict=True):
        assert mine.dtype == theirs.dtype
        assert mx.abs(mine - theirs).max().item() < TOLERANCE[dtype]


def test_rotation_of_any_kind_is_the_model_s_own() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    ours = through_numpy(rope_scaling=scaling)
    stock = tiny.tiny_model(0, rope_scaling=None)
    yarn = tiny.build(tiny.config(rope_scaling=scaling), tiny.weights(tiny.config()))
    block = ids(2, 9)
    found, other, expected = (logits(m, filled(m, ids(1, 140)), block) for m in (ours, stock, yarn))
    assert mx.abs(found - expected).max().item() < TOLERANCE["float32"]
    assert mx.abs(other - expected).max().item() > TOLERANCE["float32"]


def test_a_model_without_diffusion_view_and_one_with_a_tied_head_are_taken() -> None:
    made = tiny.plain_config(tie_word_embeddings=True)
    ours, stock = (tiny.build(made, tiny.weights(made)) for _ in range(2))
    assert accelerate(ours, "force").whole == "numpy"
    found, expected = (logits(model, filled(model, ids(1, 40)), ids(2, 5)) for model in (ours, stock))
    assert mx.abs(found - expected).max().item() < TOLERANCE["float32"]


def test_weights_without_room_for_copies_are_converted_in_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = through_numpy("bfloat16")
    monkeypatch.setattr(cpu_pass, "COPY_LIMIT", 0)
    converted = through_numpy("bfloat16")
    found, expected = (logits(model, filled(model, ids(1, 40)), ids(2, 5)) for model in (converted, kept))
    assert mx.abs(found - expected).max().item() < 1e-3


def test_layers_that_add_nothing_are_no_failure_and_results_that_are_no_numbers_are() -> None:
    for weight, fails in ((0.0, False), (math.nan, True)):
        model = through_numpy()
        accelerate(model, "off")
        for layer in model.layers:
            for linear in (layer.self_attn.o_proj, layer.self_attn.o_proj_diff, layer.mlp.down_proj):
                linear.weight = mx.full(linear.weight.shape, weight)
        found = cpu_pass.cpu_pass(model)
        assert found is not None
        assert (layer_failure(model, found) is not None) == fails


def test_an_mlp_far_below_zero_gives_no_warning_and_no_nan() -> None:
    made = tiny.config()
    drawn = {name: 300 * value if "gate_proj" in name else value for name, value in tiny.weights(made).items()}
    model = tiny.build(made, drawn)
    assert accelerate(model, "force").whole == "numpy"
    with np.errstate(all="raise", under="ignore"):
        assert mx.all(mx.isfinite(logits(model, filled(model, ids(1, 40)), ids(2, 5)))).item()


# Row-exact --------------------------------------------------------------------------------------------

BLOCKS = st.tuples(st.integers(0, 300), st.integers(1, 12), st.sampled_from(["chain", "tree", "draft"]))
"""Prefix, rows, kind."""


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {dtype: through_numpy(dtype) for dtype in ("float32", "bfloat16")}


def block_of(model: Model, which: int, prefix: int, rows: int, kind: str) -> Block:
    parents = tuple((i * 7 + which) % i if i else -1 for i in range(rows)) if kind == "tree" else None
    view = DIFFUSION if kind == "draft" else AR
    return Block(filled(model, ids(which, prefix)), ids(100 + which, rows), view, parents)


@settings(max_examples=60)
@given(shapes=st.lists(BLOCKS, min_size=1, max_size=7), dtype=st.sampled_from(["float32", "bfloat16"]))
def test_a_row_has_the_bits_of_one_token_steps_whatever_shares_its_pass(models, shapes, dtype) -> None:
    model = models[dtype]
    together = run_pass(model, [block_of(model, i, *shape) for i, shape in enumerate(shapes)])
    for i, (shape, found) in enumerate(zip(shapes, together, strict=True)):
        block = block_of(model, i, *shape)
        if block.view == DIFFUSION:
            assert mx.allclose(run_pass(model, [block])[0], found, rtol=1e-3, atol=1e-3), f"draft {i} of {shapes}"
            continue
        parents = block.parents or tuple(range(-1, shape[1] - 1))
        for row in range(shape[1]):
            path = path_to(parents, row)
            for node in path:
                step = logits(model, block.cache, block.tokens[node : node + 1])
                block.cache.commit(1)
            assert mx.array_equal(step[0], found[row]), f"row {row} of block {i} of {shapes}"
            block.cache.trim(len(path))


@pytest.mark.parametrize(("dtype", "quantization"), FORMATS)
def test_a_model_on_numpy_is_row_exact_and_block_decoding_lossless(dtype: str, quantization: str) -> None:
    model = through_numpy(dtype, quantization)
    found = probe(model)
    assert found.kind == "row-exact"
    assert trees_agree(model, found)
    for seed, temperature in ((0, 0.0), (1, 0.8), (2, 1.3)):
        prompt = tiny.prompt(seed)
        expected = list(mlx_generate(model, prompt, None, 40, temperature, mode="ar", seed=seed))
        for block_size in (3, 32):
            options = {"mode": "diffusion", "seed": seed, "block_size": block_size}
            assert list(mlx_generate(model, prompt, None, 40, temperature, **options)) == expected


def test_threads_decode_what_one_thread_decodes() -> None:
    model = through_numpy()

    def answer(seed: int) -> list[int]:
        return list(mlx_generate(model, tiny.prompt(seed), None, 25, 0.8, mode="diffusion", seed=seed))

    expected = [answer(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, range(4))) == expected


# The cache --------------------------------------------------------------------------------------------


def test_rows_that_are_read_are_the_rows_that_are_decoded_whatever_the_pieces() -> None:
    model = through_numpy("bfloat16")
    text = ids(5, 300)
    caches = []
    for step in (300, 97, 5, 1):
        caches.append(KVCache(len(model.layers)))
        for start in range(0, 300, step):
            read_chunk(model, text[start : start + step], caches[-1])
    assert all(same(rows_of(cache), rows_of(caches[0])) for cache in caches)


@pytest.mark.parametrize(("read", "length"), [(0, 2), (7, 90), (100, 2), (64, 65)])
def test_the_prompt_s_last_pass_gives_the_logits_and_the_row_of_a_one_token_step(read: int, length: int) -> None:
    model = through_numpy("bfloat16")
    text = ids(5, read + length)
    cache, stepwise = filled(model, text[:read]), filled(model, text[:-1])
    given = read_last_chunk(model, text[read:], cache, OFF)
    assert given is not None and mx.array_equal(given, logits(model, stepwise, text[-1:]))
    cache.commit(1)
    stepwise.commit(1)
    assert same(rows_of(cache), rows_of(stepwise))


def test_full_blocks_begin_at_once() -> None:
    stats = DecodeStats()
    list(mlx_generate(through_numpy(), tiny.prompt(3, 12), None, 20, 0.7, mode="diffusion", seed=1, stats=stats))
    assert stats.given == 0 and set(stats.steps) == {"chain"}


@pytest.mark.parametrize("mode", ["ar", "auto"])
@pytest.mark.parametrize("by_hand", [False, True])
def test_the_first_token_comes_with_the_prompt_and_takes_no_pass(
    mode: str, by_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompt = through_numpy(), tiny.prompt(3, 12)
    options: dict = {"mode": mode, "seed": 1}
    if by_hand:
        options["logits_processors"] = [lambda tokens, row: row - 0.5 * mx.arange(row.shape[-1]) % 3]
    passes: list[int] = []

    def counted(model: Model, blocks: Sequence[Block], *rest):
        passes.append(blocks[0].tokens.size)
        return run_pass(model, blocks, *rest)

    for module in (alone, prefill):
        monkeypatch.setattr(module, "run_pass", counted)
    stats = DecodeStats()
    answer = mlx_generate(model, prompt, None, 20, 0.7, stats=stats, **options)
    found = [next(answer)]
    assert passes == [12], "and it is handed out before any other pass"
    found += answer
    # The row of the last token is left in the cache by a pass that no cycle counts.
    assert stats.given == 1 and stats.ar_passes == stats.cycles + 1
    assert mode != "ar" or len(passes) - 1 == stats.cycles == 20
    monkeypatch.setattr(prefill, "_any_length", lambda model: False)
    without = DecodeStats()
    assert list(mlx_generate(model, prompt, None, 20, 0.7, stats=without, **options)) == found
    assert without.given == 0
    alone_in_prompt = DecodeStats()
    list(mlx_generate(model, prompt[:1], None, 3, stats=alone_in_prompt, **options))
    assert alone_in_prompt.given == 0, "a prompt of one token has no pass of its own"


def test_an_accepted_path_of_a_tree_is_what_its_chain_would_have_left() -> None:
    model = through_numpy()
    text, tokens = ids(1, 126), ids(2, 6)
    tree, chain = filled(model, text), filled(model, text)
    logits(model, tree, tokens, parents=(-1, 0, 0, 1, 2, 4))
    tree.commit(4, [0, 2, 4, 5])
    logits(model, chain, tokens[mx.array([0, 2, 4, 5])])
    chain.commit(4)
    assert same(rows_of(tree), rows_of(chain))
    assert mx.array_equal(logits(model, tree, ids(3, 3)), logits(model, chain, ids(3, 3)))


def test_a_draft_and_rejected_rows_leave_no_trace() -> None:
    model = through_numpy()
    cache, clean = filled(model, ids(1, 250)), filled(model, ids(1, 250))
    logits(model, cache, ids(2, 16), view=DIFFUSION)
    logits(model, cache, ids(3, 16))
    cache.commit(2)
    cache.trim(2)
    assert same(rows_of(cache), rows_of(clean))
    assert mx.array_equal(logits(model, cache, ids(4, 5)), logits(model, clean, ids(4, 5)))


def test_copies_of_a_cache_go_on_by_themselves() -> None:
    model = through_numpy()
    cache = filled(model, ids(1, 20))
    twin = copy.deepcopy(cache)
    held = [mx.array(a) for a in cache.arrays]
    before = [np.array(a[..., :20, :]) for a in held]
    for each, seed in ((cache, 2), (twin, 3)):
        logits(model, each, ids(seed, 5))
        each.commit(5)
    cache.trim(15)
    logits(model, cache, ids(4, 9))
    cache.commit(9)
    assert all(np.array_equal(a[..., :20, :], b) for a, b in zip(held, before, strict=True))
    alone = filled(model, mx.concatenate([ids(1, 20), ids(3, 5)]))
    assert same(rows_of(twin), rows_of(alone))
    assert same(rows_of(cache), rows_of(filled(model, mx.concatenate([ids(1, 20)[:10], ids(4, 9)]))))


def test_stock_passes_and_numpy_s_may_share_a_cache() -> None:
    model, stock = through_numpy(), tiny.tiny_model(0)
    cache, expected = KVCache(2), filled(stock, ids(1, 320))
    for start in range(0, 320, 40):
        piece = ids(1, 320)[start : start + 40]
        if start % 80:
            logits(model, cache, piece)
        else:
            model.model(piece[None], cache)
        cache.commit(40)
    for mine, theirs in zip(rows_of(cache), rows_of(expected), strict=True):
        assert mx.allclose(mine, theirs, rtol=1e-3, atol=1e-3).item()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_prompt_caches_of_mlx_lm_and_their_files_are_read_and_written(dtype: str, tmp_path: Path) -> None:
    model = through_numpy(dtype)
    cache = filled(model, ids(1, 30))
    expected = logits(model, cache, ids(2, 4))
    cache.save(tmp_path / "c.safetensors")
    loaded, _ = KVCache.load(tmp_path / "c.safetensors")
    assert mx.array_equal(logits(model, loaded, ids(2, 4)), expected)
    theirs = [MlxLmCache() for _ in model.layers]
    cache.write_to(theirs)
    kept = [np.array(c.keys[..., :30, :].astype(mx.float32)) for c in theirs]
    assert mx.array_equal(logits(model, KVCache.from_mlx_lm(theirs), ids(2, 4)), expected)
    logits(model, cache, ids(5, 9))
    assert all(np.array_equal(c.keys[..., :30, :].astype(mx.float32), k) for c, k in zip(theirs, kept, strict=True))
    filled_there = make_prompt_cache(model)
    model(ids(1, 30)[None], filled_there)
    found = logits(model, KVCache.from_mlx_lm(filled_there), ids(2, 4))
    assert mx.abs(found - expected).max().item() < TOLERANCE[dtype]


def test_a_cache_of_another_dtype_is_read() -> None:
    model = through_numpy("bfloat16")
    cache, other = filled(model, ids(1, 30)), filled(model, ids(1, 30))
    for layer in other:
        layer.keys, layer.values = layer.keys.astype(mx.float32), layer.values.astype(mx.float32)
    assert mx.array_equal(logits(model, other, ids(2, 4)), logits(model, cache, ids(2, 4)))


# What is not its business -----------------------------------------------------------------------------


def test_a_model_called_as_a_whole_computes_and_differentiates_as_stock_mlx(compiling: None) -> None:
    model, stock = through_numpy(), tiny.tiny_model(0)
    tokens = ids(5, 40)[None]
    expected = stock(tokens)
    assert mx.array_equal(model(tokens), expected)
    assert mx.allclose(mx.compile(model)(tokens), expected, rtol=1e-3, atol=1e-3).item()

    def loss(weights: dict, of: Model) -> mx.array:
        of.model.norm.update(weights)
        return mx.square(of(tokens)).mean()

    weight = {"weight": stock.model.norm.weight}
    found, wanted = (mx.grad(lambda w, of=of: loss(w, of))(weight)["weight"] for of in (model, stock))
    stock.model.norm.update(weight)
    assert mx.any(wanted != 0).item()
    assert mx.allclose(found, wanted, rtol=1e-3, atol=1e-6).item()


def test_in_training_a_pass_runs_through_the_layers() -> None:
    model, stock = through_numpy("bfloat16"), tiny.tiny_model(0, dtype="bfloat16")
    model.train()
    found, expected = (logits(m, filled(m, ids(1, 9)), ids(2, 4)) for m in (model, stock))
    assert mx.array_equal(found, expected)


def test_a_new_weight_is_used_at_once() -> None:
    model, stock = through_numpy(), through_numpy()
    before = logits(model, filled(model, ids(1, 9)), ids(2, 4))
    for changed in (model, stock):
        down = changed.layers[1].mlp.down_proj
        down.update({"weight": 2 * down.weight})
        changed.model.embed_tokens.weight = changed.model.embed_tokens.weight[::-1]
    accelerate(stock, "off")
    found, expected = (logits(m, filled(m, ids(1, 9)), ids(2, 4)) for m in (model, stock))
    assert not mx.allclose(found, before).item()
    assert mx.allclose(found, expected, rtol=1e-3, atol=1e-3).item()


class Adapted(nn.Module):
    """Some other layer in a linear layer's place."""

    def __init__(self, inner: nn.Linear):
        super().__init__()
        self.inner = inner

    def __call__(self, x: mx.array) -> mx.array:
        return 2 * self.inner(x)


def test_a_model_with_layers_of_another_kind_stays_with_mlx() -> None:
    model, stock = through_numpy(), tiny.build(tiny.config(), tiny.weights(tiny.config()))
    for changed in (model, stock):
        changed.layers[0].mlp.down_proj = Adapted(changed.layers[0].mlp.down_proj)
    found, expected = (logits(m, filled(m, ids(1, 9)), ids(2, 4)) for m in (model, stock))
    assert mx.array_equal(found, expected)
    assert accelerate(model, "force").whole is None
    assert "without bias" in model.kernels.notes[0]


def test_a_model_goes_with_its_last_reference() -> None:
    gc.collect()
    gc.disable()
    try:
        model = through_numpy()
        logits(model, KVCache(2), ids(2, 4))
        left = weakref.ref(model), weakref.ref(model.model)
        del model
        assert [ref() for ref in left] == [None, None]
    finally:
        gc.enable()


def test_a_model_keeps_its_parameters() -> None:
    model, stock = through_numpy("bfloat16"), tiny.tiny_model(0, dtype="bfloat16")
    assert all(
        name == other and mx.array_equal(mine, theirs)
        for (name, mine), (other, theirs) in zip(
            tree_flatten(model.parameters()), tree_flatten(stock.parameters()), strict=True
        )
    )


# The choice -------------------------------------------------------------------------------------------


def small() -> Model:
    return tiny.build(tiny.config(), tiny.weights(tiny.config()), "bfloat16")


def test_it_is_used_where_it_is_faster_and_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"numpy/1": 3.0, "numpy/16": 1.0, "stock/1": 2.0, "stock/16": 3.0}
    monkeypatch.setattr(cpu_pass, "timings", lambda what, variants: {name: times[name] for name in variants})
    model = small()
    assert accelerate(model, "auto").whole == "numpy"
    assert "numpy/16 rows 1 ms" in model.kernels.notes[0]
    times["numpy/16"] = 2.0
    assert accelerate(model, "auto").whole is None
    assert model.model.fused is model.fused_head is None
    assert "stock MLX is faster" in model.kernels.notes[0]
    assert accelerate(model, "force").whole == "numpy"
    assert accelerate(model, "off").notes == ("kernels: off by request",)
    assert model.model.fused is None


def test_one_that_is_wrong_or_not_row_exact_is_never_used_and_the_note_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = Product.one_by_one

    def by_rows(self: Product, x: np.ndarray) -> np.ndarray:
        return right(self, x) * np.float32(1 + 1e-6 * len(x))

    def wrong(self: Product, x: np.ndarray) -> np.ndarray:
        return -right(self, x)

    for fault, reason in ((by_rows, "has other bits alone"), (wrong, "differ from MLX's")):
        monkeypatch.setattr(Product, "one_by_one", fault)
        model = small()
        assert accelerate(model, "force").whole is None
        assert reason in model.kernels.notes[0]
    monkeypatch.setattr(Product, "one_by_one", right)
    monkeypatch.setattr(cpu_pass, "product_failure", lambda product: "of a fault")
    assert accelerate(model, "force").whole is None
    assert "failed: of a fault" in model.kernels.notes[0]


def test_timings_are_kept_for_models_of_the_same_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerate(small(), "auto")
    monkeypatch.setattr(tuning, "measure", lambda calls: pytest.fail("measured again"))
    accelerate(small(), "auto")
