"""Flags that `chat` and `generate` share, named as in mlx-lm, and what they mean for `stream_generate`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from typing import Any

from ..errors import RequestError

REAL_MODEL = "chiennv/Orthrus-Qwen3-1.7B"
"""The smallest published Orthrus checkpoint, named where a person is told how to load one."""


def number(kind: type[int] | type[float], low: float, high: float = math.inf) -> Callable[[str], Any]:
    """An argparse type: an int or float in low..high."""

    def parse(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or math.isinf(value):
            wanted = f"in {low}..{high}" if math.isfinite(high) else f"of at least {low}" if math.isfinite(low) else ""
            noun = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {noun} {wanted}".rstrip() + f", not {text!r}")
        return value

    return parse


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which model to load."""
    parser.add_argument("--model", metavar="PATH_OR_ID", help="folder or Hugging Face id (default: the demo model)")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit of a Hugging Face id")


def add_generation_arguments(parser: argparse.ArgumentParser, *, max_tokens: int) -> None:
    """Declare how to prompt, decode and sample; `max_tokens` is the default of the flag."""
    prompting = parser.add_argument_group("prompt")
    prompting.add_argument("--system-prompt", metavar="TEXT", help="system prompt for the chat template")
    prompting.add_argument(
        "--chat-template-config", type=json_object, default={}, metavar="JSON", help="settings for the chat template"
    )
    prompting.add_argument("--no-think", action="store_true", help="ask a thinking model to answer at once")
    prompting.add_argument(
        "--prefill-step-size",
        type=number(int, 1),
        default=2048,
        metavar="N",
        help="prompt tokens per pass (default: 2048)",
    )

    decoding = parser.add_argument_group("decoding")
    decoding.add_argument(
        "--max-tokens",
        "-m",
        type=_max_tokens,
        default=max_tokens,
        metavar="N",
        help=f"most tokens of an answer; -1 is no limit (default: {max_tokens})",
    )
    decoding.add_argument(
        "--mode", choices=("ar", "diffusion", "auto"), help="one token a pass, a block a cycle, or whichever is faster"
    )
    decoding.add_argument(
        "--block-size", type=number(int, 2, 32), metavar="N", help="rows of a block, 2..32 (default: the model's)"
    )
    decoding.add_argument(
        "--stop", type=_some_text, action="append", default=[], metavar="TEXT", help="end the answer there; repeatable"
    )
    decoding.add_argument("--show-drafts", action="store_true", help="mark the accepted draft tokens")

    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--temp", type=number(float, 0), default=0.0, metavar="T", help="0 (default) is greedy")
    sampling.add_argument("--top-p", type=number(float, 0, 1), default=1.0, metavar="P", help="nucleus; 1 is off")
    sampling.add_argument(
        "--min-p", type=number(float, 0, 1), default=0.0, metavar="P", help="share of the top; 0 is off"
    )
    sampling.add_argument("--min-tokens-to-keep", type=number(int, 1), default=1, metavar="N", help="for min-p")
    sampling.add_argument("--top-k", type=number(int, 0), default=0, metavar="K", help="0 is off")
    sampling.add_argument("--xtc-probability", type=number(float, 0, 1), default=0.0, metavar="P", help="0 is off")
    sampling.add_argument("--xtc-threshold", type=number(float, 0, 0.5), default=0.1, metavar="P", help="default: 0.1")
    sampling.add_argument(
        "--seed", type=number(int, 0, 2**32 - 1), metavar="N", help="the same seed draws the same tokens in every mode"
    )
    sampling.add_argument("--repetition-penalty", type=number(float, 0), metavar="X", help="multiplicative")
    sampling.add_argument("--presence-penalty", type=number(float, -math.inf), metavar="X", help="additive, once")
    sampling.add_argument("--frequency-penalty", type=number(float, -math.inf), metavar="X", help="additive, per use")
    for penalty in ("repetition", "presence", "frequency"):
        sampling.add_argument(
            f"--{penalty}-context-size",
            type=number(int, 1),
            default=20,
            metavar="N",
            help="tokens it looks back on (20)",
        )
    sampling.add_argument(
        "--logit-bias",
        type=_bias,
        action="append",
        default=[],
        metavar="ID=BIAS",
        help="added to a token's logit; repeatable",
    )


def template_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of the chat template."""
    return {**args.chat_template_config, **({"enable_thinking": False} if args.no_think else {})}


def generation_options(args: argparse.Namespace, tokenizer: Any, vocab_size: int, default_mode: str) -> dict[str, Any]:
    """Keyword arguments of `stream_generate`.

    Raises:
        RequestError: a biased token is not in the vocabulary.
    """
    from mlx_lm.sample_utils import make_logits_processors

    bias = dict(args.logit_bias)
    for token in bias:
        if not 0 <= token < vocab_size:
            raise RequestError(f"--logit-bias: token {token} is not an id in 0..{vocab_size - 1}")
    return {
        "max_tokens": args.max_tokens,
        "mode": args.mode or default_mode,
        "block_size": args.block_size,
        "stop": args.stop,
        "prefill_step_size": args.prefill_step_size,
        "temperature": args.temp,
        "top_p": args.top_p,
        "min_p": args.min_p,
        "min_tokens_to_keep": args.min_tokens_to_keep,
        "top_k": args.top_k,
        "xtc_probability": args.xtc_probability,
        "xtc_threshold": args.xtc_threshold,
        # As in mlx-lm: XTC must not take away the ways to end a line or the text.
        "xtc_special_tokens": [*tokenizer.encode("\n", add_special_tokens=False), *tokenizer.eos_token_ids],
        "seed": args.seed,
        "logits_processors": make_logits_processors(
            bias or None,
            args.repetition_penalty,
            args.repetition_context_size,
            args.presence_penalty,
            args.presence_context_size,
            args.frequency_penalty,
            args.frequency_context_size,
        ),
    }


def _max_tokens(text: str) -> int:
    return -1 if text == "-1" else number(int, 1)(text)


def _some_text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected some text")
    return text


def json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, not {text!r}")
    return value


def _bias(text: str) -> tuple[int, float]:
    token, separator, bias = text.partition("=")
    try:
        pair = int(token), float(bias)
    except ValueError:
        separator = ""
    if not separator or math.isnan(pair[1]):
        raise argparse.ArgumentTypeError(f"expected ID=BIAS such as 42=-5, not {text!r}")
    return pair
