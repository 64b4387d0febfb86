"""Record what the diffusion view of a model would have drafted at every position of its own greedy answers.

    python benchmarks/record_traces.py [--model FOLDER] [--prompts 8] [--out benchmarks/results/demo_traces.npz]

Every answer is decoded one token at a time. At each token a diffusion pass of every width runs with that token as the
anchor, and its likeliest candidates are compared with what the autoregressive view emits later. As no policy changes
the text, such a trace replays any policy: see `policy_simulation.py`, which reads the file (`load_traces` there says
what it holds).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np

import orthrus_mlx
from orthrus_mlx import KVCache
from orthrus_mlx.model import AR, DIFFUSION, Model
from orthrus_mlx.training.corpus import FAMILIES, heldout, render_prompt

WIDTHS = (32, 16, 8, 4)
CANDIDATES = 4
MISSING = 255
"""In place of a rank: the emitted token is not among the candidates, or the text has ended."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(orthrus_mlx.demo_folder()))
    parser.add_argument("--prompts", type=int, default=8, help="held-out prompts per family")
    parser.add_argument("--tokens", type=int, default=160, help="most tokens of an answer")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/demo_traces.npz"))
    args = parser.parse_args()
    model, tokenizer = orthrus_mlx.load(args.model)
    model.set_dtype(mx.float32)
    arrays: dict[str, np.ndarray] = {}
    for family in FAMILIES:
        for number, example in enumerate(heldout(family, args.prompts, seed=3)):
            prompt = tokenizer.encode(render_prompt(example), add_special_tokens=False)
            trace = record(model, prompt, set(tokenizer.eos_token_ids), args.tokens)
            arrays |= {f"{family}/{number}/{name}": array for name, array in trace.items()}
            print(f"{family} {number}: {len(trace['answer'])} tokens", flush=True)
    partial = args.out.with_suffix(".partial.npz")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(partial, **cast(Any, arrays))
    partial.replace(args.out)


def record(model: Model, prompt: list[int], stop: set[int], most: int) -> dict[str, np.ndarray]:
    """The trace of one answer: `prompt`, `answer` (ids), and per width `confidences/W` and `ranks/W`.

    confidences/W [A, W-1, C] uint8: probability of candidate c for position i behind anchor a, in 255ths of its square
    root; the anchors are the prompt's last token and every answer token but the last. ranks/W [A, W-1] uint8: which
    candidate the text took, or `MISSING`.
    """
    cache = KVCache(len(model.layers))
    if len(prompt) > 1:
        mx.eval(model.model(mx.array([prompt[:-1]], dtype=mx.int32), cache))
        cache.commit(len(prompt) - 1)
    pending, answer = prompt[-1], []
    tokens: dict[int, list[np.ndarray]] = {width: [] for width in WIDTHS}
    confidences: dict[int, list[np.ndarray]] = {width: [] for width in WIDTHS}
    while len(answer) < most:
        for width in WIDTHS:
            block = mx.array([[pending] + [model.args.mask_token_id] * (width - 1)], dtype=mx.int32)
            logits = model(block, cache, view=DIFFUSION)[0, :-1].astype(mx.float32)
            probs = np.array(mx.softmax(logits, axis=-1))
            best = np.argsort(-probs, axis=-1)[:, :CANDIDATES]
            tokens[width].append(best)
            confidences[width].append(np.take_along_axis(probs, best, axis=-1))
        logits = model(mx.array([[pending]], dtype=mx.int32), cache, view=AR)[0, -1]
        cache.commit(1)
        pending = cast(int, mx.argmax(logits).item())
        answer.append(pending)
        if pending in stop:
            break
    trace = {"prompt": np.array(prompt, np.uint16), "answer": np.array(answer, np.uint16)}
    for width in WIDTHS:
        trace[f"confidences/{width}"] = np.rint(255 * np.sqrt(np.array(confidences[width]))).astype(np.uint8)
        trace[f"ranks/{width}"] = _ranks(np.array(tokens[width]), answer)
    return trace


def _ranks(candidates: np.ndarray, answer: list[int]) -> np.ndarray:
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
