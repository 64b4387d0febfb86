"""Measuring the demo model on held-out examples: answers that the corpus's checker accepts, tokens per cycle."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..decoding.stats import DecodeStats
from ..generation import stream_generate
from ..loading import load
from ..model import Model
from . import corpus
from .corpus.chat import render_prompt
from .corpus.core import FAMILIES, Example
from .self_answer import greedy_answers

MAX_TOKENS = 768
"""Longest answer that is let finish."""


def answer_examples(model: Model, tokenizer: TokenizerWrapper, examples: list[Example], batch_size: int) -> list[str]:
    """The AR view's greedy answers, in order, without the stop token."""
    stops = frozenset(tokenizer.eos_token_ids)
    prompts = [tokenizer.encode(render_prompt(e), add_special_tokens=False) for e in examples]
    room = model.args.max_position_embeddings
    limits = [min(MAX_TOKENS, room - len(p)) for p in prompts]
    references = [len(tokenizer.encode(e.reference, add_special_tokens=False)) for e in examples]
    answers = greedy_answers(model, prompts, limits, stops, batch_size, references)
    return [tokenizer.decode([t for t in a if t not in stops]) for a in answers]


def accuracy(
    model: Model, tokenizer: TokenizerWrapper, family: str, count: int, seed: int, unseen: bool, batch_size: int = 256
) -> dict[str, Any]:
    """Right answers among `count` held-out examples of a family; `unseen` takes held-out wordings.

    Returns `right`, `count` and, for the first ten wrong ones, the question, the answer and the reason.
    """
    examples = corpus.heldout(family, count, seed, unseen_paraphrases=unseen)
    texts = answer_examples(model, tokenizer, examples, batch_size)
    verdicts = [corpus.check(e, t) for e, t in zip(examples, texts, strict=True)]
    wrong = [
        {"shape": e.shape, "prompt": e.prompt[-1]["content"], "answer": t, "reason": v.reason}
        for e, t, v in zip(examples, texts, verdicts, strict=True)
        if not v.ok
    ]
    return {"right": len(examples) - len(wrong), "count": len(examples), "wrong": wrong[:10]}


def tokens_per_cycle(
    model: Model, tokenizer: TokenizerWrapper, family: str, count: int, seed: int, block_size: int | None = None
) -> dict[str, Any]:
    """Real greedy block decoding of `count` held-out prompts.

    Returns `mean` (tokens / cycles over all prompts), `median` (of the prompts), `acceptance`
    (accepted / drafted) and `count`.
    """
    totals = DecodeStats()
    each: list[float] = []
    for example in corpus.heldout(family, count, seed, unseen_paraphrases=False):
        prompt = tokenizer.encode(render_prompt(example), add_special_tokens=False)
        stats = DecodeStats()
        for _ in stream_generate(
            model, tokenizer, prompt, MAX_TOKENS, mode="diffusion", block_size=block_size, stats=stats
        ):
            pass
        each.append(stats.tokens_per_cycle)
        totals.tokens += stats.tokens
        totals.cycles += stats.cycles
        totals.drafted += stats.drafted
        totals.accepted += stats.accepted
    return {
        "mean": round(totals.tokens_per_cycle, 2),
        "median": round(statistics.median(each), 2),
        "acceptance": round(totals.acceptance, 3),
        "count": len(each),
    }


def evaluate(
    model: Model, tokenizer: TokenizerWrapper, questions: int = 200, decoded: int = 40, seed: int = 1
) -> dict[str, Any]:
    """Every family's accuracy (`seen_wordings`, `unseen_wordings`) and its tokens per cycle, as a JSON-able object."""
    report: dict[str, Any] = {}
    for family in FAMILIES:
        report[family] = {
            "seen_wordings": accuracy(model, tokenizer, family, questions, seed, unseen=False),
            "unseen_wordings": accuracy(model, tokenizer, family, questions, seed, unseen=True),
            "tokens_per_cycle": tokens_per_cycle(model, tokenizer, family, decoded, seed),
        }
        print(summary(family, report[family]), file=sys.stderr, flush=True)
    return report


def summary(family: str, figures: dict[str, Any]) -> str:
    """One family's figures on a line."""
    seen, unseen, cycle = (figures[k] for k in ("seen_wordings", "unseen_wordings", "tokens_per_cycle"))
    return (
        f"{family}: {seen['right']}/{seen['count']} right, held-out wordings {unseen['right']}/{unseen['count']}, "
        f"{cycle['mean']} tokens per cycle (median {cycle['median']}, acceptance {cycle['acceptance']})"
    )


def main() -> None:
    """`python -m orthrus_mlx.training.evaluate --model FOLDER [--output FILE]`."""
    parser = argparse.ArgumentParser(description="Evaluate a demo model on held-out examples.")
    parser.add_argument("--model", required=True, help="folder of the trained model")
    parser.add_argument("--questions", type=int, default=200, help="examples per family and kind of wording")
    parser.add_argument("--decoded", type=int, default=40, help="prompts per family for tokens per cycle")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write the report, wrong answers included, as JSON")
    args = parser.parse_args()
    model, tokenizer = load(args.model)
    report = evaluate(model, tokenizer, args.questions, args.decoded, args.seed)
    if args.output:
        args.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
