"""The demo model's decoding modes against each other on chat-formatted held-out prompts: seconds per answer.

    python benchmarks/demo_modes.py [--model FOLDER] [--prompts 5] [--repeats 3] [--dtype bfloat16]

Every prompt is answered greedily by all modes in turn, in alternating order, reading the prompt included. The figure of
a family is the median over prompts and repeats of AR's seconds over the mode's seconds, for the same prompt and repeat;
above 1 the mode is faster. Tokens are compared, too: a faster wrong answer is no answer. The cost of an AR pass by its
rows, behind a prefix of 64 tokens, stands first.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from importlib.metadata import version

import mlx.core as mx

import orthrus_mlx
from orthrus_mlx import KVCache
from orthrus_mlx.model import Model
from orthrus_mlx.training.corpus import FAMILIES, heldout, render_prompt

MODES = ("ar", "diffusion", "auto")
MAX_TOKENS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(orthrus_mlx.demo_folder()))
    parser.add_argument("--prompts", type=int, default=5, help="held-out prompts per family")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", help="cast the weights, as in float32; default: the checkpoint's own")
    args = parser.parse_args()
    model, tokenizer = orthrus_mlx.load(args.model)
    if args.dtype:
        model.set_dtype(getattr(mx, args.dtype))
    exactness = orthrus_mlx.exactness_of(model)
    print(
        f"{platform.machine()} {platform.system()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
        f"device {mx.default_device().type.name}, mlx {version('mlx')}, {model.model.norm.weight.dtype}, {exactness}"
    )

    def answer(prompt: list[int], mode: str) -> tuple[list[int], float, float]:
        stats = orthrus_mlx.DecodeStats()
        start = time.perf_counter()
        tokens = list(
            orthrus_mlx.mlx_generate(model, prompt, tokenizer.eos_token_ids, MAX_TOKENS, mode=mode, stats=stats)
        )
        return tokens, time.perf_counter() - start, stats.tokens_per_cycle

    costs = {rows: _pass_seconds(model, rows) for rows in (1, 8, 16, 32)}
    print("AR pass: " + ", ".join(f"{rows} rows {1000 * s:.1f} ms" for rows, s in costs.items()))
    print(f"{'family':10} {'ar tok/s':>9} {'diffusion/ar':>18} {'auto/ar':>18} {'tokens per cycle':>17}   (quartiles)")
    for family in FAMILIES:
        ratios: dict[str, list[float]] = {mode: [] for mode in MODES[1:]}
        rates, cycles = [], []
        for number, example in enumerate(heldout(family, args.prompts, seed=3)):
            prompt = tokenizer.encode(render_prompt(example), add_special_tokens=False)
            for repeat in range(args.repeats):
                seconds, tokens = {}, {}
                for mode in MODES[:: -1 if (number + repeat) % 2 else 1]:
                    tokens[mode], seconds[mode], per_cycle = answer(prompt, mode)
                    if mode == "diffusion" and repeat == 0:
                        cycles.append(per_cycle)
                assert tokens["ar"] == tokens["diffusion"] == tokens["auto"], "the modes emit different tokens"
                rates.append(len(tokens["ar"]) / seconds["ar"])
                for mode, values in ratios.items():
                    values.append(seconds["ar"] / seconds[mode])
        print(
            f"{family:10} {statistics.median(rates):9.1f} {_spread(ratios['diffusion']):>18} "
            f"{_spread(ratios['auto']):>18} {statistics.median(cycles):17.1f}"
        )


def _pass_seconds(model: Model, rows: int) -> float:
    cache = KVCache(len(model.layers))
    mx.eval(model(mx.zeros((1, 64), mx.int32), cache))
    cache.commit(64)
    seconds = []
    for _ in range(15):
        start = time.perf_counter()
        mx.eval(model(mx.zeros((1, rows), mx.int32), cache))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _spread(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f}..{high:.2f})"


if __name__ == "__main__":
    main()
