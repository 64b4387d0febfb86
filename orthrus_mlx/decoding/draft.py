"""What a draft pass gives: tokens for the positions behind the pending one, and how sure the diffusion view is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import numpy as np

from ..sampling import Positions, Sampling
from .steps import Draft

CANDIDATES = 4
"""Tokens per position that a tree may choose from; each costs a look through the vocabulary."""


@dataclass(frozen=True)
class Drafted:
    """A draft on the device: tokens int32 [n, k], the best by rule A's score first, and confidences float32 [n, k]."""

    tokens: mx.array
    confidences: mx.array | None = None

    @property
    def chain(self) -> mx.array:
        """The best token of every position, int32 [n]."""
        return self.tokens[:, 0]


def candidates(logits: mx.array, sampling: Sampling, position: Positions, count: int) -> mx.array:
    """The `count` best tokens int32 [n, count] of logits [n, V] by rule A's scores, the best first."""
    scores = sampling.scores(logits, position)
    found = []
    for _ in range(count):
        # Rounds of argmax: a partition of the whole vocabulary costs more than the few that are wanted.
        best = mx.argmax(scores, axis=-1, keepdims=True)
        found.append(best)
        scores = mx.put_along_axis(scores, best, mx.array(-mx.inf, scores.dtype), axis=-1)
    return mx.concatenate(found, axis=-1).astype(mx.int32)


def confidences(logits: mx.array, tokens: mx.array, temperature: float) -> mx.array:
    """Probabilities float32 [n, k] of tokens [n, k] in the softmax of logits [n, V] at `temperature` (0: at 1)."""
    logits = logits.astype(mx.float32)
    if temperature not in (0, 1):
        logits = logits * (1 / temperature)
    return mx.exp(mx.take_along_axis(logits, tokens, axis=-1) - _log_sums(logits))


def certainties(chosen: Sequence[tuple[int, mx.array]], temperature: float) -> list[float]:
    """`confidences` of tokens, each with the logits [1, V] that it was chosen from, computed by the host."""
    if not chosen:
        return []
    tokens, logits = zip(*chosen, strict=True)
    rows = np.concatenate([np.array(row.astype(mx.float32), copy=False) for row in logits])
    rows -= rows[np.arange(len(tokens)), list(tokens), None]
    if temperature not in (0, 1):
        rows *= 1 / temperature
    # What is far above the token that was chosen says that it was far from certain.
    with np.errstate(over="ignore"):
        return (1 / np.exp(rows, out=rows).sum(axis=-1)).tolist()


def _log_sums(logits: mx.array) -> mx.array:
    """log(sum(exp)) [n, 1] of logits float32 [n, V]."""
    if mx.default_device() != mx.cpu:
        return mx.logsumexp(logits, axis=-1, keepdims=True)
    # MLX's CPU build takes 1.4 ms for 31 rows of 4,096, a twentieth of the demo's cycle; NumPy takes 0.5 ms.
    rows = np.array(logits, copy=False)
    peaks = rows.max(axis=-1, keepdims=True)
    return mx.array(peaks + np.log(np.exp(rows - peaks).sum(axis=-1, keepdims=True)))


def read(tokens: list, confidences: list) -> Draft:
    """The host's form of a draft that was read."""
    return Draft(cast(list[list[int]], tokens), cast(list[list[float]], confidences))
