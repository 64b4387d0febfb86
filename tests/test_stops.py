"""Where a generation ends: stop tokens, limits, the end of the context; and how often it waits for the device."""

from __future__ import annotations

import itertools

import mlx.core as mx
import pytest
import tiny
from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, TokenizerWrapper

from orthrus_mlx.cache import KVCache
from orthrus_mlx.decoding.stats import DecodeStats
from orthrus_mlx.errors import RequestError
from orthrus_mlx.exactness import exactness_of
from orthrus_mlx.generation import mlx_generate, stream_generate

MODES = {
    "ar": {"mode": "ar"},
    "diffusion 2": {"mode": "diffusion", "block_size": 2},
    "diffusion 7": {"mode": "diffusion", "block_size": 7},
    "diffusion": {"mode": "diffusion"},
    "auto": {"mode": "auto"},
    "stepwise": {"mode": "diffusion", "logits_processors": [lambda tokens, logits: logits]},
}
LAYERS = 2


def every_mode(test):
    return pytest.mark.parametrize("mode", MODES.values(), ids=MODES)(test)


def until(tokens: list[int], stops: set[int]) -> list[int]:
    """Tokens before the first of `stops`."""
    return list(itertools.takewhile(lambda t: t not in stops, tokens))


@every_mode
def test_any_of_several_eos_ids_ends_the_text_wherever_it_falls_and_nothing_follows(mode):
    model = tiny.tiny_model(0, 4.0)
    drafted = corrected = 0
    for seed in range(8):
        prompt = tiny.prompt(seed, 5)
        options = {"temperature": 1.2, "seed": seed, **mode}
        whole = list(mlx_generate(model, prompt, None, 30, **options))
        stops = {whole[3 + seed], whole[12 + seed]}
        shared, stats = KVCache(LAYERS), DecodeStats()
        expected = until(whole, stops)
        assert list(mlx_generate(model, prompt, stops, 30, prompt_cache=shared, stats=stats, **options)) == expected
        # The EOS is no token of the text, but one of the cache, as in mlx-lm.
        assert stats.tokens == len(expected) + 1
        assert shared.offset == len(prompt) + len(expected) + 1

        responses = list(stream_generate(model, stopping_at(stops), prompt, 30, **options))
        assert [r.token for r in responses] == whole[: len(expected) + 1]
        assert [r.finish_reason for r in responses] == [None] * len(expected) + ["stop"]
        assert responses[-1].stats.accepted == sum(r.from_draft for r in responses)
        drafted += responses[-1].from_draft
        corrected += not responses[-1].from_draft
    assert corrected
    assert drafted or mode["mode"] != "diffusion", "no EOS was ever drafted: nothing was proved"


def stopping_at(stops: set[int]):
    """A stand-in for a tokenizer with these EOS ids; its text is not looked at."""
    wrapper = TokenizerWrapper(tiny.text_tokenizer()._tokenizer, BPEStreamingDetokenizer)
    wrapper.eos_token_ids = stops
    return wrapper


@every_mode
def test_an_eos_as_the_first_token_gives_an_empty_text(mode):
    model, prompt = tiny.tiny_model(0), tiny.prompt(3, 6)
    first = next(mlx_generate(model, prompt, None))
    shared = KVCache(LAYERS)
    assert list(mlx_generate(model, prompt, first, prompt_cache=shared, **mode)) == []
    assert shared.offset == len(prompt) + 1


def test_an_eos_id_of_zero_and_an_eos_given_as_int_list_or_set_stop_alike():
    model = tiny.tiny_model(0)
    for seed in itertools.count():
        options = {"seed": seed, "temperature": 2.0, "mode": "diffusion"}
        whole = list(mlx_generate(model, [1, 2], None, 30, **options))
        if 0 in whole[1:]:
            break
    for eos in (0, [0], {0}, (0, 63), frozenset([0])):
        assert list(mlx_generate(model, [1, 2], eos, 30, **options)) == until(whole, {0})


@every_mode
def test_max_tokens_is_exact(mode):
    model, prompt = tiny.tiny_model(2, 8.0, num_hidden_layers=1), tiny.prompt(1, 6)
    whole = list(mlx_generate(model, prompt, None, 40, mode="ar"))
    assert len(whole) == 40
    for length in range(1, 41):
        shared, stats = KVCache(1), DecodeStats()
        tokens = list(mlx_generate(model, prompt, None, length, prompt_cache=shared, stats=stats, **mode))
        assert tokens == whole[:length]
        assert (stats.tokens, shared.offset) == (length, len(prompt) + length)
        assert sum(rows * n for rows, n in stats.target_rows.items()) >= length


