"""Passes of the demo model on the CPU, with the operations that were chosen here and with stock MLX alone.

    python benchmarks/cpu_passes.py

Milliseconds per autoregressive pass by rows and cached tokens, medians of interleaved runs; the logits' bits are
compared between row counts by the exactness probe. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
import time

import mlx.core as mx

from orthrus_mlx import demo_folder
from orthrus_mlx.acceleration import accelerate
from orthrus_mlx.cache import KVCache
from orthrus_mlx.exactness import probe
from orthrus_mlx.loading import load_model, read_config
from orthrus_mlx.machine import describe_machine
from orthrus_mlx.model import Model
from orthrus_mlx.passes import target_pass

ROWS = (1, 8, 16, 32)
CONTEXTS = (100, 1000)
MODES = ("off", "auto")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=21, help="passes of each kind (default: %(default)s)")
    repeats = parser.parse_args().repeats

    for label, value in describe_machine().items():
        print(f"{label}: {value}")
    folder = demo_folder()
    models = {mode: load_model(folder, read_config(folder)) for mode in MODES}
    for mode, model in models.items():
        for note in accelerate(model, mode).notes:
            print(f"{mode}: {note}")
        start = time.perf_counter()
        found = probe(model)
        print(f"{mode}: {found}, {found.evidence}; probed in {time.perf_counter() - start:.2f} s")
    print("\ncached  rows  stock MLX ms   chosen ms")
    for context in CONTEXTS:
        caches = {mode: filled(model, context) for mode, model in models.items()}
        for rows in ROWS:
            times: dict[str, list[float]] = {mode: [] for mode in MODES}
            for _ in range(repeats):
                for mode, model in models.items():
                    times[mode].append(timed(model, caches[mode], rows))
            stock, chosen = (statistics.median(times[mode][1:]) for mode in MODES)
            print(f"{context:6}  {rows:4}  {stock:12.2f}  {chosen:10.2f}")


def filled(model: Model, length: int) -> KVCache:
    cache = KVCache(len(model.layers))
    model.model(mx.arange(length)[None], cache)
    cache.commit(length)
    mx.eval(cache.arrays)
    return cache


def timed(model: Model, cache: KVCache, rows: int) -> float:
    start = time.perf_counter()
    mx.eval(target_pass(model, mx.arange(rows), cache, rows))
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    main()
