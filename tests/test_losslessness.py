"""Block decoding emits one-token decoding's tokens: the same, not nearly, whatever the settings."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.sample_utils import make_logits_processors, make_sampler

from orthrus_mlx import generation
from orthrus_mlx.cache import KVCache
from orthrus_mlx.decoding.stats import DecodeStats
from orthrus_mlx.decoding.steps import AR, CHAIN, NGRAM, TREE, Candidates, Draft, Outcome, Situation, Step
from orthrus_mlx.exactness import exactness_of
from orthrus_mlx.generation import mlx_generate, stream_generate
from orthrus_mlx.model import Model

LENGTH = 12

FILTERS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "T 0.6": {"temperature": 0.6},
    "T 1.5": {"temperature": 1.5},
    "top_p": {"temperature": 1.0, "top_p": 0.9},
    "min_p": {"temperature": 0.8, "min_p": 0.05, "min_tokens_to_keep": 3},
    "top_k": {"temperature": 1.0, "top_k": 8},
    "all, XTC": {
        "temperature": 1.2,
        "top_p": 0.98,
        "min_p": 0.01,
        "top_k": 20,
        "xtc_probability": 0.5,
        "xtc_threshold": 0.05,
        "xtc_special_tokens": (3,),
    },
}
BLOCK_SIZES = (2, 5, 16, 32)
LIKENESS = (2.0, 4.0, 8.0)
VARIANTS = [
    *(("none", dtype) for dtype in tiny.DTYPES),
    *itertools.product([q for q in tiny.QUANTIZATIONS if q != "none"], ("float32", "bfloat16")),
]


@dataclass(frozen=True)
class Case:
    """One setting of a run; `which` picks the prompt and the seed."""

    quantization: str
    dtype: str
    filters: str
    which: int

    def model(self) -> Model:
        # One model a variant, drafting better in one than in the other; a layer less where kernels are slow.
        kind = VARIANTS.index((self.quantization, self.dtype)) % len(LIKENESS)
        layers = 2 if self.quantization == "none" else 1
        return tiny.tiny_model(kind, LIKENESS[kind], self.dtype, self.quantization, num_hidden_layers=layers)

    def run(self, **mode: Any) -> tuple[list[int], DecodeStats]:
        stats = DecodeStats()
        prompt = tiny.prompt(self.which, (1, 7, 18)[self.which])
        options = {**FILTERS[self.filters], **mode, "stats": stats, "seed": 1000 + self.which}
        return list(mlx_generate(self.model(), prompt, None, LENGTH, **options)), stats


CASES = [Case(*v, f, w) for v, f, w in itertools.product(VARIANTS, FILTERS, range(3))]
COMBINATIONS = [(case, block_size) for case in CASES for block_size in BLOCK_SIZES]


class Tally:
    """Combinations compared so far."""

    def __init__(self) -> None:
        self.compared = self.accepted = self.drafted = 0

    def count(self, *all_stats: DecodeStats) -> None:
        for stats in all_stats:
            self.compared += 1
            self.accepted += stats.accepted
            self.drafted += stats.drafted


@pytest.fixture(scope="module")
def tally(summary):
    counted = Tally()
    yield counted
    summary.append(
        f"losslessness: {counted.compared} combinations compared with one-token decoding, all equal "
        f"({counted.accepted} of {counted.drafted} drafts accepted)"
    )


def test_there_are_at_least_a_thousand_different_combinations():
    assert len(set(COMBINATIONS)) == len(COMBINATIONS) >= 1000


@pytest.mark.parametrize("quantization, dtype", VARIANTS, ids=lambda v: v)
def test_diffusion_and_auto_emit_the_tokens_of_ar(quantization, dtype, tally):
    accepted = rejected = 0
    for case in CASES:
        if (case.quantization, case.dtype) != (quantization, dtype):
            continue
        expected, _ = case.run(mode="ar")
        assert len(expected) == LENGTH
        for block_size in BLOCK_SIZES:
            tokens, stats = case.run(mode="diffusion", block_size=block_size)
            assert tokens == expected, f"{case}, block_size {block_size}"
            tally.count(stats)
            accepted += stats.accepted
            rejected += stats.drafted - stats.accepted
        if case.which == 1:
            tokens, stats = case.run(mode="auto")
            assert tokens == expected, f"{case}, auto"
            tally.count(stats)
    assert accepted > 100, "the drafts of this model are never right: nothing was proved"
    assert rejected > 100, "the drafts of this model are never wrong: nothing was proved"


def test_every_variant_of_the_models_is_row_exact_here():
    for case in CASES:
        assert exactness_of(case.model()).kind == "row-exact", case


def test_log_probabilities_have_the_same_bits_in_every_mode():
    for dtype in tiny.DTYPES:
        model = tiny.tiny_model(1, dtype=dtype)
        prompt = tiny.prompt(0, 9)

        def run(mode, model=model, prompt=prompt):
            return list(stream_generate(model, tiny.text_tokenizer(), prompt, 24, temperature=0.9, seed=5, mode=mode))

        for ar, block in zip(run("ar"), run("diffusion"), strict=True):
            assert ar.token == block.token
            assert ar.logprobs.dtype == block.logprobs.dtype
            assert mx.array_equal(ar.logprobs, block.logprobs)


@settings(max_examples=40)
@given(
    prompt=st.lists(st.integers(0, tiny.VOCABULARY - 1), min_size=1, max_size=40),
    length=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
    temperature=st.one_of(st.just(0.0), st.floats(0.05, 3.0)),
    top_p=st.floats(0, 1),
    min_p=st.floats(0, 0.5),
    top_k=st.integers(0, 70),
    xtc_probability=st.floats(0, 1),
    block_size=st.integers(2, 32),
    step=st.integers(1, 50),
    stop=st.sets(st.integers(0, tiny.VOCABULARY - 1), max_size=3),
    which=st.integers(0, 2),
)
def test_any_request_is_lossless(prompt, length, seed, block_size, step, stop, which, tally, **filters):
    model = tiny.tiny_model(which, LIKENESS[which])
    stats = DecodeStats()

    def run(**mode):
        return list(mlx_generate(model, prompt, stop, length, seed=seed, prefill_step_size=step, **filters, **mode))

    assert run(mode="diffusion", block_size=block_size, stats=stats) == run(mode="ar")
    tally.count(stats)


# User code in the choice ----------------------------------------------------------------------------


class CountedCalls:
    """An opaque, stateful processor: its answer depends on how often it was called, and it remembers all it saw."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        self.seen.append(tokens.tolist())
        shift = mx.arange(logits.shape[-1]) == (7 * len(self.seen)) % logits.shape[-1]
        return logits + 6 * shift.astype(logits.dtype)


