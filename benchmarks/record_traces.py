"""Record what the diffusion view of a model would have drafted at every position of its own greedy answers.

    python benchmarks/record_traces.py [--model FOLDER] [--prompts 4] [--out benchmarks/results/demo_traces.npz]

The prompts are those of `orthrus-mlx bench`. Every answer is decoded one token at a time; then, at each of its tokens,
a diffusion pass of every width runs with that token as the anchor, and its likeliest candidates are compared with what
the autoregressive view emitted later. As no policy changes the text, such a trace replays any policy: see
`policy_simulation.py`, which reads the file (`load_traces` there says what it holds).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np

import orthrus_mlx
from orthrus_mlx import KVCache, stream_generate
from orthrus_mlx.bench.cases import workload_cases
from orthrus_mlx.bench.prompts import read_prompts
from orthrus_mlx.model import AR, DIFFUSION, Model
from orthrus_mlx.passes import Block, run_pass

WIDTHS = (32, 24, 16, 8, 4)
CANDIDATES = 4
MISSING = 255
"""In place of a rank: the emitted token is not among the candidates, or the text has ended."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(orthrus_mlx.demo_folder()))
    parser.add_argument("--prompts", type=int, default=4, help="prompts per workload and format")
    parser.add_argument("--tokens", type=int, default=256, help="most tokens of an answer")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/demo_traces.npz"))
    args = parser.parse_args()
    model, tokenizer = orthrus_mlx.load(args.model)
    prompts, _ = read_prompts("demo")
    limits = {"count": args.prompts, "trials": 1, "max_tokens": args.tokens}
    cases = workload_cases(tokenizer, prompts, ["raw", "chat"], context_length=model.args.context_length, **limits)
    arrays: dict[str, np.ndarray] = {}
    for case in cases:
        for number, item in enumerate(case.items):
            responses = stream_generate(model, tokenizer, item.tokens, item.max_tokens, mode="ar")
            answer = [response.token for response in responses]
            arrays |= {f"{case.name}/{number}/{name}": a for name, a in record(model, item.tokens, answer).items()}
            print(f"{case.name} {number}: {len(answer)} tokens", flush=True)
    partial = args.out.with_suffix(".partial.npz")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(partial, **cast(Any, arrays))
    partial.replace(args.out)


def record(model: Model, prompt: Sequence[int], answer: Sequence[int]) -> dict[str, np.ndarray]:
    """The trace of one answer: `prompt`, `answer` (ids), `certainties`, and per width `confidences/W` and `ranks/W`.

    certainties [A] uint8: the probability that the target gave to each token of the answer. confidences/W [A, W-1, C]
    uint8: that of candidate c for position i behind anchor a; the anchors are the prompt's last token and every answer
    token but the last. Both in 255ths of their square roots. ranks/W [A, W-1] uint8: which candidate the text took, or
    `MISSING`.
    """
    cache = KVCache(len(model.layers))
    if len(prompt) > 1:
        mx.eval(model.model(mx.array([prompt[:-1]], dtype=mx.int32), cache))
        cache.commit(len(prompt) - 1)
    tokens: dict[int, list[np.ndarray]] = {width: [] for width in WIDTHS}
    confidences: dict[int, list[np.ndarray]] = {width: [] for width in WIDTHS}
    certainties = []
    for pending, token in zip([prompt[-1], *answer[:-1]], answer, strict=True):
        for width in WIDTHS:
            block = mx.array([pending] + [model.args.mask_token_id] * (width - 1), dtype=mx.int32)
            probs = _probabilities(model, Block(cache, block, DIFFUSION, wanted=width - 1))
            best = np.argsort(-probs, axis=-1)[:, :CANDIDATES]
            tokens[width].append(best)
            confidences[width].append(np.take_along_axis(probs, best, axis=-1))
        certainties.append(_probabilities(model, Block(cache, mx.array([pending], dtype=mx.int32), AR))[0, token])
        cache.commit(1)
    trace = {
        "prompt": np.array(prompt, np.uint16),
        "answer": np.array(answer, np.uint16),
        "certainties": _roots(certainties),
    }
    for width in WIDTHS:
        trace[f"confidences/{width}"] = _roots(confidences[width])
        trace[f"ranks/{width}"] = _ranks(np.array(tokens[width]), answer)
    return trace


def _probabilities(model: Model, block: Block) -> np.ndarray:
    return np.array(mx.softmax(run_pass(model, [block])[0].astype(mx.float32), axis=-1))


def _roots(probabilities: Sequence[Any]) -> np.ndarray:
    return np.rint(255 * np.sqrt(np.array(probabilities))).astype(np.uint8)


def _ranks(candidates: np.ndarray, answer: Sequence[int]) -> np.ndarray:
    anchors, positions, _ = candidates.shape
    ranks = np.full((anchors, positions), MISSING, np.uint8)
    for anchor in range(anchors):
        for position, token in enumerate(answer[anchor : anchor + positions]):
            found = np.flatnonzero(candidates[anchor, position] == token)
            if found.size:
                ranks[anchor, position] = found[0]
    return ranks


if __name__ == "__main__":
    main()
