"""Checks passes of the CUDA kernels on an NVIDIA GPU: rows alone, in blocks and in trees, and the demo model's tokens.

python -m benchmarks.cuda_pass                                              (rows, then tokens)
compute-sanitizer --tool racecheck python -m benchmarks.cuda_pass --rows    (memcheck, synccheck likewise)
"""

from __future__ import annotations

import argparse
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from orthrus_mlx import demo_folder, load_model_and_tokenizer
from orthrus_mlx.acceleration import pack
from orthrus_mlx.bench.prompts import read_prompts
from orthrus_mlx.cache import KVCache
from orthrus_mlx.config import ModelArgs
from orthrus_mlx.exactness import exactness_of
from orthrus_mlx.fused_pass import fused_pass
from orthrus_mlx.generation import stream_generate
from orthrus_mlx.model import Model
from orthrus_mlx.passes import Block, run_pass
from orthrus_mlx.trees import paths

ROWS = (1, 7, 9, 32)
TREE = (-1, 0, 0, 1, 1, 3, 4)
PREFIX = 700
"""Six chunks of keys."""

SAMPLING: tuple[dict[str, Any], ...] = ({}, {"temperature": 0.8, "seed": 5}, {"temperature": 1.0, "seed": 9})
MODES = ("ar", "diffusion", "auto")
PROMPTS = 4


def small_model(bits: int) -> Model:
    """Two layers with random weights, on the kernels."""
    mx.random.seed(1)
    args = ModelArgs("orthrus", 256, 2, 512, 4, 2, 128, 96, 1e-6, 4096, True, 1e6, None, 8, 95)
    model = Model(args).eval()
    model.set_dtype(mx.bfloat16)
    if bits < 16:
        nn.quantize(model, 64, bits)
    pack(model)
    mx.eval(model.parameters())
    found = fused_pass(model)
    assert found is not None
    model.model.fused, model.fused_head = found, found.head
    return model


def differing_rows(bits: int) -> list[str]:
    """Where rows of a block or a tree have other logits than in the widest block."""
    model, cache = small_model(bits), KVCache(2)
    ids = mx.arange(max(ROWS), dtype=mx.int32)
    mx.eval(run_pass(model, [Block(cache, ids)]))
    cache.commit(PREFIX, [i % ids.size for i in range(PREFIX)])
    (widest,) = run_pass(model, [Block(cache, ids)])
    found = []
    for rows in ROWS:
        (block,) = run_pass(model, [Block(cache, ids[:rows])])
        if not mx.array_equal(block, widest[:rows]).item():
            found.append(f"block of {rows}")
    (tree,) = run_pass(model, [Block(cache, ids[: len(TREE)], parents=TREE)])
    for path in paths(TREE):
        (chain,) = run_pass(model, [Block(cache, ids[mx.array(path)])])
        if not mx.array_equal(tree[mx.array(path)], chain).item():
            found.append(f"path {path}")
    return found


def check_rows() -> bool:
    found = {bits: differing_rows(bits) for bits in (16, 4)}
    for bits, differing in found.items():
        print(f"{bits} bits: {', '.join(differing) or 'rows of blocks and trees have equal bits'}", flush=True)
    return not any(found.values())


def check_tokens() -> bool:
    """Whether the demo model emits the same tokens in every mode."""
    model, tokenizer = load_model_and_tokenizer(demo_folder())
    exactness = exactness_of(model)
    print(f"demo: {'; '.join(model.kernels.notes)}; {exactness}, {exactness.evidence}", flush=True)
    equal = []
    prompts, _ = read_prompts("demo")
    for prompt in prompts[:: len(prompts) // PROMPTS][:PROMPTS]:
        ids = tokenizer.apply_chat_template(list(prompt.messages), add_generation_prompt=True)
        for options in SAMPLING:
            found = [
                [r.token for r in stream_generate(model, tokenizer, ids, max_tokens=160, mode=mode, **options)]
                for mode in MODES
            ]
            equal.append(all(tokens == found[0] for tokens in found))
            print(f"{len(found[0])} tokens, {options or 'greedy'}: {'equal' if equal[-1] else 'DIFFERENT'}", flush=True)
    print(f"{sum(equal)} of {len(equal)} answers have the same tokens in {', '.join(MODES)}")
    return all(equal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", action="store_true", help="only the rows of small random models")
    options = parser.parse_args()
    if not mx.cuda.is_available():
        parser.error("needs MLX's CUDA build and an NVIDIA GPU; on the CPU, pytest tests/test_cuda_kernels.py")
    raise SystemExit(not (check_rows() and (options.rows or check_tokens())))


if __name__ == "__main__":
    main()
