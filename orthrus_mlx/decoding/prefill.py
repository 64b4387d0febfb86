"""Reading the prompt into the cache."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from ..cache import KVCache
from ..exactness import Exactness
from ..model import Model, Part
from ..passes import Block, run_pass
from ..weights import AR

Progress = Callable[[int, int], None]
"""mlx-lm's prompt_progress_callback: (tokens processed, tokens in the prompt)."""


def prefill(
    model: Model, prompt: mx.array, cache: KVCache, exactness: Exactness, *, step_size: int, progress: Progress | None
) -> mx.array | None:
    """Commit all of `prompt` [n] but its last token, `step_size` tokens a pass.

    Memory above the cache is that of one chunk. The last token is left for the first cycle, which needs its
    logits (or drafts behind it); that all are read is reported there, as in mlx-lm.

    Returns:
        What `read_last_chunk` returns of the last pass; None where there was none.
    """
    total = prompt.size
    report = progress or (lambda processed, total: None)
    report(0, total)
    logits = None
    for start in range(0, total - 1, step_size):
        stop = min(start + step_size, total - 1)
        if stop < total - 1:
            read_chunk(model, prompt[start:stop], cache)
        else:
            logits = read_last_chunk(model, prompt[start:], cache, exactness)
        mx.clear_cache()
        report(stop, total)
    return logits


def read_last_chunk(model: Model, chunk: mx.array, cache: KVCache, exactness: Exactness) -> mx.array | None:
    """Commit all of `chunk` [n >= 2], the end of a prompt, but its last token.

    Returns:
        The logits [1, V] behind the last token where a pass that reads has the bits of one that decodes; its row is
        then staged, as a one-token step over it would leave it. None elsewhere.
    """
    if not _any_length(model) or exactness.rows is not None:
        read_chunk(model, chunk[:-1], cache)
        return None
    (logits,) = run_pass(model, [Block(cache, chunk, skipped=chunk.size - 1)])
    cache.commit(chunk.size - 1)
    mx.eval(logits, cache.arrays)
    return logits


def _any_length(model: Model) -> bool:
    """Whether rows that are read and rows that are decoded have the same bits."""
    whole = model.model.fused
    return whole is not None and whole.any_length


def read_chunk(model: Model, chunk: mx.array, cache: KVCache) -> None:
    """Commit all of `chunk` [n] in one pass of the autoregressive view, and wait for it."""
    if _any_length(model):
        model.model.parts(chunk, [Part(0, chunk.size, AR, cache)])
    else:
        model.model(chunk[None], cache)
    cache.commit(chunk.size)
    mx.eval(cache.arrays)
