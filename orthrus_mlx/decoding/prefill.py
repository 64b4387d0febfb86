"""Reading the prompt into the cache."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from ..cache import KVCache
from ..model import Model, Part
from ..weights import AR

Progress = Callable[[int, int], None]
"""mlx-lm's prompt_progress_callback: (tokens processed, tokens in the prompt)."""


def prefill(model: Model, prompt: mx.array, cache: KVCache, *, step_size: int, progress: Progress | None) -> None:
    """Commit all of `prompt` [n] but its last token, `step_size` tokens a pass; no logits are computed.

    Memory above the cache is that of one chunk. The last token is left for the first cycle, which needs its
    logits (or drafts behind it); that all are read is reported there, as in mlx-lm.
    """
    total = prompt.size
    report = progress or (lambda processed, total: None)
    report(0, total)
    for start in range(0, total - 1, step_size):
        chunk = prompt[start : min(start + step_size, total - 1)]
        read_chunk(model, chunk, cache)
        mx.clear_cache()
        report(start + chunk.size, total)


def read_chunk(model: Model, chunk: mx.array, cache: KVCache) -> None:
    """Commit all of `chunk` [n] in one pass of the autoregressive view, and wait for it."""
    whole = model.model.fused
    if whole is not None and whole.any_length:
        # Rows that were read and rows that were decoded then have the same bits.
        model.model.parts(chunk, [Part(0, chunk.size, AR, cache)])
    else:
        model.model(chunk[None], cache)
    cache.commit(chunk.size)
    mx.eval(cache.arrays)
