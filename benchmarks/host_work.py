"""What a cycle costs besides its passes: the share of wall time outside of passes and of waiting for their results.

    python benchmarks/host_work.py [--model FOLDER] [--prompts 5]

Every held-out prompt of the demo's families is answered in each mode. Counted as the host's own work: the policy, the
n-gram index, shaping trees, acceptance, statistics and the loop itself. Looks through the vocabulary (choosing tokens,
confidences) are the device's work where there is one; on a CPU they are given apart. Building and running a pass's
graph, and waiting for values, count as the pass's.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from orthrus_mlx import DecodeStats, KVCache, Sampling, demo_folder, exactness_of, load
from orthrus_mlx.decoding import loop
from orthrus_mlx.decoding.alone import Generation
from orthrus_mlx.decoding.model_policy import make_policy
from orthrus_mlx.decoding.ngram import NGramIndex
from orthrus_mlx.passes import Block
from orthrus_mlx.training.corpus import FAMILIES, heldout, render_prompt


class TimedGeneration(Generation):
    """Adds up the seconds in passes and in waiting for values."""

    busy = 0.0

    def _pass(self, block: Block) -> mx.array:
        start = time.perf_counter()
        try:
            return super()._pass(block)
        finally:
            self.busy += time.perf_counter() - start

    def _read(self, arrays: Sequence[mx.array]) -> list:
        start = time.perf_counter()
        try:
            return super()._read(arrays)
        finally:
            self.busy += time.perf_counter() - start


class Looks:
    """Adds up the seconds in functions that look through the vocabulary."""

    seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.seconds += time.perf_counter() - start

        return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(demo_folder()))
    parser.add_argument("--prompts", type=int, default=5, help="held-out prompts per family")
    args = parser.parse_args()
    model, tokenizer = load(args.model)
    exactness = exactness_of(model)
    prompts = [
        tokenizer.encode(render_prompt(example), add_special_tokens=False)
        for family in FAMILIES
        for example in heldout(family, args.prompts, seed=3)
    ]
    print(f"load {os.getloadavg()[0]:.1f}, {len(prompts)} prompts")
    print(f"{'mode':10} {'cycles':>7} {'ms/cycle':>9} {'host ms':>8} {'share':>7} {'and looks':>10} {'share':>7}")
    looks = Looks()
    for name in ("confidences", "certainties"):
        setattr(loop, name, looks.timed(getattr(loop, name)))
    loop.Decoder._choose = looks.timed(loop.Decoder._choose)  # type: ignore[method-assign]
    for mode in ("ar", "diffusion", "auto"):
        total = busy = looks.seconds = 0.0
        cycles = 0
        for prompt in prompts:
            stats = DecodeStats()
            rows = 1 if mode == "ar" else model.args.block_size
            policy = make_policy(model, mode, rows, exactness, prompt=prompt, sampled=False)
            decoder = loop.Decoder(
                model,
                KVCache(len(model.layers)),
                sampling=Sampling(),
                policy=policy,
                ngrams=NGramIndex() if policy.learns else None,
                exactness=exactness,
                block_size=rows,
                stop_tokens=tokenizer.eos_token_ids,
                limit=256,
                stats=stats,
            )
            generation = TimedGeneration(model, decoder, exactness)
            generation.read(prompt, step_size=2048, progress=None)
            start = time.perf_counter()
            for _ in generation.run():
                pass
            total += time.perf_counter() - start
            busy += generation.busy
            cycles += stats.cycles
        both = total - busy
        host = both - looks.seconds
        print(
            f"{mode:10} {cycles:7} {1e3 * total / cycles:9.2f} {1e3 * host / cycles:8.3f} {host / total:7.1%} "
            f"{1e3 * both / cycles:10.3f} {both / total:7.1%}"
        )


if __name__ == "__main__":
    main()
