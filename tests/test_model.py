"""Both views against the float64 reference, the model's shape, and its place in mlx-lm."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import tiny
from mlx.utils import tree_flatten
from reference import Reference, rule_a

from orthrus_mlx.cache import KVCache
from orthrus_mlx.config import ModelArgs
from orthrus_mlx.decoding.stats import DecodeStats
from orthrus_mlx.generation import mlx_generate
from orthrus_mlx.model import DIFFUSION, Model
from orthrus_mlx.sampling import gumbel, position_keys
from orthrus_mlx.weights import parameter_shapes

TOLERANCE = 1e-4
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
VARIANTS = {
    "grouped heads": {},
    "one kv head": {"num_key_value_heads": 1},
    "no grouping": {"num_key_value_heads": 4},
    "wide heads": {"head_dim": 64, "num_attention_heads": 2},
    "tied head": {"tie_word_embeddings": True},
    "three layers, odd vocabulary": {"num_hidden_layers": 3, "vocab_size": 61, "mask_token_id": 60},
    "large theta": {"rope_theta": 1e6},
    "large epsilon": {"rms_norm_eps": 1e-2},
    "linear rope": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "yarn": {"rope_scaling": YARN, "max_position_embeddings": 32},
    "yarn, own betas": {"rope_scaling": {**YARN, "beta_fast": 8, "beta_slow": 2, "factor": 2.5}},
    "yarn, large theta": {"rope_scaling": {**YARN, "original_max_position_embeddings": 4096}, "rope_theta": 1e6},
}


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def pair(request) -> tuple[Model, Reference]:
    settings = tiny.config(**request.param)
    drawn = tiny.weights(settings, seed=3)
    return tiny.build(settings, drawn), Reference(settings, drawn)


def ids(tokens) -> mx.array:
    return mx.array([tokens], dtype=mx.int32)


def difference(actual: mx.array, expected: np.ndarray) -> float:
    return float(np.abs(np.array(actual, dtype=np.float64) - expected).max())


def test_ar_logits_are_the_reference_s(pair):
    model, reference = pair
    text = tiny.prompt(1, 60, 60)
    assert difference(model(ids(text))[0], reference.ar_logits(text)) < TOLERANCE


def test_ar_logits_through_the_cache_are_the_reference_s(pair):
    model, reference = pair
    text = tiny.prompt(2, 60, 60)
    cache = KVCache(len(model.layers))
    rows, start = [], 0
    for length in (7, 1, 19, 32, 1):
        rows.append(model(ids(text[start : start + length]), cache)[0])
        cache.commit(length)
        start += length
    assert difference(mx.concatenate(rows), reference.ar_logits(text)) < TOLERANCE


@pytest.mark.parametrize("known", [0, 1, 40])
def test_diffusion_logits_are_the_reference_s(pair, known):
    model, reference = pair
    text = tiny.prompt(3, known + 1, 60)
    block = [text[-1]] + [model.args.mask_token_id] * 15
    cache = KVCache(len(model.layers))
    if known:
        model(ids(text[:-1]), cache)
        cache.commit(known)
    actual = model(ids(block), cache, view=DIFFUSION)[0]
    assert difference(actual, reference.diffusion_logits(text[:-1], block)) < TOLERANCE


def test_the_diffusion_view_leaves_the_ar_view_s_cache_alone(pair):
    model, reference = pair
    text = tiny.prompt(4, 30, 60)
    cache = KVCache(len(model.layers))
    model(ids(text[:20]), cache)
    cache.commit(20)
    model(ids(text[20:]), cache, view=DIFFUSION)
    assert difference(model(ids(text[20:]), cache)[0], reference.ar_logits(text)[20:]) < TOLERANCE


CHOICES = {
    "greedy": {},
    "T 0.6": {"temperature": 0.6},
    "T 1.0, top_p": {"temperature": 1.0, "top_p": 0.8},
    "T 1.3, min_p": {"temperature": 1.3, "min_p": 0.1},
    "T 0.8, top_p, min_p, top_k": {"temperature": 0.8, "top_p": 0.95, "min_p": 0.02, "top_k": 10},
}


@pytest.mark.parametrize("chosen", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("block_size", [1, 3, 16])
def test_the_cycle_emits_the_reference_s_tokens_and_accepts_the_same_drafts(chosen, block_size):
    settings = tiny.config()
    seed, length = 17, 18
    accepted = 0
    for model_seed in range(2):
        drawn = tiny.weights(settings, model_seed)
        model, reference = tiny.build(settings, drawn), Reference(settings, drawn)
        text = tiny.prompt(model_seed, 9)

        def noise(position: int) -> np.ndarray:
            return np.array(gumbel(position_keys(seed, position, 1), settings["vocab_size"])[0], dtype=np.float64)

        temperature = chosen.get("temperature", 0.0)
        filters = {k: v for k, v in chosen.items() if k != "temperature"}
        expected = reference.decode(text, length, block_size, rule_a(temperature, noise, **filters))
        stats = DecodeStats()
        mode = {"mode": "ar"} if block_size == 1 else {"mode": "diffusion", "block_size": block_size}
        tokens = list(mlx_generate(model, text, None, length, temperature, seed=seed, stats=stats, **filters, **mode))
        assert tokens == expected.tokens
        assert (stats.cycles, stats.drafted) == (len(expected.drafted), sum(expected.drafted))
        assert stats.accepted == sum(expected.accepted)
        accepted += stats.accepted
    assert accepted > 0 or block_size == 1


def test_parameter_shapes_are_those_of_the_model():
    for changes in VARIANTS.values():
        args = ModelArgs.from_dict(tiny.config(**changes))
        built = {name: p.shape for name, p in tree_flatten(Model(args).parameters())}
        assert parameter_shapes(args) == built
    plain = ModelArgs.from_dict(tiny.plain_config())
    assert not [name for name in parameter_shapes(plain) if "_diff" in name]
