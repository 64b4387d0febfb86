"""Rule A: what a position draws depends on its logits, the seed and the position; filters are mlx-lm's."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm import sample_utils

from orthrus_mlx.errors import RequestError
from orthrus_mlx.sampling import (
    Sampling,
    exclude_top_choices,
    fresh_seed,
    gumbel,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    log_softmax,
    position_keys,
)

VOCABULARY = 50


def random_logits(rows: int, seed: int = 0, scale: float = 2.0, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.array(scale * np.random.default_rng(seed).standard_normal((rows, VOCABULARY))).astype(dtype)


SETTINGS = {
    "greedy": Sampling(),
    "T": Sampling(temperature=0.7, seed=3),
    "top_p": Sampling(temperature=0.7, top_p=0.8, seed=3),
    "min_p": Sampling(temperature=1.0, min_p=0.1, seed=3),
    "top_k": Sampling(temperature=1.0, top_k=4, seed=3),
    "xtc": Sampling(temperature=1.0, xtc_probability=0.5, xtc_threshold=0.02, xtc_special_tokens=(1, 2), seed=3),
}


@pytest.mark.parametrize("sampling", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16], ids=str)
def test_a_row_draws_the_same_token_alone_and_in_any_block(sampling, dtype):
    logits = random_logits(32, dtype=dtype)
    together = sampling.choose(logits, 100).tolist()
    assert together == [sampling.choose(logits[i : i + 1], 100 + i).item() for i in range(32)]
    for start, rows in ((3, 5), (17, 2), (0, 31)):
        assert sampling.choose(logits[start : start + rows], 100 + start).tolist() == together[start : start + rows]


def test_noise_depends_on_seed_and_position_alone():
    assert mx.array_equal(gumbel(position_keys(7, 40, 9), 33)[4], gumbel(position_keys(7, 44, 1), 33)[0])
    draws = {tuple(gumbel(position_keys(s, p, 1), 4)[0].tolist()) for s in range(20) for p in range(20)}
    assert len(draws) == 400, "two (seed, position) pairs share their noise"
    assert len({tuple(k) for s in (0, 1) for k in position_keys(s, 2**31, 3).tolist()}) == 6


def test_noise_is_mlx_s_gumbel_of_the_key_seed_position():
    for seed, position in ((0, 0), (5, 1), (2**32 - 1, 2**20)):
        expected = mx.random.gumbel((11,), key=mx.array([seed, position], dtype=mx.uint32))
        assert mx.array_equal(gumbel(position_keys(seed, position, 1), 11)[0], expected)


def test_greedy_takes_the_first_of_equals_and_ignores_filters():
    logits = mx.array([[1.0, 3.0, 3.0, 2.0]])
    filters = {"top_k": 1, "top_p": 0.1, "min_p": 0.9, "xtc_probability": 1.0, "xtc_threshold": 0.1}
    assert Sampling(**filters).choose(logits, 5).item() == 1


def test_the_lowest_temperature_is_nearly_greedy_and_the_choice_is_never_a_dropped_token():
    logits = random_logits(64, scale=5)
    least = Sampling(temperature=1e-6, seed=1).choose(logits, 0)
    assert mx.array_equal(least, mx.argmax(logits, axis=-1))
    kept = Sampling(temperature=50.0, top_k=3, seed=1)
    chosen = kept.choose(logits, 0)
    assert mx.all(mx.take_along_axis(kept.filter(logits, 0), chosen[:, None], axis=-1) > -math.inf)


# Filters, against mlx-lm's --------------------------------------------------------------------------


def same(ours: mx.array, theirs: mx.array) -> bool:
    return bool(mx.array_equal(ours, theirs))


@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_filters_are_mlx_lm_s(scale):
    logprobs = log_softmax(random_logits(200, scale=scale))
    for top_p in (0.01, 0.3, 0.9, 0.999):
        assert same(keep_top_p(logprobs, top_p), sample_utils.apply_top_p(logprobs, top_p)), top_p
    for min_p in (1e-3, 0.05, 0.5, 1.0):
        for least in (1, 4):
            assert same(keep_min_p(logprobs, min_p, least), sample_utils.apply_min_p(logprobs, min_p, least)), min_p
    for top_k in (1, 7, VOCABULARY - 1):
        assert same(keep_top_k(logprobs, top_k), sample_utils.apply_top_k(logprobs, top_k)), top_k
    for threshold in (0.0, 0.02, 0.1, 0.5):
        for special in ((), (3, 10)):
            theirs = sample_utils.apply_xtc(logprobs, 1.0, threshold, list(special))
            assert same(exclude_top_choices(logprobs, threshold, special), theirs), (threshold, special)


def test_filters_apply_in_mlx_lm_s_order():
    logits = random_logits(100)
    ours = Sampling(temperature=1.0, top_p=0.9, min_p=0.02, top_k=12, xtc_probability=1.0, xtc_threshold=0.04)
    expected = sample_utils.apply_top_p(log_softmax(logits), 0.9)
    expected = sample_utils.apply_min_p(expected, 0.02, 1)
    expected = sample_utils.apply_xtc(expected, 1.0, 0.04, [])
    assert same(ours.filter(logits, 9), sample_utils.apply_top_k(expected, 12))


@given(
    values=st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0]), min_size=2, max_size=12),
    top_p=st.floats(0.01, 0.99),
    min_p=st.floats(0.01, 1.0),
    top_k=st.integers(1, 11),
)
def test_filters_keep_what_their_definitions_keep_ties_included(values, top_p, min_p, top_k):
    logprobs = log_softmax(mx.array([values]))
    p = np.exp(np.array(logprobs[0], dtype=np.float64))

    def kept(filtered: mx.array) -> set[int]:
        return {i for i, v in enumerate(filtered[0].tolist()) if v > -math.inf}

    mass_above = np.array([p[p > x].sum() for x in p])
    certain = set(np.flatnonzero(mass_above < top_p - 1e-5))
    possible = set(np.flatnonzero(mass_above < top_p + 1e-5))
    # The nucleus is the shortest row of likeliest tokens that reaches top_p, and whatever equals its last one.
    assert certain <= kept(keep_top_p(logprobs, top_p)) <= possible
    assert kept(keep_min_p(logprobs, min_p)) in [
        set(np.flatnonzero(p >= min_p * p.max() * (1 + slack))) for slack in (-1e-5, 0, 1e-5)
    ]
    if top_k < len(values):
        best = kept(keep_top_k(logprobs, top_k))
        assert len(best) == top_k
        assert min(p[list(best)]) >= max((x for i, x in enumerate(p) if i not in best), default=0.0)


def test_extremes_of_the_filters_switch_them_off():
    assert not Sampling(temperature=1.0, top_p=0.0).filtered
    assert not Sampling(temperature=1.0, top_p=1.0, min_p=0.0, top_k=0).filtered
    logits = random_logits(4)
    for top_k in (VOCABULARY, VOCABULARY + 100):
        assert same(Sampling(temperature=1.0, top_k=top_k).filter(logits, 0), log_softmax(logits))
    kept = keep_min_p(log_softmax(logits), 1.0, VOCABULARY + 5)
    assert same(kept, log_softmax(logits))


def test_xtc_flips_one_coin_per_position_whatever_the_block():
    rows = 2000
    sampling = Sampling(temperature=1.0, xtc_probability=0.3, xtc_threshold=0.01, seed=11)
    logits = mx.broadcast_to(random_logits(1), (rows, VOCABULARY))
    filtered = sampling.filter(logits, 50)
    hit = mx.any(filtered == -math.inf, axis=-1)
    share = hit.astype(mx.float32).mean().item()
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / rows)
    for start, count in ((0, 1), (7, 32), (1990, 10)):
        alone = sampling.filter(logits[start : start + count], 50 + start)
        assert same(alone, filtered[start : start + count])
    other = Sampling(temperature=1.0, xtc_probability=0.3, xtc_threshold=0.01, seed=12).filter(logits, 50)
    assert not same(other, filtered)


def test_the_xtc_coin_is_independent_of_the_noise_of_its_position():
    rows = 4000
    sampling = Sampling(temperature=1.0, xtc_probability=0.5, xtc_threshold=0.01, seed=5)
    hit = mx.any(sampling.filter(mx.broadcast_to(random_logits(1), (rows, VOCABULARY)), 0) == -math.inf, axis=-1)
    noise = gumbel(position_keys(5, 0, rows), VOCABULARY)
    hit = np.array(hit, dtype=bool)
    for column in (0, 1, VOCABULARY - 1):
        values = np.array(noise[:, column])
        difference = values[hit].mean() - values[~hit].mean()
        assert abs(difference) < 4 * values.std() * math.sqrt(4 / rows), column


# Parameters -----------------------------------------------------------------------------------------

BAD = {
    "temperature": ([-0.1, math.nan, math.inf, 1e-9, "hot", None], "temperature must be 0, or at least 1e-6"),
    "top_p": ([-0.1, 1.1, math.nan, "x"], r"top_p must be in 0\.\.1"),
    "min_p": ([-0.1, 1.1, math.nan], r"min_p must be in 0\.\.1"),
    "min_tokens_to_keep": ([0, -1, 1.5], "min_tokens_to_keep must be an integer, at least 1"),
    "top_k": ([-1, 2.5, "x"], "top_k must be an integer, at least 0"),
    "xtc_probability": ([-0.1, 1.1], r"xtc_probability must be in 0\.\.1"),
    "xtc_threshold": ([-0.1, 0.6], r"xtc_threshold must be in 0\.\.0\.5"),
    "seed": ([-1, 2**32, 1.5, "x"], r"seed must be an integer, in 0\.\.4294967295"),
}


@pytest.mark.parametrize("name, value", [(name, value) for name, (values, _) in BAD.items() for value in values])
def test_a_parameter_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(RequestError, match=BAD[name][1]) as caught:
        Sampling(**{name: value})
    assert repr(value) in str(caught.value)


def test_numpy_numbers_are_numbers():
    sampling = Sampling(temperature=np.float32(0.5), top_k=np.int64(3), seed=np.uint32(7), top_p=np.float64(0.9))
    plain = Sampling(temperature=0.5, top_k=3, seed=7, top_p=0.9)
    logits = random_logits(8)
    assert same(sampling.choose(logits, 0), plain.choose(logits, 0))


def test_fresh_seeds_differ_and_follow_mlx_s_global_seed():
    mx.random.seed(1)
    first = [fresh_seed() for _ in range(20)]
    mx.random.seed(1)
    assert first == [fresh_seed() for _ in range(20)]
    assert len(set(first)) == 20
