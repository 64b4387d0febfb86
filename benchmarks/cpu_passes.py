"""Passes of the demo model on the CPU, through NumPy and with stock MLX, and one-token steps beside mlx-lm's.

    python benchmarks/cpu_passes.py

Milliseconds per pass of both views, the choice of tokens included, by rows and cached tokens: medians of rounds in
which every kind of pass runs once. Then tokens a second of short answers, the prompt not counted, in turn with
mlx_lm.stream_generate on stock layers. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import mlx.core as mx
from mlx_lm import stream_generate as mlx_lm_stream

from orthrus_mlx import demo_folder, stream_generate
from orthrus_mlx.acceleration import accelerate
from orthrus_mlx.cache import KVCache
from orthrus_mlx.exactness import exactness_of, probe
from orthrus_mlx.loading import load_model, load_tokenizer, read_config
from orthrus_mlx.machine import describe_machine
from orthrus_mlx.model import AR, DIFFUSION, Model
from orthrus_mlx.passes import Block, run_pass

ROWS = (1, 2, 4, 8, 16, 32)
CONTEXTS = (0, 256, 1024)
VIEWS = {"ar": AR, "diffusion": DIFFUSION}
MODES = ("off", "auto")
QUESTIONS = ("What is the capital of France?", "Write a Python function that reverses a list.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=21, help="rounds (default: %(default)s)")
    repeats = parser.parse_args().repeats

    for label, value in describe_machine().items():
        print(f"{label}: {value}")
    print(f"load: {os.getloadavg()[0]:.2f}")
    folder = demo_folder()
    config = read_config(folder)
    models = {mode: load_model(folder, config) for mode in MODES}
    for mode, model in models.items():
        for note in accelerate(model, mode).notes:
            print(f"{mode}: {note}")
        start = time.perf_counter()
        found = probe(model)
        print(f"{mode}: {found}, {found.evidence}; probed in {time.perf_counter() - start:.2f} s")
    passes(models, repeats)
    steps_behind_cycles(models[MODES[-1]], repeats)
    answers(models, load_tokenizer(folder, config), max(3, repeats // 4))


def passes(models: dict[str, Model], repeats: int) -> None:
    caches = {(mode, context): filled(model, context) for mode, model in models.items() for context in CONTEXTS}
    kinds = [(view, context, rows) for view in VIEWS for context in CONTEXTS for rows in ROWS]
    times: dict[tuple[str, str, int, int], list[float]] = {}
    for _ in range(repeats):
        for kind in kinds:
            for mode, model in models.items():
                view, context, rows = kind
                spent = timed(model, Block(caches[mode, context], mx.arange(rows), VIEWS[view]))
                times.setdefault((mode, *kind), []).append(spent)
    print("\nview       cached  rows  stock MLX ms   chosen ms")
    for kind in kinds:
        view, context, rows = kind
        stock, chosen = (statistics.median(times[mode, *kind][1:]) for mode in MODES)
        print(f"{view:9}  {context:6}  {rows:4}  {stock:12.2f}  {chosen:10.2f}")


def steps_behind_cycles(model: Model, repeats: int) -> None:
    """One-token steps one after the other, and the first ones behind a draft and its verification."""
    cache = filled(model, 0)
    run_pass(model, [Block(cache, mx.arange(32))])
    cache.commit(32)
    wide, step = mx.arange(16), Block(cache, mx.arange(1))
    steady = [timed(model, step) for _ in range(5 * repeats)][repeats:]
    rounds = []
    for _ in range(repeats):
        for view in (DIFFUSION, AR):
            timed(model, Block(cache, wide, view))
        rounds.append([timed(model, step) for _ in range(5)])
    behind = ", ".join(f"{statistics.median(times):.2f}" for times in zip(*rounds, strict=True))
    print(f"\none-token steps: {statistics.median(steady):.2f} ms, behind a cycle of 16 rows {behind}")


def answers(models: dict[str, Model], tokenizer, repeats: int) -> None:
    stock, chosen = (models[mode] for mode in MODES)
    exactness_of(chosen)
    print("\ntokens a second of an answer: mlx_lm, ar")
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        speeds: dict[str, list[float]] = {"mlx_lm": [], "ar": []}
        for _ in range(repeats + 1):
            for name in speeds:
                *_, last = (
                    mlx_lm_stream(stock, tokenizer, prompt, max_tokens=48)
                    if name == "mlx_lm"
                    else stream_generate(chosen, tokenizer, prompt, max_tokens=48, mode="ar")
                )
                speeds[name].append(last.generation_tps)
        theirs, ours = (statistics.median(found[1:]) for found in speeds.values())
        print(f"{theirs:7.1f} {ours:7.1f}  ({ours / theirs:.2f}x)  {question}")


def filled(model: Model, length: int) -> KVCache:
    cache = KVCache(len(model.layers))
    if length:
        model.model(mx.arange(length)[None], cache)
        cache.commit(length)
        mx.eval(cache.arrays)
    return cache


def timed(model: Model, block: Block) -> float:
    start = time.perf_counter()
    (logits,) = run_pass(model, [block])
    mx.eval(mx.argmax(logits, axis=-1))
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    main()
