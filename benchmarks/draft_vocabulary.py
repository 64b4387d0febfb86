"""What a reduced draft vocabulary costs in drafts and saves in time, on the demo model or one like it.

    python benchmarks/draft_vocabulary.py [--model FOLDER] [--sizes 512 1024 2048] [--text FILE ...]

Ids are counted as `orthrus-mlx convert --draft-vocabulary` does, by default in the demo model's training corpus. Per
vocabulary: the share of held-out text that it covers; tokens per cycle of greedy decoding with the block's rows fixed,
on held-out prompts by family, every token compared with one-token decoding; milliseconds of a draft pass and of the
head alone (medians of interleaved runs); and what `orthrus_mlx.draft_head` would decide. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import mlx.core as mx

from orthrus_mlx import DecodeStats, KVCache, demo_folder, load, mlx_generate
from orthrus_mlx.convert.vocabulary import choose_vocabulary
from orthrus_mlx.draft_head import DraftHead, worthwhile
from orthrus_mlx.draft_vocabulary import DraftVocabulary
from orthrus_mlx.loading import read_config
from orthrus_mlx.machine import describe_machine
from orthrus_mlx.model import Model
from orthrus_mlx.passes import Block, run_pass
from orthrus_mlx.training.corpus import FAMILIES, heldout, render_prompt, training_documents
from orthrus_mlx.weights import DIFFUSION

FULL = "all"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=demo_folder(), help="folder (default: the demo model)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048], help="ids (default: %(default)s)")
    parser.add_argument("--text", type=Path, nargs="+", help="files to count ids in (default: the training corpus)")
    parser.add_argument("--documents", type=int, default=4000, help="of the corpus (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=10, help="held-out prompts per family (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=128, help="most tokens of an answer (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=16, help="rows of a draft pass (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=41, help="timed passes of each kind (default: %(default)s)")
    args = parser.parse_args()
    for label, value in describe_machine().items():
        print(f"{label}: {value}")

    model, tokenizer = load(args.model)
    with tempfile.TemporaryDirectory() as folder:
        files = args.text or [corpus_file(Path(folder), args.documents)]
        config = read_config(args.model)
        found = [choose_vocabulary(args.model, config, model.args, size, files) for size in args.sizes]
    vocabularies: dict[str, DraftVocabulary] = {str(len(v.ids)): v for v in found if v is not None}
    heads: dict[str, DraftHead | None] = {FULL: None}
    heads |= {name: DraftHead(model, vocabulary) for name, vocabulary in vocabularies.items()}

    families = {family: prompts(tokenizer, family, args.prompts) for family in FAMILIES}
    print(f"\ntokens per cycle of {args.rows} rows, {args.prompts} held-out prompts a family, greedy")
    print("     ids  covered  " + "  ".join(f"{family:>12}" for family in families))
    expected = {f: [answer(model, tokenizer, p, args, "ar")[0] for p in asked] for f, asked in families.items()}
    for name, head in heads.items():
        model.draft_head = head
        cells = [tokens_per_cycle(model, tokenizer, families[f], expected[f], args) for f in families]
        covered = vocabularies[name].coverage if name in vocabularies else 1.0
        print(f"{name:>8}  {covered:7.2%}  " + "  ".join(f"{cell:12.2f}" for cell in cells))

    print(f"\nmilliseconds of {args.rows} rows, medians of {args.repeats}")
    print("     ids  draft pass    head  head's share  extra memory  decision")
    times = pass_times(model, heads, args.rows, args.repeats)
    for name, (spent, alone) in times.items():
        decision, memory = "", 0.0
        if (head := heads[name]) is not None:
            won = worthwhile(times[FULL][0], spent, vocabularies[name].coverage)
            decision, memory = "used" if won else "not worth it", head.nbytes / 1e6
        print(f"{name:>8}  {spent:10.2f}  {alone:6.2f}  {alone / spent:12.1%}  {memory:9.2f} MB  {decision}")


def corpus_file(folder: Path, count: int) -> Path:
    """The demo model's training documents as a file for the converter."""
    file = folder / "corpus.jsonl"
    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"text": text}) + "\n" for text in training_documents(0, count))
    return file


def prompts(tokenizer, family: str, count: int) -> list[list[int]]:
    examples = heldout(family, count, 1)
    return [tokenizer.encode(render_prompt(example), add_special_tokens=False) for example in examples]


def answer(model: Model, tokenizer, prompt: list[int], args, mode: str) -> tuple[list[int], DecodeStats]:
    stats = DecodeStats()
    options = {"mode": mode, "block_size": args.rows, "stats": stats}
    return list(mlx_generate(model, prompt, tokenizer.eos_token_ids, args.tokens, **options)), stats


def tokens_per_cycle(model: Model, tokenizer, asked: Sequence[list[int]], expected: Sequence[list[int]], args) -> float:
    """Tokens per cycle over all prompts. Raises SystemExit where a token differs from one-token decoding."""
    tokens = cycles = 0
    for prompt, right in zip(asked, expected, strict=True):
        found, stats = answer(model, tokenizer, prompt, args, "diffusion")
        if found != right:
            raise SystemExit(f"not lossless: {found} instead of {right}")
        tokens, cycles = tokens + stats.tokens, cycles + stats.cycles
    return tokens / cycles


def pass_times(
    model: Model, heads: dict[str, DraftHead | None], rows: int, repeats: int
) -> dict[str, tuple[float, float]]:
    """(draft pass, head alone) in milliseconds, by head."""
    cache = KVCache(len(model.layers))
    tokens = mx.full((rows,), model.args.mask_token_id, dtype=mx.int32)
    hidden = mx.random.normal((rows - 1, model.args.hidden_size)).astype(model.model.norm.weight.dtype)
    mx.eval(tokens, hidden)

    def whole(head: DraftHead | None) -> mx.array:
        model.draft_head = head
        return run_pass(model, [Block(cache, tokens, DIFFUSION, wanted=rows - 1)])[0]

    def alone(head: DraftHead | None) -> mx.array:
        return (head or model.head)(hidden)

    spent: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in heads}
    for _ in range(repeats + 1):
        for name, head in heads.items():
            for times, run in zip(spent[name], (whole, alone), strict=True):
                times.append(timed(run, head))
    return {name: (statistics.median(a[1:]), statistics.median(b[1:])) for name, (a, b) in spent.items()}


def timed(run: Callable[[DraftHead | None], mx.array], head: DraftHead | None) -> float:
    start = time.perf_counter()
    mx.eval(mx.argmax(run(head), axis=-1))
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    main()