PROCESSORS = {
    "repetition": lambda: make_logits_processors(repetition_penalty=1.6, repetition_context_size=8),
    "presence": lambda: make_logits_processors(presence_penalty=1.5),
    "frequency": lambda: make_logits_processors(frequency_penalty=0.8, frequency_context_size=30),
    "logit bias": lambda: make_logits_processors(logit_bias={3: 2.0, 40: -5.0, 9: 1.0}),
    "all four": lambda: make_logits_processors({3: 1.0, 5: -1.0}, 1.3, 20, 0.5, 20, 0.4, 20),
    "stateful": lambda: [CountedCalls()],
    "stateful and penalties": lambda: [*make_logits_processors(repetition_penalty=1.4), CountedCalls()],
}


@pytest.mark.parametrize("make", PROCESSORS.values(), ids=PROCESSORS)
@pytest.mark.parametrize("filters", ["greedy", "T 0.6", "all, XTC"])
def test_logits_processors_change_tokens_alike_in_every_mode(make, filters, tally):
    changed = 0
    for which in range(2):
        model, prompt = tiny.tiny_model(which, LIKENESS[which + 1]), tiny.prompt(which, 11)

        def run(model=model, prompt=prompt, **options):
            return list(mlx_generate(model, prompt, None, 14, seed=3, **FILTERS[filters], **options))

        expected = run(mode="ar", logits_processors=make())
        changed += expected != run(mode="ar")
        for block_size in (3, 16):
            stats = DecodeStats()
            tokens = run(mode="diffusion", block_size=block_size, logits_processors=make(), stats=stats)
            assert tokens == expected
            tally.count(stats)
    assert changed, "the processor changed nothing: nothing was proved"


