"""Rule A on the CPU through NumPy: for greedy decoding nothing is MLX's, which would wait for another thread."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from ..sampling import gumbel


def choose(logits: mx.array, temperature: float, keys: mx.array | None = None) -> mx.array:
    """Tokens int32 [R] for logits float32 [R, V], of which the first largest score counts; the arguments are those of
    `kernels.choose`."""
    scores = logits if keys is None else logits * (1 / temperature) + gumbel(keys, logits.shape[-1])
    return mx.array(np.array(scores, copy=False).argmax(axis=-1).astype(np.int32))
