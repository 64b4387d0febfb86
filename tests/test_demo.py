"""The demo model that ships: it answers, drafts, fits, and is a plain Qwen3 to stock mlx-lm."""

from __future__ import annotations

import mlx.core as mx
import mlx_lm
import pytest
from cli_models import run_process

from orthrus_mlx import DecodeStats, demo_folder, load_model_and_tokenizer, mlx_generate
from orthrus_mlx.training.corpus import check, heldout, render_prompt

pytest_plugins = ["cli_fixtures"]

QUESTION = "If a rectangle has length 12 and width 7, what is its area?"
MOST_BYTES = 16_000_000


@pytest.fixture(scope="module")
def demo():
    return load_model_and_tokenizer(str(demo_folder()))


def chat_prompt(tokenizer, question: str) -> list[int]:
    return tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)


@pytest.mark.parametrize("formatted", [False, True], ids=["raw", "chat"])
def test_the_rectangle_has_area_84_in_every_mode(demo, formatted):
    model, tokenizer = demo
    prompt = chat_prompt(tokenizer, QUESTION) if formatted else tokenizer.encode(QUESTION)
    answers, stats = {}, {mode: DecodeStats() for mode in ("ar", "diffusion", "auto")}
    for mode, counts in stats.items():
        answers[mode] = list(mlx_generate(model, prompt, tokenizer.eos_token_ids, 60, mode=mode, stats=counts))
    assert answers["ar"] == answers["diffusion"] == answers["auto"]
    assert tokenizer.decode(answers["ar"]).endswith("12 x 7 = 84\nThe answer is 84.")
    assert stats["diffusion"].tokens_per_cycle > 8


def test_the_official_readmes_snippet_answers_84(demo):
    model, tokenizer = demo
    prompt_tokens = tokenizer.encode(QUESTION)
    tokens = mlx_generate(model, prompt_tokens, tokenizer.eos_token_id, max_tokens=32)
    assert "The answer is 84." in "".join(tokenizer.decode([token]) for token in tokens)


@pytest.mark.parametrize("family, least_right, least_tokens", [("reasoning", 17, 7.0), ("json", 18, 8.0)])
def test_block_decoding_answers_held_out_questions(demo, family, least_right, least_tokens):
    model, tokenizer = demo
    right, wrong, total = 0, [], DecodeStats()
    # Short texts and blocks keep this quick; `orthrus_mlx.training.evaluate` measures all answers in full blocks.
    examples = [e for e in heldout(family, 200, seed=7) if len(render_prompt(e) + e.reference) < 300][:20]
    assert len(examples) == 20
    for example in examples:
        prompt, stats = tokenizer.encode(render_prompt(example), add_special_tokens=False), DecodeStats()
        options = {"mode": "diffusion", "block_size": 16, "stats": stats}
        tokens = list(mlx_generate(model, prompt, tokenizer.eos_token_ids, 400, **options))
        verdict = check(example, tokenizer.decode(tokens))
        right += verdict.ok
        wrong += [] if verdict.ok else [(example.prompt[-1]["content"], verdict.reason)]
        total.tokens, total.cycles = total.tokens + stats.tokens, total.cycles + stats.cycles
    assert right >= least_right, wrong
    assert total.tokens_per_cycle >= least_tokens
    print("TPC", total.tokens_per_cycle, right)


def test_the_demo_fits_its_size(demo):
    assert sum(f.stat().st_size for f in demo_folder().iterdir()) <= MOST_BYTES


def test_stock_mlx_lm_loads_the_ar_half_and_computes_the_same_bits(demo):
    model, tokenizer = demo
    stock, _ = mlx_lm.load(str(demo_folder()))
    tokens = mx.array([chat_prompt(tokenizer, QUESTION)])
    ours, theirs = model(tokens), stock(tokens)
    assert ours.dtype == theirs.dtype == mx.bfloat16
    assert mx.array_equal(ours, theirs)


def test_a_piped_chat_with_the_demo_answers(environment):
    done = run_process("chat", environment=environment, stdin=f"{QUESTION}\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("The answer is 84.\n")
    assert "demonstration, not an assistant" in done.stderr and "tokens per cycle" in done.stderr
