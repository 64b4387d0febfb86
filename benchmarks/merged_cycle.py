"""The one-pass cycle against the two-pass cycle: tokens per pass and per second on the demo model's held-out prompts.

    python benchmarks/merged_cycle.py [--model FOLDER] [--prompts 8] [--tokens 128] [--output FILE.json]
    python -m benchmarks.merged_cycle --passes 1.7B    # instead: what the passes cost in that shape, random weights

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

import mlx.core as mx

from orthrus_mlx import DecodeStats, KVCache, Sampling, demo_folder, exactness_of, load
from orthrus_mlx.atomic_file import write_json
from orthrus_mlx.decoding.alone import Generation
from orthrus_mlx.decoding.loop import Decoder
from orthrus_mlx.decoding.policy import FixedPolicy
from orthrus_mlx.decoding.steps import MERGED, Candidates, Draft, Outcome, Situation, Step
from orthrus_mlx.passes import Block, run_pass
from orthrus_mlx.training.corpus import FAMILIES, heldout, render_prompt
from orthrus_mlx.weights import AR, DIFFUSION


class MergedPolicy:
    """Always the one-pass cycle: `verify` rows, and `rows` diffusion rows behind each of `anchors`."""

    learns = False
    prediction = None

    def __init__(self, verify: int, anchors: Sequence[int], rows: int):
        self._step = Step(MERGED, rows, verify, False, tuple(anchors))

    def step(self, situation: Situation) -> Step:
        return self._step

    def shape(self, step: Step, draft: Draft, situation: Situation) -> Candidates:
        raise AssertionError("a merged cycle reads no draft before it verifies")

    def observe(self, outcome: Outcome) -> None:
        pass


ONE_PASS = (
    (2, (0, 1), 4),
    (4, (0, 1, 2, 3), 5),
    (4, (0, 1, 2, 3), 7),
    (8, (0, 3, 7), 8),
    (12, (11,), 20),
    (16, (15,), 16),
)
"""Rows verified, anchors, diffusion rows behind each."""

SETTINGS = {
    "one token": FixedPolicy(1),
    **{f"two passes, K {rows}": FixedPolicy(rows) for rows in (4, 8, 16, 32)},
    **{f"one pass, {v} + {len(a)} x {rows}": MergedPolicy(v, a, rows) for v, a, rows in ONE_PASS},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(demo_folder()))
    parser.add_argument("--prompts", type=int, default=8, help="held-out prompts per family")
    parser.add_argument("--tokens", type=int, default=128, help="most tokens of an answer")
    parser.add_argument("--passes", metavar="SIZE", help="time passes in the shape of 1.7B, 4B or 8B instead")
    parser.add_argument("--output", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if args.passes:
        time_passes(args.passes)
        return
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
            for name, policy in SETTINGS.items():
                results[name].append(answer(prompt, policy))
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


def time_passes(size: str, context: int = 1024) -> None:
    """Print the milliseconds of the passes that the settings are made of, waited for, on MLX's own kernels."""
    # Random weights need a GPU; the demo model does not.
    from benchmarks.real_shapes import filled_cache, milliseconds, model_args, random_model

    model = random_model(model_args(size), 16)
    print(f"{size}, bf16, MLX {version('mlx')}, {mx.device_info().get('device_name', 'CPU')}, context {context}")

    def cost(verify: int, anchors: Sequence[int], rows: int, view: str = AR) -> float:
        cache = filled_cache(model, context)
        ids = mx.random.randint(0, model.args.vocab_size, (max(verify, rows),))
        blocks = [Block(cache, ids[:verify], view)] if verify else []
        blocks += [Block(cache, ids[:rows], DIFFUSION, behind=anchor) for anchor in anchors]
        return milliseconds(lambda: [mx.argmax(logits, axis=-1) for logits in run_pass(model, blocks)], 15)

    for rows in (1, 4, 8, 16, 32):
        print(f"{rows:2} rows: target {cost(rows, (), 0):6.2f}, draft {cost(rows, (), 0, DIFFUSION):6.2f}", flush=True)
    for verify, anchors, rows in ONE_PASS:
        print(f"one pass, {verify} + {len(anchors)} x {rows}: {cost(verify, anchors, rows):6.2f}", flush=True)


if __name__ == "__main__":
    main()
