"""`orthrus-mlx generate`: one prompt, one answer, and mlx-lm's block of figures."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from .options import add_generation_arguments, add_model_arguments, generation_options, template_options
from .terminal import has_colour, well_formed

if TYPE_CHECKING:
    from ..cache import KVCache

_QUERY = "<query>"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `generate` on `parser`."""
    add_model_arguments(parser)
    parser.add_argument("--prompt", "-p", required=True, metavar="TEXT", help="the message; '-' reads all of stdin")
    parser.add_argument("--ignore-chat-template", action="store_true", help="give the prompt to the model as it is")
    parser.add_argument(
        "--prompt-cache-file", metavar="FILE", help="continue from a prompt that `mlx_lm.cache_prompt` read"
    )
    parser.add_argument(
        "--verbose",
        nargs="?",
        type=_boolean,
        const=True,
        metavar="BOOL",
        help="False prints the text alone; True also the trace of an error (default: text and figures)",
    )
    add_generation_arguments(parser, max_tokens=256)


def run(args: argparse.Namespace) -> int:
    """Answer one prompt on stdout. Raises OrthrusError; returns the exit code."""
    from ..generation import print_figures, stream_generate
    from ..prompts import opens_thought, think_markers
    from .answer_printer import AnswerPrinter
    from .progress import PrefillBar
    from .start import open_model

    if args.prompt == "-" and "MLX_RANK" in os.environ:
        raise RequestError("--prompt -: mlx.launch never ends the input of its ranks; give the text itself")
    question = well_formed(sys.stdin.read() if args.prompt == "-" else args.prompt)
    cache, cached_model = _open_cache(args)
    loaded = open_model(args.model or cached_model, args.revision)
    options = generation_options(args, loaded.tokenizer, loaded.model.args.vocab_size, default_mode="auto")
    prompt, special_tokens = _prompt(args, loaded.tokenizer, question, cached=cache is not None)

    figures = args.verbose is not False
    markers = think_markers(loaded.tokenizer)
    printer = AnswerPrinter(
        sys.stdout,
        colour=has_colour(sys.stdout),
        show_drafts=args.show_drafts,
        think_markers=markers,
        thinking=opens_thought(prompt, markers),
    )
    bar = PrefillBar()
    if figures:
        print("=" * 10, flush=True)
    responses = stream_generate(
        loaded.model,
        loaded.tokenizer,
        loaded.tokenizer.encode(prompt, add_special_tokens=special_tokens),
        prompt_cache=cache,
        prompt_progress_callback=bar.update,
        **options,
    )
    text = ""
    try:
        with closing(responses):
            for response in responses:
                printer.feed(response.text, response.from_draft)
                text += response.text
    finally:
        bar.stop()
        printer.close()
    if figures:
        print_figures(text, response)
    return 0


def _open_cache(args: argparse.Namespace) -> tuple[KVCache | None, str | None]:
    """The prompt cache to go on from and the model it was made with, where a file is given."""
    if args.prompt_cache_file is None:
        return None, None
    from ..cache import KVCache

    cache, metadata = KVCache.load(args.prompt_cache_file)
    made_with = metadata.get("model")
    if args.model is not None and made_with is not None and args.model != made_with:
        raise RequestError(
            f"{args.prompt_cache_file}: made with model {made_with}, not {args.model}; "
            "leave --model out, or cache the prompt again"
        )
    return cache, made_with


def _prompt(args: argparse.Namespace, tokenizer: Any, question: str, *, cached: bool) -> tuple[str, bool]:
    """(the prompt's text, whether the tokenizer adds special tokens to it)."""
    from ..prompts import render, with_system

    if args.ignore_chat_template or not tokenizer.has_chat_template:
        if args.system_prompt is not None:
            raise RequestError("--system-prompt needs a chat template; put the text into --prompt instead")
        return question, not cached
    system = None if args.system_prompt is None else well_formed(args.system_prompt)

    def rendered(content: str) -> str:
        return render(tokenizer, with_system(system, [{"role": "user", "content": content}]), template_options(args))

    if not cached:
        return rendered(question), False
    # As in mlx-lm: the cache holds the beginning of this very message, the prompt is what follows it.
    return rendered(question)[rendered(_QUERY).index(_QUERY) :], False


def _boolean(text: str) -> bool:
    """mlx-lm's spelling of a truth value."""
    if text.lower() in ("true", "t", "yes", "y", "1"):
        return True
    if text.lower() in ("false", "f", "no", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"expected True or False, not {text!r}")
