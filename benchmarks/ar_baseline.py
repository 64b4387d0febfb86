"""AR mode against `mlx_lm.stream_generate` on the same weights: tokens per second, interleaved.

    python benchmarks/ar_baseline.py [--model FOLDER] [--tokens 128] [--repeats 9]

Both sides run the same greedy prompt in the same process, in alternating order; the figure is the median of the
per-pair ratios. Tokens are compared too: a faster wrong answer is no answer.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from importlib.metadata import version

import mlx.core as mx
import mlx_lm

import orthrus_mlx

QUESTION = "Tell me a story about a lighthouse keeper."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(orthrus_mlx.demo_folder()))
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()

    model, tokenizer = orthrus_mlx.load(args.model)
    stock, stock_tokenizer = mlx_lm.load(args.model)
    stock_tokenizer.eos_token_ids = []
    tokenizer.eos_token_ids = []
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], add_generation_prompt=True)

    def ours() -> tuple[list[int], float]:
        start = time.perf_counter()
        out = orthrus_mlx.stream_generate(model, tokenizer, prompt, args.tokens, mode="ar")
        return [r.token for r in out], time.perf_counter() - start

    def theirs() -> tuple[list[int], float]:
        start = time.perf_counter()
        out = mlx_lm.stream_generate(stock, stock_tokenizer, prompt, args.tokens)
        return [r.token for r in out], time.perf_counter() - start

    assert ours()[0] == theirs()[0], "the two sides emit different tokens"
    ratios, rates = [], {"orthrus_mlx": [], "mlx_lm": []}
    for repeat in range(args.repeats):
        sides = {"orthrus_mlx": ours, "mlx_lm": theirs}
        seconds = {}
        for name in sorted(sides, reverse=bool(repeat % 2)):
            _, seconds[name] = sides[name]()
            rates[name].append(args.tokens / seconds[name])
        ratios.append(seconds["mlx_lm"] / seconds["orthrus_mlx"])
    quartiles = statistics.quantiles(ratios, n=4)
    print(
        f"{platform.machine()} {platform.system()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
        f"device {mx.default_device().type.name}, mlx {version('mlx')}, {args.tokens} tokens"
    )
    for name, values in rates.items():
        print(f"{name:12} {statistics.median(values):8.1f} tok/s (median of {args.repeats})")
    spread = f"quartiles {quartiles[0]:.3f}..{quartiles[2]:.3f}"
    print(f"ratio orthrus_mlx / mlx_lm: {statistics.median(ratios):.3f} ({spread})")


if __name__ == "__main__":
    main()