@every_mode
def test_without_a_limit_the_text_runs_to_the_end_of_the_context(mode):
    model, prompt = tiny.tiny_model(2, 8.0, max_position_embeddings=48), tiny.prompt(1, 11)
    unbounded = tiny.tiny_model(2, 8.0)
    expected = list(mlx_generate(unbounded, prompt, None, 40, mode="ar"))[:37]

    def run(max_tokens):
        shared = KVCache(LAYERS)
        responses = list(stream_generate(model, stopping_at(set()), prompt, max_tokens, prompt_cache=shared, **mode))
        assert shared.offset == 11 + len(responses)
        return [r.token for r in responses], responses[-1].finish_reason

    assert run(-1) == (expected, "context")
    assert run(1000) == (expected, "context")
    assert run(38) == (expected, "context")
    assert run(37) == (expected, "length")
    assert run(36) == (expected[:36], "length")


@every_mode
def test_the_context_counts_what_the_cache_already_holds(mode):
    model = tiny.tiny_model(2, 8.0, max_position_embeddings=48)
    shared = KVCache(LAYERS)
    list(mlx_generate(model, tiny.prompt(1, 11), None, 20, prompt_cache=shared, **mode))
    assert len(list(mlx_generate(model, [1, 2], None, -1, prompt_cache=shared, **mode))) == 48 - 31 - 2
    with pytest.raises(RequestError, match="the prompt ends at token 49, but the model's context is 48 tokens"):
        mlx_generate(model, [1], None, prompt_cache=shared, **mode)


def test_yarn_stretches_the_context():
    scaling = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 20}
    config = tiny.config(max_position_embeddings=20, rope_scaling=scaling)
    model = tiny.build(config, tiny.weights(config))
    assert len(list(mlx_generate(model, [1, 2], None, -1))) == 38


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_read():
    model, shared = tiny.tiny_model(0, max_position_embeddings=16), KVCache(LAYERS)
    assert len(list(mlx_generate(model, tiny.prompt(0, 15), None))) == 1
    for length in (16, 17, 500):
        message = f"the prompt ends at token {length}, but the model's context is 16 tokens; shorten the prompt"
        with pytest.raises(RequestError, match=message):
            mlx_generate(model, tiny.prompt(0, length), None, prompt_cache=shared)
    assert shared.offset == 0


BAD = [
    ({"max_tokens": 0}, "max_tokens must be a positive integer, or -1 for no limit, not 0"),
    ({"max_tokens": -2}, "max_tokens must be a positive integer, or -1 for no limit, not -2"),
    ({"max_tokens": 2.5}, "max_tokens must be a positive integer"),
    ({"max_tokens": None}, "max_tokens must be a positive integer"),
    ({"prompt_tokens": []}, "the prompt is empty"),
    ({"prompt_tokens": [1, 64]}, r"prompt: 64 is not an id in 0\.\.63"),
    ({"prompt_tokens": [-1]}, r"prompt: -1 is not an id in 0\.\.63"),
    ({"prompt_tokens": ["a"]}, r"prompt: 'a' is not an id in 0\.\.63"),
    ({"prompt_tokens": mx.array([[1, 2]])}, r"prompt: \[1, 2\] is not an id"),
    ({"prompt_tokens": mx.array([0.5])}, r"prompt: 0\.5 is not an id"),
    ({"mode": "fast"}, "mode must be one of ar, diffusion, auto, not 'fast'"),
    ({"block_size": 1}, r"block_size must be an integer, in 2\.\.32, not 1"),
    ({"block_size": 33}, r"block_size must be an integer, in 2\.\.32, not 33"),
    ({"block_size": 2.5}, r"block_size must be an integer, in 2\.\.32"),
    ({"prefill_step_size": 0}, "prefill_step_size must be an integer, at least 1, not 0"),
    ({"temperature": -1.0}, "temperature must be 0, or at least 1e-6, not -1.0"),
    ({"top_p": 2.0}, r"top_p must be in 0\.\.1, not 2\.0"),
    ({"seed": -1}, r"seed must be an integer, in 0\.\.4294967295"),
    ({"xtc_special_tokens": [64]}, r"xtc_special_tokens: 64 is not an id in 0\.\.63"),
    ({"xtc_special_tokens": [10**7]}, r"xtc_special_tokens: 10000000 is not an id"),
]


@pytest.mark.parametrize("change, message", BAD, ids=lambda x: str(x)[:50])
def test_a_bad_request_is_refused_at_the_call_with_its_message(change, message):
    arguments = {"prompt_tokens": [1, 2], "eos_token_id": None, **change}
    with pytest.raises(RequestError, match=message) as caught:
        mlx_generate(tiny.tiny_model(0), **arguments)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_a_type_error_that_lists_the_known_ones():
    with pytest.raises(TypeError, match=r"unknown generation option 'topp'; known ones: mode, block_size"):
        mlx_generate(tiny.tiny_model(0), [1], None, topp=0.9)


