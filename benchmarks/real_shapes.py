"""Pass costs, and tokens per second for a stated acceptance, in the exact shapes of Orthrus-Qwen3 1.7B, 4B and 8B.

    python -m benchmarks.real_shapes --output benchmarks/results/real_shapes

The weights are random, so drafts agree with nothing: accepted lengths are *replayed*. Where the decode loop compares
drafts with the target's choices, a length from a fixed sequence is put in the comparison's place; everything else, both
passes, host and synchronisation, is the loop's own. The sequences follow tokens per cycle that others published for
trained models; here they are an input, not a result. All speeds of one table come from one run.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from mlx_lm.models import qwen3
from mlx_lm.models.cache import make_prompt_cache

from orthrus_mlx import fused_pass
from orthrus_mlx.acceleration import accelerate, pack
from orthrus_mlx.atomic_file import write_json, write_text
from orthrus_mlx.cache import CHUNK, KVCache
from orthrus_mlx.config import MAX_BLOCK_SIZE, ModelArgs
from orthrus_mlx.decoding import loop
from orthrus_mlx.decoding.alone import Generation
from orthrus_mlx.decoding.policy import FixedPolicy
from orthrus_mlx.decoding.stats import DecodeStats
from orthrus_mlx.exactness import OFF, Exactness, probe
from orthrus_mlx.machine import BACKEND_WHEELS, installed
from orthrus_mlx.model import Model
from orthrus_mlx.passes import Block, run_pass
from orthrus_mlx.sampling import Sampling
from orthrus_mlx.weights import AR, DIFFUSION, is_diffusion

SHAPES = {
    "1.7B": {"hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 6144},
    "4B": {"hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32, "intermediate_size": 9728},
    "8B": {"hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "intermediate_size": 12288},
}

TOKENS_PER_CYCLE = {
    "prose (1.7B open prose, TPF 2.5)": 5.0,
    "code (1.7B HumanEval, TPF 3.14)": 6.28,
    "reasoning (1.7B GSM8K)": 7.75,
    "mathematics (8B MATH-500)": 12.7,
}
"""Published means for blocks of 32 rows, accepted drafts + 1; TPF counts both passes of a cycle."""

ROWS = (1, 2, 8, 16, 32)
CONTEXTS = (512, 1024, 4096, 16384, 32768)
LANES = (8, 16, 32)
"""Rows of a block, drafted and verified, in the replay."""

SWEPT = "code (1.7B HumanEval, TPF 3.14)"
"""The acceptance that is replayed at every context length, in blocks of SWEPT_ROWS rows."""

SWEPT_ROWS = 16

PIPED_ROWS = (1, 16, 32)

REPEATS = 7


def model_args(size: str) -> ModelArgs:
    return ModelArgs(
        model_type="orthrus",
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        rms_norm_eps=1e-6,
        max_position_embeddings=40960,
        tie_word_embeddings=size != "8B",
        rope_theta=1e6,
        block_size=32,
        mask_token_id=151669,
        **SHAPES[size],
    )


def random_model(args: ModelArgs, bits: int) -> Model:
    """Both views with random weights, bf16 or, with fewer than 16 `bits`, affine in groups of 64."""
    mx.random.seed(0)
    model = Model(args).eval()
    model.set_dtype(mx.bfloat16)
    if bits < 16:
        for layer in model.layers:
            nn.quantize(layer, 64, bits)
            mx.eval(layer.parameters())
        nn.quantize(model, 64, bits)
    mx.eval(model.parameters())
    return model


def streamed_bytes(model: Model) -> int:
    """Bytes of weights that a pass of the autoregressive view reads at least."""
    table = () if model.args.tie_word_embeddings else ("model.embed_tokens",)
    weights = tree_flatten(model.parameters())
    return sum(a.nbytes for name, a in weights if not is_diffusion(name) and not name.startswith(table))


# Measuring ----------------------------------------------------------------------------------------------


def milliseconds(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median wall time of evaluating what `call` returns, after one call to warm up."""
    mx.eval(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        mx.eval(call())
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def bandwidth(megabytes: int) -> dict[str, float]:
    """GB/s of a copy (bytes read and written) and of reading a bf16 matrix in a product with one row."""
    words = mx.random.randint(0, 2**31 - 1, (megabytes << 18,), dtype=mx.int32)
    width = 4096
    matrix = mx.random.normal((max(megabytes * (1 << 20) // (2 * width), 8), width)).astype(mx.bfloat16)
    row = mx.random.normal((1, width)).astype(mx.bfloat16)
    mx.eval(words, matrix, row)
    copy = milliseconds(lambda: words + 1)
    read = milliseconds(lambda: row @ matrix.T)
    return {"copy": 2e-6 * words.nbytes / copy, "read": 1e-6 * matrix.nbytes / read}


def filled_cache(model: Model, context: int) -> KVCache:
    """A cache that holds `context` rows, made up: their content changes no cost."""
    cache = KVCache(len(model.layers))
    if context:
        for layer, (keys, values) in zip(cache.layers, buffers(model, context), strict=True):
            layer.keys, layer.values = keys, values
        cache.offset = context
        mx.eval(cache.arrays)
    return cache


def buffers(model: Model, context: int) -> list[tuple[mx.array, mx.array]]:
    """Random keys and values [1, G, context rounded up, D] for every layer."""
    a = model.args
    shape = (1, a.num_key_value_heads, -(-context // CHUNK) * CHUNK, a.head_dim)
    rows = mx.random.normal(shape).astype(model.model.norm.weight.dtype)
    return [(rows + 0, rows * 0.5) for _ in model.layers]


def pass_milliseconds(model: Model, rows: int, context: int, view: str = AR, padded: int | None = None) -> float:
    """A pass up to the argmax of its logits, synchronised: what a cycle waits for."""
    cache = filled_cache(model, context)
    ids = mx.random.randint(0, model.args.vocab_size, (rows,))
    mx.eval(ids)
    return milliseconds(lambda: mx.argmax(run_pass(model, [Block(cache, ids, view)], padded)[0], axis=-1))


def piped_milliseconds(model: Model, rows: int, context: int, padded: int | None = None) -> float:
    """The same in a row, each pass queued behind the last one's tokens before those were read."""
    cache, times = filled_cache(model, context), []
    tokens = mx.random.randint(0, model.args.vocab_size, (rows,))
    before = tokens
    for _ in range(3 * REPEATS + 3):
        after = mx.argmax(run_pass(model, [Block(cache, before)], padded)[0], axis=-1).astype(mx.int32)
        mx.async_eval(after)
        mx.eval(before)
        times.append(time.perf_counter())
        before = after
    return 1e3 * statistics.median(b - a for a, b in pairwise(times[2:]))


def decode(model: Model, exactness: Exactness, rows: int, context: int, tokens: int) -> tuple[float, DecodeStats]:
    """(milliseconds per token, statistics) of this package's loop with `rows` rows a cycle, behind `context` tokens."""
    stats = DecodeStats()
    decoder = loop.Decoder(
        model,
        filled_cache(model, context),
        sampling=Sampling(),
        policy=FixedPolicy(rows),
        exactness=exactness,
        block_size=model.args.block_size or 32,
        stop_tokens=(),
        # Room for a whole block behind the last token that is taken: no block is cut.
        limit=tokens + MAX_BLOCK_SIZE,
        stats=stats,
    )
    generation = Generation(model, decoder, exactness)
    generation.read([1], step_size=1024, progress=None)
    times = [time.perf_counter() for _ in islice(generation.run(), tokens)]
    # The clock starts with the end of the first cycle, which waited for the prompt.
    first = next((i for i, t in enumerate(times) if t - times[0] > 5e-4), 1)
    return 1e3 * (times[-1] - times[first - 1]) / max(len(times) - first, 1), stats


def mlx_lm_milliseconds(model: Model, context: int, tokens: int) -> float:
    """Milliseconds per token of mlx-lm's `generate_step` on the same autoregressive weights, not packed yet."""
    a = model.args
    names = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "head_dim")
    names += ("rms_norm_eps", "vocab_size", "num_key_value_heads", "max_position_embeddings", "rope_theta")
    settings = {name: getattr(a, name) for name in names} | {"tie_word_embeddings": a.tie_word_embeddings}
    twin = qwen3.Model(qwen3.ModelArgs(**settings))
    for name, module in model.named_modules():
        if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding) and not is_diffusion(name):
            nn.quantize(twin, module.group_size, module.bits)
            break
    twin.load_weights([(name, a) for name, a in tree_flatten(model.parameters()) if not is_diffusion(name)])
    caches = make_prompt_cache(twin)
    if context:
        for layer, (keys, values) in zip(caches, buffers(model, context), strict=True):
            layer.keys, layer.values, layer.offset = keys, values, context
        mx.eval([a for layer in caches for a in (layer.keys, layer.values)])
    times = []
    for _ in generate_step(mx.ones((1,), dtype=mx.int32), twin, max_tokens=tokens, prompt_cache=caches):
        times.append(time.perf_counter())
    return 1e3 * (times[-1] - times[1]) / (len(times) - 2)


# Replayed acceptance ------------------------------------------------------------------------------------


def accepted_lengths(mean_tokens: float, count: int, seed: int, most: int = 31) -> list[int]:
    """Accepted drafts of `count` cycles: every draft agrees with the same probability, found for the mean asked."""
    low, high = 0.0, 1.0
    for _ in range(60):
        p = (low + high) / 2
        low, high = (p, high) if sum(p**i for i in range(1, most + 1)) < mean_tokens - 1 else (low, p)
    rng = random.Random(seed)
    return [next((i for i in range(most) if rng.random() >= low), most) for _ in range(count)]


@contextmanager
def replayed(lengths: Sequence[int]) -> Iterator[None]:
    """Inside, the decode loop accepts as many drafts as `lengths` says, over and over, as far as it verified them."""
    following = cycle(lengths)
    original = loop.accepted_rows
    loop.accepted_rows = lambda tokens, parents, chosen: list(range(min(next(following), len(tokens) - 1) + 1))
    try:
        yield
    finally:
        loop.accepted_rows = original


# One model ----------------------------------------------------------------------------------------------


def measure(model: Model, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures of one model."""
    found: dict[str, Any] = {"bytes": streamed_bytes(model)}
    short = min(options.contexts, key=lambda c: abs(c - 1024))
    found["mlx_lm"] = {c: mlx_lm_milliseconds(model, c, options.tokens) for c in options.contexts}
    say(f"mlx-lm {found['mlx_lm']}")
    # On MLX alone a pass at a new context length plans its attention anew: few cycles tell.
    with replayed([6]):
        found["plain_loop"] = decode(model, OFF, 32, short, 7 * options.plain_cycles)[0] * 7
    say(f"plain loop, a cycle of 32 + 32 rows: {found['plain_loop']:.3g} ms")
    found["changes"] = changes(model, short) if options.changes else {}
    say(f"changes {found['changes']}")
    found["kernels"] = list(accelerate(model, options.kernels).notes)
    exactness = probe(model)
    found["exactness"] = f"{exactness}: {exactness.evidence}"
    say(f"{found['kernels']} {found['exactness']}")
    found["ar_step"] = {c: decode(model, exactness, 1, c, options.tokens)[0] for c in options.contexts}
    say(f"AR step {found['ar_step']}")
    verify = [rows for rows in options.rows if rows == exactness.most(rows)]
    found["verify"] = {
        c: {rows: pass_milliseconds(model, rows, c, padded=exactness.rows) for rows in verify} for c in options.contexts
    }
    found["draft"] = {
        c: {rows: pass_milliseconds(model, rows, c, DIFFUSION) for rows in options.rows if rows > 1}
        for c in options.contexts
    }
    say(f"verify {found['verify'][short]}, draft {found['draft'][short]}")
    piped = [rows for rows in PIPED_ROWS if rows == exactness.most(rows)]
    found["piped"] = {
        c: {rows: piped_milliseconds(model, rows, c, exactness.rows) for rows in piped} for c in options.contexts
    }
    say(f"piped {found['piped']}")
    rows, mean = exactness.most(SWEPT_ROWS), TOKENS_PER_CYCLE[SWEPT]
    found["sweep"] = {}
    for context in options.contexts:
        with replayed(accepted_lengths(mean, 512, options.seed)):
            ms, stats = decode(model, exactness, rows, context, options.tokens)
        found["sweep"][context] = {"tokens per second": 1e3 / ms, "tokens per cycle": stats.tokens_per_cycle}
    say(f"sweep {found['sweep']}")
    found["replay"] = {}
    for name, mean in TOKENS_PER_CYCLE.items():
        lengths = accepted_lengths(mean, 512, options.seed)
        row: dict[str, Any] = {"stated tokens per cycle": mean, "drawn": statistics.mean(lengths) + 1}
        for rows in (r for r in LANES if r == exactness.most(r)):
            with replayed(lengths):
                ms, stats = decode(model, exactness, rows, short, options.tokens)
            row[str(rows)] = {"tokens per second": 1e3 / ms, "tokens per cycle": stats.tokens_per_cycle}
        found["replay"][name] = row
        say(f"{name}: {row}")
    found["replay_context"] = short
    found["peak_memory"] = mx.get_peak_memory()
    return found


CHANGES_ROWS = (1, 16)


def changes(model: Model, context: int) -> dict[str, dict[str, float]]:
    """What each step to the product's pass on CUDA gave: milliseconds of a synchronised pass by rows. Packs `model`."""
    if not mx.cuda.is_available():
        return {}
    found = {"MLX": {str(rows): pass_milliseconds(model, rows, context) for rows in CHANGES_ROWS}}
    found["MLX, text growing"] = {str(rows): _growing_milliseconds(model, rows, context) for rows in CHANGES_ROWS}
    pack(model)
    found["MLX, packed"] = {str(rows): pass_milliseconds(model, rows, context) for rows in CHANGES_ROWS}
    fused = fused_pass.fused_pass(model)
    if fused is not None:
        model.model.fused, model.fused_head = fused, fused.head
        found["kernels"] = {str(rows): pass_milliseconds(model, rows, context) for rows in CHANGES_ROWS}
        model.model.fused = model.fused_head = None
    return found


def _growing_milliseconds(model: Model, rows: int, context: int) -> float:
    """The median pass when every pass stands one row further on than the last, as in decoding."""
    cache = filled_cache(model, context)
    ids = mx.ones((rows,), dtype=mx.int32)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        mx.eval(mx.argmax(run_pass(model, [Block(cache, ids)])[0], axis=-1))
        times.append(1e3 * (time.perf_counter() - start))
        cache.commit(1)
    return statistics.median(times[1:])


# Report -------------------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    names = mx.device_info() if mx.cuda.is_available() else {"device_name": platform.processor() or platform.machine()}
    return {
        "device": str(names.get("device_name", "unknown")),
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}".rstrip(", "),
        "python": platform.python_version(),
        "mlx": ", ".join(installed(("mlx", *BACKEND_WHEELS, "mlx-lm"))),
    }


def floor_milliseconds(result: dict[str, Any], model: dict[str, Any]) -> float:
    """The weights' bytes over the larger of the two bandwidths measured in the same run."""
    return 1e-6 * model["bytes"] / max(result["bandwidth"].values())


def markdown(result: dict[str, Any]) -> str:
    """The result, as it is read from its JSON file, as a page of tables."""
    out = ["# Real shapes: pass costs and replayed acceptance", "", f"Command: `{result['command']}`", ""]
    out += [result["note"], ""] if result["note"] else []
    out += [f"- {name}: {value}" for name, value in result["machine"].items()]
    speeds = ", ".join(f"{name} {value:.0f} GB/s" for name, value in result["bandwidth"].items())
    out += [f"- bandwidth in this run: {speeds}", "", "Random weights; accepted lengths are an input. Times in ms."]
    out += ["MLX keeps an attention plan per shape and length for the life of the process: a model whose attention was"]
    out += [
        "measured before in the run finds plans that a new process would have to make. That flatters the plain loop"
    ]
    out += ['and "MLX, text growing" of all but the first model of a kind.', ""]
    for name, model in result["models"].items():
        floor = floor_milliseconds(result, model)
        contexts = list(model["ar_step"])
        out += [
            f"## {name}",
            "",
            f"{model['bytes'] / 1e9:.2f} GB a pass, floor {floor:.2f} ms. {model['exactness']}",
            "",
        ]
        out += [f"- {note}" for note in model["kernels"]]
        out += ["", "One-token steps, each queued before the last was read:", ""]
        out += _table(
            ("context", "mlx-lm", "ours", "ours / floor"),
            [(c, model["mlx_lm"][c], model["ar_step"][c], model["ar_step"][c] / floor) for c in contexts],
        )
        rows = sorted({*model["verify"][contexts[0]], *model["draft"][contexts[0]]}, key=int)
        passes = [
            (f"{kind}, context {c}", *(model[kind][c].get(r, "") for r in rows))
            for kind in ("verify", "draft")
            for c in contexts
        ]
        out += ["", "Passes that the host waits for:", ""]
        out += _table(("pass", *(f"{r} rows" for r in rows)), passes)
        out += ["", "Passes in a row, each queued before the last was read:", ""]
        counts = list(model["piped"][contexts[0]])
        out += _table(
            ("context", *(f"{r} rows" for r in counts), *(f"{r} rows / 1 row" for r in counts[1:])),
            [(c, *row.values(), *(row[r] / row["1"] for r in counts[1:])) for c, row in model["piped"].items()],
        )
        out += ["", f"Tokens per second by context, acceptance as stated for {SWEPT}, blocks of {SWEPT_ROWS} rows:", ""]
        sweep = []
        for c, row in model["sweep"].items():
            ours, plain = row["tokens per second"], 1e3 / model["mlx_lm"][c]
            cell = f"{ours:.0f} ({row['tokens per cycle']:.2f} per cycle)"
            sweep.append((c, f"{plain:.0f}", f"{1e3 / model['ar_step'][c]:.0f}", cell, ours / plain))
        out += _table(("context", "mlx-lm", "our steps", "replayed", "replayed / mlx-lm"), sweep)
        context = str(model["replay_context"])
        lm, plain = model["mlx_lm"][context], model["plain_loop"]
        lanes = [k for k in next(iter(model["replay"].values())) if k.isdigit()]
        out += ["", f"Replay at context {context}: tokens per second (tokens per cycle that came about). mlx-lm makes"]
        out += [
            f"{1e3 / lm:.0f}, our one-token steps {1e3 / model['ar_step'][context]:.0f}. The plain loop, 32 + 32 rows"
        ]
        out += [f"on MLX alone, takes {plain:.1f} ms a cycle; it is given the tokens per cycle of our 32 rows.", ""]
        replays = []
        for workload, row in model["replay"].items():
            speeds_by_lane = [row[k]["tokens per second"] for k in lanes]
            cells = [f"{row[k]['tokens per second']:.0f} ({row[k]['tokens per cycle']:.2f})" for k in lanes]
            naive = f"{1e3 * row[lanes[-1]]['tokens per cycle'] / plain:.0f}"
            stated = f"{workload}: {row['stated tokens per cycle']}"
            replays.append((stated, naive, *cells, max(speeds_by_lane) * lm / 1e3))
        out += _table(
            ("stated tokens per cycle", "plain loop", *(f"{k} rows" for k in lanes), "best / mlx-lm"), replays
        )
        if model["changes"]:
            out += ["", f"What each step gave, at context {context}:", ""]
            changed = [(change, *times.values()) for change, times in model["changes"].items()]
            out += _table(("a pass that the host waits for", *(f"{r} rows" for r in CHANGES_ROWS)), changed)
        out.append("")
    return "\n".join(out)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[f"{c:.2f}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *cells)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument(
        "--bits", nargs="+", type=int, default=[16, 4], help="16 is bf16; 4 or 8 is affine in groups of 64"
    )
    parser.add_argument("--contexts", nargs="+", type=int, default=list(CONTEXTS))
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS))
    parser.add_argument("--tokens", type=int, default=160, help="tokens of each decoding")
    parser.add_argument("--plain-cycles", type=int, default=6, help="cycles of the plain loop")
    parser.add_argument("--megabytes", type=int, default=2048, help="size of the arrays that bandwidth is measured on")
    parser.add_argument("--kernels", choices=("auto", "off", "force"), default="auto")
    parser.add_argument("--changes", action="store_true", help="also time the steps that led to the pass on CUDA")
    parser.add_argument("--seed", type=int, default=0, help="of the accepted lengths")
    parser.add_argument("--note", default="", help="a line about what is measured, kept with the results")
    parser.add_argument("--output", type=Path, required=True, help="path of the results, without .json or .md")
    options = parser.parse_args(argv)

    start = time.perf_counter()
    command = shlex.join(["python", "-m", "benchmarks.real_shapes", *(sys.argv[1:] if argv is None else argv)])
    result: dict[str, Any] = {"command": command, "note": options.note, "machine": machine()}
    result["bandwidth"] = bandwidth(options.megabytes)
    result["models"] = {}
    for bits in options.bits:
        for size in options.sizes:
            name = f"{size} {'bf16' if bits == 16 else f'{bits}-bit'}"

            def say(line: str, name: str = name) -> None:
                print(f"[{time.perf_counter() - start:6.1f} s] {name}: {line}", flush=True)

            model = random_model(model_args(size), bits)
            result["models"][name] = measure(model, options, say)
            del model
            gc.collect()
            mx.clear_cache()
            # After every model, so that a run that is cut short leaves what it has.
            write_json(options.output.with_suffix(".json"), result)
            page = markdown(json.loads(options.output.with_suffix(".json").read_text()))
            write_text(options.output.with_suffix(".md"), page)


if __name__ == "__main__":
    main()