def test_processors_see_the_prompt_and_every_token_before_their_row_and_nothing_rejected():
    model, prompt = tiny.tiny_model(0), tiny.prompt(1, 6)
    for mode in ("ar", "diffusion", "auto"):
        processor = CountedCalls()
        stats = DecodeStats()
        options = {"mode": mode, "block_size": 8, "logits_processors": [processor], "stats": stats}
        tokens = list(mlx_generate(model, prompt, None, 20, 0.6, seed=2, **options))
        assert processor.seen == [prompt + tokens[:i] for i in range(20)]
        assert mode != "diffusion" or stats.drafted > stats.accepted > 0


SAMPLERS = {
    "greedy": {"temp": 0.0},
    "T 0.7": {"temp": 0.7},
    "filters": {"temp": 1.0, "top_p": 0.9, "min_p": 0.02, "top_k": 20},
    "XTC": {"temp": 1.0, "xtc_probability": 0.5, "xtc_threshold": 0.05},
}


@pytest.mark.parametrize("settings", SAMPLERS.values(), ids=SAMPLERS)
def test_an_mlx_lm_sampler_draws_the_same_tokens_in_every_mode(settings, tally):
    model, prompt = tiny.tiny_model(2, 8.0), tiny.prompt(2, 11)

    def run(**options):
        mx.random.seed(11)
        return list(mlx_generate(model, prompt, None, 24, sampler=make_sampler(**settings), **options))

    expected = run(mode="ar")
    for block_size in (2, 7, 32):
        stats = DecodeStats()
        assert run(mode="diffusion", block_size=block_size, stats=stats) == expected
        tally.count(stats)
    assert run(mode="auto") == expected


def test_an_opaque_sampler_is_called_once_per_emitted_token():
    model, prompt = tiny.tiny_model(1), tiny.prompt(1, 6)
    for mode in ("ar", "diffusion"):
        calls: list[tuple[int, ...]] = []

        def sampler(logprobs, calls=calls):
            calls.append(logprobs.shape)
            return mx.array([(13 * len(calls)) % tiny.VOCABULARY]) if len(calls) % 3 else mx.argmax(logprobs, axis=-1)

        tokens = list(mlx_generate(model, prompt, None, 20, mode=mode, sampler=sampler))
        assert len(tokens) == len(calls) == 20
        assert set(calls) == {(1, tiny.VOCABULARY)}


# Text and caches ------------------------------------------------------------------------------------


def test_stop_strings_end_every_mode_at_the_same_token_and_character(tally):
    model, tokenizer = tiny.text_model(1), tiny.text_tokenizer()
    stopped = 0
    for seed in range(8):
        prompt = tiny.prompt(seed, 9, 250)

        def run(prompt=prompt, seed=seed, **options):
            options = {"temperature": 1.0, "seed": seed, **options}
            responses = list(stream_generate(model, tokenizer, prompt, 30, **options))
            return [r.token for r in responses], "".join(r.text for r in responses), responses[-1].finish_reason

        text = run(mode="ar")[1]
        if len(text) < 12:
            continue
        for stop in ([text[5:6]], [text[4:8]], [text[3:9], "never"], [text[8:10], text[7:12]]):
            expected = run(mode="ar", stop=stop)
            assert expected[2] == "stop"
            for block_size in (4, 32):
                stats = DecodeStats()
                assert run(mode="diffusion", block_size=block_size, stop=stop, stats=stats) == expected
                tally.count(stats)
                stopped += 1
    assert stopped >= 32


@pytest.mark.parametrize("modes", itertools.product(["ar", "diffusion", "auto"], repeat=2), ids="-".join)
def test_turns_over_one_cache_are_those_of_one_token_decoding(modes, tally):
    model = tiny.tiny_model(0, 4.0)

    def chat(modes: Sequence[str]) -> tuple[list[list[int]], KVCache, DecodeStats]:
        cache, turns, stats = KVCache(len(model.layers)), [], DecodeStats()
        for turn, mode in enumerate([*modes, modes[0]]):
            prompt = tiny.prompt(turn, 4 + turn)
            options = {"mode": mode, "seed": 4, "prompt_cache": cache, "stats": stats}
            turns.append(list(mlx_generate(model, prompt, {3, 9}, 14, 0.8, **options)))
        return turns, cache, stats

    expected, ar_cache, _ = chat(["ar", "ar"])
    turns, cache, stats = chat(modes)
    assert turns == expected
    assert cache.offset == ar_cache.offset
    for ours, theirs in zip(cache.arrays, ar_cache.arrays, strict=True):
        assert mx.array_equal(ours[..., : cache.offset, :], theirs[..., : cache.offset, :])
    tally.count(stats)


