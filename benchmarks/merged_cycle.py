"""The one-pass cycle against the two-pass cycle: tokens per pass and per second on the demo model's held-out prompts.

    python benchmarks/merged_cycle.py [--model FOLDER] [--prompts 8] [--tokens 128] [--output FILE.json]

Two passes: a diffusion pass over K rows drafts, a target pass over K rows verifies. One pass: the target pass over
`verify` rows also carries `rows` diffusion rows behind each anchor row; where the last confirmed anchor expected what
the target then chose, the next cycle is drafted already. All settings have at most 32 rows in a pass. Tokens are
compared with one-token decoding.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from orthrus_mlx import DecodeStats, KVCache, Sampling, demo_folder, exactness_of, load
from orthrus_mlx.atomic_file import write_json
from orthrus_mlx.decoding.alone import Generation
from orthrus_mlx.decoding.loop import Decoder
from orthrus_mlx.decoding.policy import FixedPolicy
from orthrus_mlx.decoding.steps import MERGED, Candidates, Draft, Outcome, Situation, Step
from orthrus_mlx.training.corpus import FAMILIES, heldout, render_prompt


class MergedPolicy:
    """Always the one-pass cycle: `verify` rows, and `rows` diffusion rows behind each of `anchors`."""

    learns = False

    def __init__(self, verify: int, anchors: Sequence[int], rows: int):
        self._step = Step(MERGED, rows, verify, False, tuple(anchors))

    def step(self, situation: Situation) -> Step:
        return self._step

    def shape(self, step: Step, draft: Draft, situation: Situation) -> Candidates:
        raise AssertionError("a merged cycle reads no draft before it verifies")

    def observe(self, outcome: Outcome) -> None:
        pass


SETTINGS = {
    "one token": lambda: FixedPolicy(1),
    "two passes, K 4": lambda: FixedPolicy(4),
    "two passes, K 8": lambda: FixedPolicy(8),
    "two passes, K 16": lambda: FixedPolicy(16),
    "two passes, K 32": lambda: FixedPolicy(32),
    "one pass, 2 + 2 x 4": lambda: MergedPolicy(2, (0, 1), 4),
    "one pass, 4 + 4 x 5": lambda: MergedPolicy(4, (0, 1, 2, 3), 5),
    "one pass, 4 + 4 x 7": lambda: MergedPolicy(4, (0, 1, 2, 3), 7),
    "one pass, 8 + 3 x 8": lambda: MergedPolicy(8, (0, 3, 7), 8),
    "one pass, 12 + 1 x 20": lambda: MergedPolicy(12, (11,), 20),
    "one pass, 16 + 1 x 16": lambda: MergedPolicy(16, (15,), 16),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(demo_folder()))
    parser.add_argument("--prompts", type=int, default=8, help="held-out prompts per family")
    parser.add_argument("--tokens", type=int, default=128, help="most tokens of an answer")
    parser.add_argument("--output", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    model, tokenizer = load(args.model)
    exactness = exactness_of(model)
    machine = (
        f"{platform.machine()} {platform.system()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
        f"mlx {version('mlx')}, {exactness}"
    )
    print(machine)

    def answer(prompt: list[int], policy) -> tuple[list[int], DecodeStats, float]:
        stats, cache = DecodeStats(), KVCache(len(model.layers))
        decoder = Decoder(
            model,
            cache,
            sampling=Sampling(),
            policy=policy,
            exactness=exactness,
            block_size=32,
            stop_tokens=tokenizer.eos_token_ids,
            limit=args.tokens,
            stats=stats,
        )
        generation = Generation(model, decoder, exactness)
        generation.read(prompt, step_size=2048, progress=None)
        start = time.perf_counter()
        tokens = [emission.token for emission in generation.run()]
        return tokens, stats, time.perf_counter() - start

    figures = []
    for family in FAMILIES:
        prompts = [
            tokenizer.encode(render_prompt(example), add_special_tokens=False)
            for example in heldout(family, args.prompts, seed=3)
        ]
        results = {name: [] for name in SETTINGS}
        for prompt in prompts:
            for name, make in SETTINGS.items():
                results[name].append(answer(prompt, make()))
        print(f"\n{family:22} {'tokens/cycle':>12} {'tokens/pass':>12} {'speed':>7}")
        for name, runs in results.items():
            for (tokens, _, _), (expected, _, _) in zip(runs, results["one token"], strict=True):
                assert tokens == expected, f"{family}, {name}: other tokens than one-token decoding"
            tokens = sum(stats.tokens for _, stats, _ in runs)
            passes = sum(stats.ar_passes + stats.diffusion_passes for _, stats, _ in runs)
            cycles = sum(stats.cycles for _, stats, _ in runs)
            speeds = [
                plain / seconds for (_, _, seconds), (_, _, plain) in zip(runs, results["one token"], strict=True)
            ]
            row = {
                "family": family,
                "setting": name,
                "tokens_per_cycle": tokens / cycles,
                "tokens_per_pass": tokens / passes,
                "speed": statistics.median(speeds),
            }
            figures.append(row)
            print(f"{name:22} {tokens / cycles:12.2f} {tokens / passes:12.2f} {row['speed']:7.2f}")
    if args.output:
        write_json(args.output, {"machine": machine, "command": " ".join(sys.argv), "figures": figures})
        print(json.dumps(str(args.output)))


if __name__ == "__main__":
    main()
