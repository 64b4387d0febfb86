"""The public interface: mlx-lm's names, text and figures, with the cycle's statistics beside them."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from mlx_lm.generate import GenerationResponse as MLXGenerationResponse
from mlx_lm.models import qwen3
from mlx_lm.sample_utils import make_logits_processors, make_sampler
from mlx_lm.tokenizer_utils import NaiveStreamingDetokenizer, TokenizerWrapper

import orthrus_mlx
from orthrus_mlx.decoding.stats import DecodeStats
from orthrus_mlx.generation import GenerationResponse, generate, mlx_generate, stream_generate

MODES = ("ar", "diffusion", "auto")
TOKENIZER = tiny.text_tokenizer()


def stock_qwen3(model) -> qwen3.Model:
    """mlx-lm's own Qwen3 with the autoregressive view's weights."""
    config = {**tiny.text_config(), "model_type": "qwen3"}
    stock = qwen3.Model(qwen3.ModelArgs.from_dict(config))
    stock.load_weights([(k, v) for k, v in tree_flatten(model.parameters()) if "_diff" not in k])
    return stock


def test_the_response_has_mlx_lm_s_ten_fields_first_and_then_the_statistics():
    names = [f.name for f in dataclasses.fields(GenerationResponse)]
    assert names[:10] == [f.name for f in dataclasses.fields(MLXGenerationResponse)]
    assert names[10:] == ["stats"]


def test_functions_have_mlx_lm_s_and_the_official_code_s_arguments_in_their_order():
    def names(function):
        return list(inspect.signature(function).parameters)

    official = inspect.signature(mlx_generate)
    assert names(mlx_generate)[:5] == ["model", "prompt_tokens", "eos_token_id", "max_tokens", "temperature"]
    assert (official.parameters["max_tokens"].default, official.parameters["temperature"].default) == (256, 0.0)
    assert names(stream_generate)[:4] == names(mlx_lm.stream_generate)[:4]
    assert names(generate)[:4] == names(mlx_lm.generate)[:4]
    assert names(orthrus_mlx.load)[:2] == names(mlx_lm.load)[:2]
    assert names(orthrus_mlx.load_model_and_tokenizer) == ["repo_id"]


def test_every_public_name_can_be_imported_from_the_package():
    for name in orthrus_mlx.__all__:
        assert getattr(orthrus_mlx, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        orthrus_mlx.nonsense  # noqa: B018


PROCESSORS = {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "logit_bias": {7: 1.5}}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "sampling", [None, {"temp": 0.8}, {"temp": 1.0, "top_p": 0.9, "top_k": 30}], ids=["greedy", "T 0.8", "filters"]
)
def test_text_tokens_and_logprobs_are_mlx_lm_s(mode, sampling):
    model = tiny.text_model(1)
    stock = stock_qwen3(model)
    for seed in range(3):
        prompt = tiny.prompt(seed, 12, 250)

        def run(side, weights, prompt=prompt, seed=seed, **options):
            mx.random.seed(seed)
            if sampling:
                options["sampler"] = make_sampler(**sampling)
            processors = make_logits_processors(**PROCESSORS)
            return list(side(weights, TOKENIZER, prompt, 24, logits_processors=processors, **options))

        theirs = run(mlx_lm.stream_generate, stock)
        for ours in (run(stream_generate, model, mode=mode), run(mlx_lm.stream_generate, model)):
            assert [r.token for r in ours] == [r.token for r in theirs]
            assert "".join(r.text for r in ours) == "".join(r.text for r in theirs)
            assert [r.finish_reason for r in ours] == [r.finish_reason for r in theirs]
            assert all(mx.array_equal(a.logprobs, b.logprobs) for a, b in zip(ours, theirs, strict=True))
            for a, b in zip(ours, theirs, strict=True):
                assert (a.prompt_tokens, a.generation_tokens) == (b.prompt_tokens, b.generation_tokens)


OTHER_CACHES = {
    "chunked prefill": {"prefill_step_size": 5},
    "rotating": {"max_kv_size": 16, "prefill_step_size": 8},
    "quantised": {"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 0},
}


@pytest.mark.parametrize("options", OTHER_CACHES.values(), ids=OTHER_CACHES)
def test_mlx_lm_runs_our_model_with_its_own_kinds_of_caches_as_it_runs_its_qwen3(options):
    config = tiny.text_config(head_dim=32)
    model = tiny.build(config, tiny.weights(config, 5))
    stock = qwen3.Model(qwen3.ModelArgs.from_dict({**config, "model_type": "qwen3"}))
    stock.load_weights([(k, v) for k, v in tree_flatten(model.parameters()) if "_diff" not in k])
    prompt = tiny.prompt(3, 40, 250)

    def run(weights):
        mx.random.seed(1)
        sampler = make_sampler(1.0)
        return [r.token for r in mlx_lm.stream_generate(weights, TOKENIZER, prompt, 20, sampler=sampler, **options)]

    assert run(model) == run(stock)


def test_mlx_lm_batches_our_model_as_it_batches_its_qwen3():
    model = tiny.text_model(1)
    prompts = [tiny.prompt(seed, 4 + 7 * seed, 250) for seed in range(3)]

    def run(weights):
        processors = make_logits_processors(repetition_penalty=2.0)
        options = {"max_tokens": 10, "return_token_ids": True, "logits_processors": processors}
        return mlx_lm.batch_generate(weights, TOKENIZER, prompts, **options).token_ids

    batched = run(model)
    assert batched == run(stock_qwen3(model))
    assert len({tuple(tokens) for tokens in batched}) > 1


def test_a_text_prompt_is_encoded_as_mlx_lm_encodes_it():
    model = tiny.text_model(0)
    for prompt in ("the ring", "<|im_start|>user\nhé 日本<|im_end|>\n", " "):
        ours = next(stream_generate(model, TOKENIZER, prompt))
        theirs = next(mlx_lm.stream_generate(model, TOKENIZER, prompt))
        assert (ours.token, ours.prompt_tokens) == (theirs.token, theirs.prompt_tokens)


def test_prompts_may_be_lists_tuples_numpy_or_mlx_arrays():
    model, prompt = tiny.tiny_model(0), tiny.prompt(0, 5)
    expected = list(mlx_generate(model, prompt, None, 5))
    as_array = mx.array(prompt)
    for given_prompt in (tuple(prompt), as_array, as_array.astype(mx.uint32), np.array(prompt)):
        assert list(mlx_generate(model, given_prompt, None, 5)) == expected


def test_a_hugging_face_tokenizer_works_unwrapped():
    model = tiny.text_model(0)
    plain = TOKENIZER._tokenizer
    assert generate(model, plain, "the", max_tokens=8) == generate(model, TOKENIZER, "the", max_tokens=8)


@pytest.mark.parametrize("mode", MODES)
def test_prompt_progress_is_reported_as_mlx_lm_reports_it(mode):
    model, prompt = tiny.text_model(0), tiny.prompt(0, 21, 250)

    def run(side, **options):
        seen = []
        options["prompt_progress_callback"] = lambda read, total: seen.append((read, total))
        list(side(model, TOKENIZER, prompt, 3, prefill_step_size=8, **options))
        return seen

    assert run(stream_generate, mode=mode) == run(mlx_lm.stream_generate)


def test_verbose_prints_mlx_lm_s_block_and_one_line_of_cycles(capsys):
    model = tiny.text_model(1)
    text = generate(model, TOKENIZER, "the ring", verbose=True, max_tokens=12, mode="diffusion")
    ours = capsys.readouterr().out
    assert mlx_lm.generate(model, TOKENIZER, "the ring", verbose=True, max_tokens=12) == text
    theirs = capsys.readouterr().out

    def shape(printed: str) -> str:
        return re.sub(r"\d+\.\d+", "#", printed)

    *block, cycles = ours.splitlines(keepends=True)
    assert shape("".join(block)) == shape(theirs)
    assert cycles.startswith("Cycles: ")
    assert "tokens per cycle" in cycles


def test_verbose_says_so_when_nothing_was_generated(capsys):
    model = tiny.text_model(1)
    wrapper = TokenizerWrapper(TOKENIZER._tokenizer)
    wrapper.eos_token_ids = [next(mlx_generate(model, [5], None))]
    assert generate(model, wrapper, [5], verbose=True) == ""
    assert "No text generated for this prompt" in capsys.readouterr().out


def test_generate_joins_the_stream_s_segments():
    model = tiny.text_model(1)
    options = {"max_tokens": 20, "temperature": 0.7, "seed": 3}
    segments = [r.text for r in stream_generate(model, TOKENIZER, "he", **options)]
    assert generate(model, TOKENIZER, "he", **options) == "".join(segments)


def test_figures_of_a_response_are_its_own():
    stats = DecodeStats()
    for call in range(2):
        responses = list(stream_generate(tiny.text_model(1), TOKENIZER, tiny.prompt(0, 9, 250), 6, stats=stats))
        assert [r.generation_tokens for r in responses] == list(range(1, len(responses) + 1))
        assert all(r.prompt_tokens == 9 and r.prompt_tps > 0 and r.generation_tps > 0 for r in responses)
        assert all(r.peak_memory > 0 and r.stats is stats for r in responses)
        assert stats.tokens == (call + 1) * len(responses)


def test_logprobs_are_normalised_and_name_the_greedy_token():
    for response in stream_generate(tiny.text_model(1), TOKENIZER, tiny.prompt(0, 9, 250), 10, mode="diffusion"):
        assert response.logprobs.shape == (tiny.TEXT_VOCABULARY,)
        assert abs(mx.logsumexp(response.logprobs).item()) < 1e-5
        assert mx.argmax(response.logprobs).item() == response.token


# Text ------------------------------------------------------------------------------------------------


def stream_of(tokens: list[int], wrapper: TokenizerWrapper) -> list[GenerationResponse]:
    """`stream_generate` made to emit `tokens`, by a processor that allows nothing else."""
    model = tiny.text_model(0)
    script = iter(tokens)

    def only_next(_, logits):
        return mx.where(mx.arange(logits.shape[-1]) == next(script), 0.0, -mx.inf)[None]

    return list(stream_generate(model, wrapper, [1], len(tokens), mode="ar", logits_processors=[only_next]))


UTF8 = TOKENIZER.encode("é日本🙂a the ring\n¡ÿ", add_special_tokens=False)
IDS = st.one_of(st.sampled_from(UTF8), st.integers(0, 255), st.integers(tiny.BYTES, tiny.BYTES + 10))


@settings(max_examples=60)
@given(tokens=st.lists(IDS, min_size=1, max_size=25))
@pytest.mark.parametrize("detokenizer", ["bpe", "naive"])
def test_streamed_segments_join_to_the_decoded_text_and_break_no_character(detokenizer, tokens):
    wrapper = TOKENIZER if detokenizer == "bpe" else TokenizerWrapper(TOKENIZER._tokenizer, NaiveStreamingDetokenizer)
    ended = [*tokens, tiny.IM_END] if tiny.IM_END not in tokens else tokens
    tokens = list(itertools.takewhile(lambda t: t != tiny.IM_END, tokens))
    responses = stream_of(ended, wrapper)
    text = "".join(r.text for r in responses)
    decoded = TOKENIZER.decode(tokens)
    # mlx-lm's detokenizers trim the space that opens a text.
    assert text in (decoded, decoded.removeprefix(" "))
    if "\ufffd" not in decoded:
        assert all("\ufffd" not in r.text for r in responses)


def test_a_character_of_several_tokens_comes_whole():
    for text in ("🙂", "日本語é", "naïve 🙂!"):
        tokens = [i for b in text.encode() for i in TOKENIZER._tokenizer.convert_tokens_to_ids([byte_symbol(b)])]
        assert len(tokens) == len(text.encode())
        responses = stream_of([*tokens, tiny.IM_END], TOKENIZER)
        assert "".join(r.text for r in responses) == text
        assert all(r.text == "" or r.text in text for r in responses)


def byte_symbol(byte: int) -> str:
    """The character that byte-level BPE writes for a byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return chr(byte) if byte in printable else chr(256 + [b for b in range(256) if b not in printable].index(byte))