@pytest.mark.parametrize("block_size", [1, 2, 5, 32])
def test_closed_after_any_token_a_second_call_goes_on_as_if_never_interrupted(block_size, tally):
    model, prompt, length = tiny.tiny_model(0, 8.0), tiny.prompt(0, 7), 20
    mode = {"mode": "ar"} if block_size == 1 else {"mode": "diffusion", "block_size": block_size}
    whole = list(mlx_generate(model, prompt, None, length, 0.8, seed=6, mode="ar"))
    for taken in range(1, length + 1):
        cache, stats = KVCache(len(model.layers)), DecodeStats()
        tokens = mlx_generate(model, prompt, None, length, 0.8, seed=6, prompt_cache=cache, stats=stats, **mode)
        first = list(itertools.islice(tokens, taken))
        tokens.close()
        assert first == whole[:taken]
        assert cache.offset == len(prompt) + taken
        cache.trim(1)
        rest = mlx_generate(model, first[-1:], None, length - taken + 1, 0.8, seed=6, prompt_cache=cache, **mode)
        assert list(rest)[: length - taken] == whole[taken:]
        tally.count(stats)


class Whims:
    """A policy that does some things, then others, whatever it sees: chains, trees of random shape, single steps."""

    learns = True
    prediction = None

    def __init__(self, steps: Sequence[Step], seed: int) -> None:
        self.answers = itertools.cycle(steps)
        self.rng = random.Random(seed)
        self.trees = 0

    def step(self, situation: Situation) -> Step:
        return next(self.answers)

    def shape(self, step: Step, draft: Draft, situation: Situation) -> Candidates:
        tokens: list[int] = []
        parents: list[int] = []
        levels: list[int] = []
        for _ in range(step.verify_rows - 1):
            parent = self.rng.randrange(-1, len(tokens))
            level = levels[parent] + 1 if parent >= 0 else 0
            taken = {tokens[i] for i, p in enumerate(parents) if p == parent}
            free = [t for t in draft.tokens[level] if t not in taken] if level < len(draft.tokens) else []
            if free:
                tokens.append(free[0])
                parents.append(parent)
                levels.append(level)
        self.trees += parents != list(range(-1, len(parents) - 1))
        return Candidates(tuple(tokens), tuple(parents))

    def observe(self, outcome: Outcome) -> None:
        assert 1 <= outcome.tokens <= outcome.rows
        assert 0 <= outcome.accepted <= outcome.drafts
        assert len(outcome.confidences) in (0, outcome.drafts)
        assert all(0 <= c <= 1.001 for c in outcome.confidences)


STEPS = st.one_of(
    st.just(Step(AR)),
    st.builds(Step, st.just(CHAIN), st.integers(2, 32), st.integers(2, 32), st.booleans()),
    st.builds(Step, st.just(TREE), st.integers(2, 32), st.integers(2, 32), st.just(True)),
    st.builds(Step, st.just(NGRAM), st.just(0), st.integers(2, 32)),
)


@settings(max_examples=30)
@given(
    steps=st.lists(STEPS, min_size=1, max_size=12),
    shapes=st.integers(0, 100),
    filters=st.sampled_from(["greedy", "T 0.6", "all, XTC"]),
    block_size=st.integers(2, 32),
    which=st.integers(0, 2),
)
def test_any_policy_leaves_the_tokens_alone(steps, shapes, filters, block_size, which, tally):
    model, prompt, stats = tiny.tiny_model(which, LIKENESS[which]), tiny.prompt(which, 9), DecodeStats()
    options = {"seed": 8, **FILTERS[filters]}
    expected = list(mlx_generate(model, prompt, None, 20, mode="ar", **options))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "make_policy", lambda *args, **kwargs: Whims(steps, shapes))
        options |= {"mode": "auto", "block_size": block_size, "stats": stats}
        assert list(mlx_generate(model, prompt, None, 20, **options)) == expected
    tally.count(stats)


