"""Programs that `mlx.launch` starts for test_distributed.py: `python distributed_jobs.py JOB FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from itertools import islice
from pathlib import Path

import mlx.core as mx

from orthrus_mlx import KVCache, RequestError, exactness_of, mlx_generate, stream_generate
from orthrus_mlx.distributed import join, load
from orthrus_mlx.model import Model
from orthrus_mlx.passes import Block, run_pass
from orthrus_mlx.sharding import summed
from orthrus_mlx.weights import DIFFUSION

LONG = 30


def decode(folder: Path) -> None:
    """What a user may do with a model, one thing after another; the leader prints what came out as JSON."""
    ranks = join()
    assert ranks is not None
    model, tokenizer = load(folder, ranks)
    found: dict = {"exactness": str(exactness_of(model)), "evidence": exactness_of(model).evidence}

    def tokens(count: int = 12, prompt: int = 1, **options) -> list[int]:
        return list(mlx_generate(model, [5, 9, 2 * prompt, 7, prompt], None, count, **options))

    for temperature in (0.0, 1.0):
        for mode in ("ar", "diffusion", "auto"):
            found[f"{mode} {temperature}"] = [
                tokens(prompt=p, mode=mode, temperature=temperature, seed=11, block_size=8) for p in (1, 2)
            ]

    sampled = {"mode": "diffusion", "temperature": 1.0, "seed": 11, "block_size": 8, "prompt": 1}
    found["closed early"] = list(islice(mlx_generate(model, [5, 9, 2, 7, 1], None, LONG, temperature=1.0, seed=11), 5))
    found["after closing"] = tokens(**sampled)

    def interrupt(processed: int, total: int) -> None:
        if processed >= 64:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        list(mlx_generate(model, [3] * 200, None, 5, prefill_step_size=32, prompt_progress_callback=interrupt))
    found["after an interrupt while reading"] = tokens(**sampled)

    text = "".join(r.text for r in stream_generate(model, tokenizer, [5, 9, 2, 7, 1], LONG, temperature=1.0, seed=11))
    stop = text[20:23]
    stopped = stream_generate(model, tokenizer, [5, 9, 2, 7, 1], LONG, temperature=1.0, seed=11, stop=[stop])
    found["stop string"] = ["".join(r.text for r in stopped), text[: text.index(stop)]]
    found["after a stop string"] = tokens(**sampled)

    cache = KVCache(len(model.layers))
    whole = [*range(40)]
    first = list(mlx_generate(model, whole, None, 20, mode="diffusion", prompt_cache=cache))
    cache.trim(cache.offset - 30)
    again = list(mlx_generate(model, whole[30:], None, 20, mode="ar", prompt_cache=cache))
    found["trimmed cache"] = [first, again]

    found["processor"] = [
        tokens(mode=mode, logits_processors=[lambda seen, logits: logits.at[:, seen].add(-100.0)])
        for mode in ("ar", "diffusion")
    ]
    found["tree and company"] = tree_and_company(model)
    foreign = KVCache(len(model.layers))
    foreign.offset = 3
    with suppress(RequestError):
        tokens(prompt_cache=foreign)
        found["foreign cache"] = "taken"
    found["last"] = tokens(**sampled)
    print(json.dumps(found), flush=True)


def tree_and_company(model: Model) -> bool:
    """Whether a path committed from a tree, in a pass with another sequence's draft, leaves what a chain leaves."""

    def cache_of(tokens: list[int]) -> KVCache:
        cache = KVCache(len(model.layers))
        run_pass(model, [Block(cache, mx.array(tokens))])
        cache.commit(len(tokens))
        return cache

    other, grown, chain = cache_of([8, 9]), cache_of([1, 2, 3]), cache_of([1, 2, 3, 4, 6, 7])
    nodes = Block(grown, mx.array([4, 5, 6, 9, 7]), parents=(-1, 0, 0, 1, 2))
    run_pass(model, [nodes, Block(other, mx.array([3, 287, 287]), view=DIFFUSION)])
    grown.commit(3, [0, 2, 4])
    after = [run_pass(model, [Block(cache, mx.array([5]))])[0] for cache in (grown, chain)]
    return bool(mx.array_equal(*after).item())


def modes(folder: Path) -> None:
    """The modes alone, for as many ranks as take their time."""
    ranks = join()
    assert ranks is not None
    model, _ = load(folder, ranks)
    found: dict = {"exactness": str(exactness_of(model)), "evidence": exactness_of(model).evidence}
    for temperature in (0.0, 1.0):
        for mode in ("ar", "diffusion", "auto"):
            options = {"mode": mode, "temperature": temperature, "seed": 11, "block_size": 8}
            found[f"{mode} {temperature}"] = [list(mlx_generate(model, [5, 9, p], None, 10, **options)) for p in (2, 4)]
    print(json.dumps(found), flush=True)


def sums(_: Path) -> None:
    """Whether the sum of the ranks' rows has the bits of each row's own sum, wherever in a pass the row stands."""
    ranks = join()
    assert ranks is not None
    x = mx.random.normal((1, 8, 64), key=mx.random.key(ranks.rank))
    whole = summed(x, ranks.group)
    rows = [summed(x[:, i : i + 1], ranks.group) for i in range(8)]
    equal = bool(mx.array_equal(whole, mx.concatenate(rows, axis=1)).item())
    right = bool(mx.allclose(whole, mx.distributed.all_sum(x, group=ranks.group), atol=1e-5).item())
    if ranks.leads:
        print(json.dumps({"equal bits": equal, "the sum": right}), flush=True)


def endless(folder: Path) -> None:
    """Generate for ever; each rank leaves its process id beside the folder."""
    rank = os.environ["MLX_RANK"]
    (folder.parent / f"pid-{rank}").write_text(str(os.getpid()))
    ranks = join()
    assert ranks is not None
    model, _ = load(folder, ranks)
    print("begun", flush=True)
    while True:
        list(mlx_generate(model, [5, 9, 2], None, 50, mode="diffusion"))


def fails_on_rank_1(folder: Path) -> None:
    ranks = join()
    assert ranks is not None
    load(folder if ranks.leads else folder / "nowhere", ranks)


if __name__ == "__main__":
    jobs = {job.__name__: job for job in (decode, modes, sums, endless, fails_on_rank_1)}
    jobs[sys.argv[1]](Path(sys.argv[2]))