def test_a_model_without_a_diffusion_view_decodes_one_token_at_a_time_and_refuses_to_draft():
    config = tiny.plain_config()
    model = tiny.build(config, tiny.weights(config))
    stats = DecodeStats()
    assert len(list(mlx_generate(model, [1], None, 5, stats=stats))) == 5
    assert stats.diffusion_passes == 0
    with pytest.raises(RequestError, match="no diffusion view; use mode='ar', or load an Orthrus checkpoint"):
        mlx_generate(model, [1], None, mode="diffusion")


def test_statistics_of_one_object_add_up_over_calls():
    model, stats = tiny.tiny_model(0), DecodeStats()
    for calls in (1, 2, 3):
        assert len(list(mlx_generate(model, [1, 2], None, 7, stats=stats, mode="diffusion"))) == 7
        assert stats.tokens == 7 * calls


def test_statistics_count_what_happened():
    model, prompt, stats = tiny.tiny_model(0), tiny.prompt(1, 5), DecodeStats()
    responses = list(stream_generate(model, stopping_at(set()), prompt, 50, temperature=0.8, seed=1, mode="diffusion",
                                     block_size=8, stats=stats))  # fmt: skip
    assert stats.tokens == 50 == len(responses)
    assert stats.cycles == sum(stats.target_rows.values())
    assert stats.drafted == sum((rows - 1) * n for rows, n in stats.target_rows.items()) == sum(stats.drafted_at)
    assert stats.accepted == sum(stats.accepted_at) == sum(r.from_draft for r in responses)
    assert stats.tokens == stats.accepted + sum(not r.from_draft for r in responses)
    assert stats.accepted_at == sorted(stats.accepted_at, reverse=True)
    assert stats.tokens_per_cycle == 50 / stats.cycles
    assert stats.acceptance == stats.accepted / stats.drafted
    # Once more than the cycles: the last token's keys and values.
    assert stats.ar_passes == stats.cycles + 1
    assert stats.diffusion_passes <= stats.cycles
    assert (stats.mode, stats.exactness) == ("diffusion", "row-exact")
    for text in (f"{stats.cycles} cycles", f"{stats.accepted}/{stats.drafted}", "row-exact"):
        assert text in stats.summary()
    empty = DecodeStats()
    assert (empty.tokens_per_cycle, empty.tokens_per_forward, empty.acceptance) == (0, 0, 0)


class Waits:
    """Counts the calls that make the host wait: reading an array that was not evaluated before, and `mx.eval`."""

    READERS = ("item", "tolist", "__int__", "__bool__", "__float__", "__index__", "__array__", "__iter__", "__dlpack__")

    def __init__(self, monkeypatch):
        self.count = 0
        self.evaluated: list[mx.array] = []
        evaluate, synchronize = mx.eval, mx.synchronize

        def counted_eval(*arguments):
            self.count += 1
            self.evaluated += [a for a in flat(arguments) if isinstance(a, mx.array)]
            evaluate(*arguments)

        def counted_synchronize(*arguments):
            self.count += 1
            synchronize(*arguments)

        monkeypatch.setattr(mx, "eval", counted_eval)
        monkeypatch.setattr(mx, "synchronize", counted_synchronize)
        for name in self.READERS:
            monkeypatch.setattr(mx.array, name, self.counted(getattr(mx.array, name)))

    def counted(self, read):
        def reading(array, *arguments, **options):
            if not any(array is known for known in self.evaluated):
                self.count += 1
                self.evaluated.append(array)
            return read(array, *arguments, **options)

        return reading


def flat(values):
    for value in values:
        if isinstance(value, list | tuple):
            yield from flat(value)
        else:
            yield value


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "seed": 1}], ids=["greedy", "T 0.8"])
@pytest.mark.parametrize("mode", [{"mode": "ar"}, {"mode": "diffusion"}, {"mode": "diffusion", "block_size": 3}])
def test_the_host_waits_for_the_device_at_most_once_a_cycle(monkeypatch, sampling, mode):
    model, stats = tiny.tiny_model(0), DecodeStats()
    exactness_of(model)
    with monkeypatch.context() as patch:
        waits = Waits(patch)
        # A prompt of one token needs no prefill, whose chunks wait on purpose.
        stream = stream_generate(model, stopping_at({61}), [5], 30, stats=stats, **sampling, **mode)
        tokens = [r.token for r in stream]
    assert waits.count <= stats.cycles
    assert waits.count == stats.host_syncs
    assert len(tokens) > 5


def test_the_counter_of_waits_can_fail(monkeypatch):
    with monkeypatch.context() as patch:
        waits = Waits(patch)
        a = mx.arange(3) + 1
        mx.eval(a)
        a.tolist()
        assert waits.count == 1
        (a + 1).sum().item()
        assert bool(a[0] == 1)
        assert waits.count == 3
