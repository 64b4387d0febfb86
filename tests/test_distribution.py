"""Sampled tokens have the distribution that was asked for, and coupled drafts agree nearly as often as any could."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import mlx.core as mx
import numpy as np
import pytest
import tiny
from mlx_lm.sample_utils import make_sampler

from orthrus_mlx.cache import KVCache
from orthrus_mlx.generation import mlx_generate, stream_generate
from orthrus_mlx.model import DIFFUSION
from orthrus_mlx.sampling import Sampling, log_softmax

SIGMAS = 4.5
"""How far chance may go: one test in 300,000 would fail by it, and the seeds are fixed."""


def chi_square_is_plausible(observed: np.ndarray, expected: np.ndarray) -> bool:
    """Pearson's test of counts against expected counts, rare cells pooled.

    The normal approximation of Wilson and Hilferty (1931): (X / k)^(1/3) has mean 1 - 2/9k and variance 2/9k.
    """
    assert observed[expected == 0].sum() == 0, "a token of probability zero was drawn"
    common = expected >= 8
    observed, expected = (np.append(x[common], x[~common].sum()) for x in (observed, expected))
    if expected[-1] < 8:
        observed, expected = (np.append(x[:-2], x[-2:].sum()) for x in (observed, expected))
    k = len(expected) - 1
    if k == 0:
        return True
    statistic = float(((observed - expected) ** 2 / expected).sum())
    spread = 2 / (9 * k)
    return ((statistic / k) ** (1 / 3) - (1 - spread)) / math.sqrt(spread) < SIGMAS


def two_samples_are_plausible(a: np.ndarray, b: np.ndarray) -> bool:
    """The same for two samples of counts: both against their mixture."""
    both = a + b
    pooled = np.where(both < 16)[0]
    keep = np.where(both >= 16)[0]
    a, b = np.append(a[keep], a[pooled].sum()), np.append(b[keep], b[pooled].sum())
    both = a + b
    share = a.sum() / both.sum()
    filled = both > 0
    expected = np.concatenate([both[filled] * share, both[filled] * (1 - share)])
    statistic = float(((np.concatenate([a[filled], b[filled]]) - expected) ** 2 / expected).sum())
    k = int(filled.sum()) - 1
    spread = 2 / (9 * k)
    return ((statistic / k) ** (1 / 3) - (1 - spread)) / math.sqrt(spread) < SIGMAS


def test_the_test_of_distributions_can_fail():
    rng = np.random.default_rng(0)
    p = np.array([0.4, 0.3, 0.2, 0.1])
    right, wrong = rng.multinomial(5000, p), rng.multinomial(5000, [0.47, 0.25, 0.18, 0.1])
    assert chi_square_is_plausible(right, 5000 * p)
    assert not chi_square_is_plausible(wrong, 5000 * p)
    assert two_samples_are_plausible(right, rng.multinomial(8000, p))
    assert not two_samples_are_plausible(right, wrong)


FILTERS = {
    "T 1": {"temperature": 1.0},
    "T 0.6": {"temperature": 0.6},
    "T 1.7": {"temperature": 1.7},
    "top_p": {"temperature": 0.9, "top_p": 0.8},
    "min_p": {"temperature": 1.2, "min_p": 0.1},
    "top_k": {"temperature": 1.0, "top_k": 6},
    "XTC": {"temperature": 1.0, "xtc_probability": 0.4, "xtc_threshold": 0.05},
    "all": {"temperature": 1.1, "top_p": 0.95, "min_p": 0.02, "xtc_probability": 0.5, "top_k": 12},
}
DRAWS = 20_000
LOGITS = mx.array(1.5 * np.random.default_rng(5).standard_normal((1, 40)))


def wanted(logits: mx.array, temperature: float, **filters) -> np.ndarray:
    """Softmax of the filtered log-probabilities over the temperature, in float64; XTC mixes its two outcomes."""
    coin = filters.pop("xtc_probability", 0.0)
    outcomes = []
    for share, probability in ((1 - coin, 0.0), (coin, 1.0)):
        kept = Sampling(temperature=temperature, xtc_probability=probability, **filters).filter(logits, 0)
        weights = np.exp(np.array(kept[0], dtype=np.float64) / temperature)
        outcomes.append(share * weights / weights.sum())
    return sum(outcomes)


def counts(tokens: mx.array, size: int) -> np.ndarray:
    return np.bincount(np.array(tokens), minlength=size)


def draw(filters: dict, seeds: int = 4) -> np.ndarray:
    rows = DRAWS // seeds
    logits = mx.broadcast_to(LOGITS, (rows, LOGITS.shape[1]))
    chosen = [Sampling(seed=s, **filters).choose(logits, 17 * s) for s in range(seeds)]
    return sum(counts(c, LOGITS.shape[1]) for c in chosen)


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
def test_draws_follow_the_filtered_softmax(filters):
    assert chi_square_is_plausible(draw(filters), DRAWS * wanted(LOGITS, **filters))


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
def test_draws_are_distributed_as_mlx_lm_s_sampler_s(filters):
    sampler = make_sampler(temp=filters["temperature"], **{k: v for k, v in filters.items() if k != "temperature"})
    logprobs = log_softmax(LOGITS)
    mx.random.seed(3)
    # mlx-lm flips one XTC coin per call, so calls stay small where there is one.
    calls, rows = (1500, 1) if "xtc_probability" in filters else (1, DRAWS)
    theirs = sum(counts(sampler(mx.broadcast_to(logprobs, (rows, 40))), 40) for _ in range(calls))
    assert two_samples_are_plausible(draw(filters), theirs)


# Through the whole of decoding ----------------------------------------------------------------------

FEW = {"temperature": 2.0, "top_k": 3}
"""Few continuations, so that many runs share a prefix and can be compared with its softmax."""


def expected_share(model, prefix: list[int]) -> np.ndarray:
    return wanted(model(mx.array([prefix]))[:, -1], **FEW)


def test_tokens_inside_accepted_blocks_follow_the_softmax_after_their_prefix():
    model, prompt, runs = tiny.tiny_model(1, 4.0), tiny.prompt(1, 2), 500
    followed: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    inside = 0
    for seed in range(runs):
        options = {"seed": seed, "mode": "diffusion", "block_size": 4}
        responses = list(stream_generate(model, tiny.text_tokenizer(), prompt, 3, **FEW, **options))
        tokens = [r.token for r in responses]
        for i, response in enumerate(responses):
            # Only rows behind an accepted draft count: those that one-token decoding computes in another pass.
            if i > 0 and responses[i - 1].from_draft:
                followed[tuple(tokens[:i])][response.token] += 1
                inside += 1
    assert inside > runs // 3
    compared = 0
    for prefix, tokens in followed.items():
        total = sum(tokens.values())
        if total < 60:
            continue
        observed = np.array([tokens[v] for v in range(tiny.VOCABULARY)])
        assert chi_square_is_plausible(observed, total * expected_share(model, [*prompt, *prefix])), prefix
        compared += 1
    assert compared >= 3, followed


def test_different_seeds_and_no_seed_give_different_texts():
    model, prompt = tiny.tiny_model(1), tiny.prompt(1, 5)
    texts = {tuple(mlx_generate(model, prompt, None, 12, 1.0, seed=s)) for s in range(20)}
    assert len(texts) == 20
    mx.random.seed(4)
    unseeded = [tuple(mlx_generate(model, prompt, None, 12, 1.0)) for _ in range(3)]
    assert len(set(unseeded)) == 3
    mx.random.seed(4)
    assert unseeded == [tuple(mlx_generate(model, prompt, None, 12, 1.0)) for _ in range(3)]


# Acceptance -----------------------------------------------------------------------------------------


def draft_and_target(model, prompt: list[int], drafts: int) -> tuple[mx.array, mx.array]:
    """Logits [drafts, V] of both views for the same positions, the target's over its own greedy text."""
    text = [*prompt, *mlx_generate(model, prompt, None, drafts, mode="ar")]
    known = len(prompt) - 1
    cache = KVCache(len(model.layers))
    model(mx.array([prompt[:-1]]), cache)
    cache.commit(known)
    block = mx.array([[prompt[-1]] + [model.args.mask_token_id] * (model.args.block_size - 1)])
    draft = model(block, cache, view=DIFFUSION)[0, :drafts]
    return draft, model(mx.array([text]))[0, known : known + drafts]


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_coupled_drafts_agree_far_oftener_than_independent_ones(temperature, summary):
    draws, drafts = 2000, 4
    agreed, independent, best, guaranteed = [], [], [], []
    for seed in range(6):
        model = tiny.tiny_model(seed % 3, (2.0, 4.0, 8.0)[seed % 3])
        for q, p in zip(*draft_and_target(model, tiny.prompt(seed, 9), drafts), strict=True):
            sampling = Sampling(temperature=temperature, seed=seed)
            ours = [sampling.choose(mx.broadcast_to(logits, (draws, tiny.VOCABULARY)), 0) for logits in (q, p)]
            agreed.append(mx.mean(ours[0] == ours[1]).item())
            q, p = (np.array(mx.softmax(x / temperature), dtype=np.float64) for x in (q, p))
            independent.append((p * q).sum())
            best.append(np.minimum(p, q).sum())
            guaranteed.append(best[-1] / (2 - best[-1]))
            chance = SIGMAS * math.sqrt(0.25 / draws)
            assert independent[-1] < agreed[-1] + chance
            assert agreed[-1] <= best[-1] + chance, "no coupling agrees oftener than sum(min(p, q))"
            # Coupling by shared Gumbel noise never falls below (1 - TV) / (1 + TV) (Daliri et al., theorem 1).
            assert agreed[-1] >= guaranteed[-1] - chance
    means = {name: float(np.mean(x)) for name, x in (("i", independent), ("g", guaranteed), ("c", agreed), ("b", best))}
    assert means["i"] < means["g"] < means["c"] < means["b"]
    summary.append(
        f"acceptance at T = {temperature}, tiny models: independent sampling {means['i']:.3f}, "
        f"shared noise (ours) {means['c']:.3f}, best possible sum(min(p, q)) {means['b']:.3f}"
    )