@settings(max_examples=20)
@given(which=st.integers(0, 2), end=st.integers(0, 19), kind=st.sampled_from([CHAIN, TREE]))
def test_a_draft_is_offered_as_far_as_the_text_may_go_and_the_first_token_told(which, end, kind):
    class Reader(Whims):
        def step(self, situation: Situation) -> Step:
            told.append(situation.first)
            return super().step(situation)

        def shape(self, step: Step, draft: Draft, situation: Situation) -> Candidates:
            drafts.append([candidates[0] for candidates in draft.tokens])
            chain = tuple(drafts[-1][: step.verify_rows - 1])
            return Candidates(chain, tuple(range(-1, len(chain) - 1)))

    model, prompt = tiny.tiny_model(which, LIKENESS[which]), tiny.prompt(which, 9)
    whole = list(mlx_generate(model, prompt, None, 20, mode="ar"))
    stop = whole[end]
    told: list[int | None] = []
    drafts: list[list[int]] = []
    with pytest.MonkeyPatch.context() as patch:
        steps = [Step(AR), Step(kind, 12, 12, True)]
        patch.setattr(generation, "make_policy", lambda *args, **kwargs: Reader(steps, 0))
        found = list(mlx_generate(model, prompt, stop, 20))
    assert found == whole[: whole.index(stop)]
    assert all(stop not in draft[:-1] for draft in drafts)
    assert told[0] is None and set(told[2:]) <= {whole[0]}


@pytest.mark.parametrize("filters", ["greedy", "T 0.6"])
def test_trees_are_verified_on_every_path_and_leave_the_cache_of_one_token_decoding(filters, tally):
    for which in range(3):
        model, prompt = tiny.tiny_model(which, LIKENESS[which]), tiny.prompt(which, 9)
        caches = KVCache(len(model.layers)), KVCache(len(model.layers))
        options = {"seed": 5, **FILTERS[filters]}
        expected = list(mlx_generate(model, prompt, None, 40, mode="ar", prompt_cache=caches[0], **options))
        policy, stats = Whims([Step(TREE, 12, 16, True)], which), DecodeStats()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generation, "make_policy", lambda *args, policy=policy, **kwargs: policy)
            tokens = list(mlx_generate(model, prompt, None, 40, prompt_cache=caches[1], stats=stats, **options))
        assert tokens == expected
        assert policy.trees and stats.steps["tree"] and stats.accepted
        for ours, theirs in zip(caches[1].arrays, caches[0].arrays, strict=True):
            assert mx.array_equal(ours[..., : caches[0].offset, :], theirs[..., : caches[0].offset, :])
        tally.count(stats)


def test_a_diffusion_view_of_another_dtype_leaves_the_tokens_alone(tally):
    # The first rows ever staged are the draft's when the prompt is one token: they must not choose the cache's dtype.
    for dtype, length in ((mx.float32, 1), (mx.float16, 1), (mx.float32, 250)):
        for seed in range(2):
            config = tiny.config()
            model = tiny.build(config, tiny.weights(config, seed), "bfloat16")
            for layer in model.layers:
                attention = layer.self_attn
                for name in [n for n in attention if n.endswith("_diff")]:
                    attention[name].weight = attention[name].weight.astype(dtype)
            prompt, stats = tiny.prompt(seed, length), DecodeStats()
            expected = list(mlx_generate(model, prompt, None, 30, 1.0, seed=seed, mode="ar"))
            assert (
                list(mlx_generate(model, prompt, None, 30, 1.0, seed=seed, mode="diffusion", stats=stats)) == expected
            )
            tally.count(stats)


LONG = 270
"""Past the first growth of the cache."""


@functools.cache
def long_answer(which: int, filters: str) -> list[int]:
    """One-token decoding's answer, the same for every block size."""
    model, prompt = tiny.tiny_model(which, LIKENESS[which]), tiny.prompt(which, 30)
    return list(mlx_generate(model, prompt, None, LONG, mode="ar", seed=1, **FILTERS[filters]))


@pytest.mark.slow
@pytest.mark.parametrize("block_size", [2, 3, 4, 6, 7, 9, 12, 15, 17, 24, 31, 32])
def test_long_answers_are_lossless_at_every_block_size(block_size, tally):
    for which, filters in itertools.product(range(3), ("greedy", "T 0.6", "all, XTC")):
        model, prompt, stats = tiny.tiny_model(which, LIKENESS[which]), tiny.prompt(which, 30), DecodeStats()
        options = {"seed": 1, "block_size": block_size, "stats": stats, **FILTERS[filters]}
        tokens = list(mlx_generate(model, prompt, None, LONG, mode="diffusion", **options))
        assert tokens == long_answer(which, filters)
        tally.count(stats)
