"""What a draft pass gives: tokens for the positions behind the pending one, and how sure the diffusion view is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..sampling import Positions, Sampling
from .steps import Draft

CANDIDATES = 4
"""Tokens per position that a tree may choose from; each costs a look through the vocabulary."""


@dataclass(frozen=True)
class Drafted:
    """A draft on the device.

    Attributes:
        tokens: int32 [n], a chain; or [n, k], the candidates of every position, the best by rule A's score first.
        confidences: of each of them, float32; None where nobody wants to know.
    """

    tokens: mx.array
    confidences: mx.array | None = None

    @property
    def chain(self) -> mx.array:
        """The best token of every position, int32 [n]."""
        return self.tokens if self.tokens.ndim == 1 else self.tokens[:, 0]


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
    """Probabilities float32 of tokens [n], or [n, k], in the softmax of logits [n, V] at `temperature` (0: at 1)."""
    logits = logits.astype(mx.float32)
    if mx.default_device() == mx.cpu:
        columns = np.array(tokens, copy=False).reshape(len(logits), -1)
        return mx.array(_probabilities(np.array(logits, copy=False), columns, temperature).reshape(tokens.shape))
    if temperature not in (0, 1):
        logits = logits * (1 / temperature)
    own = mx.take_along_axis(logits, tokens.reshape(len(logits), -1), axis=-1)
    return mx.exp(own - mx.logsumexp(logits, axis=-1, keepdims=True)).reshape(tokens.shape)


def certainties(chosen: Sequence[tuple[int, mx.array]], temperature: float) -> list[float]:
    """`confidences` of tokens, each with the logits [1, V] that it was chosen from, on the CPU."""
    if not chosen:
        return []
    tokens, logits = zip(*chosen, strict=True)
    rows = np.concatenate([np.array(row.astype(mx.float32), copy=False) for row in logits])
    return _probabilities(rows, np.array(tokens)[:, None], temperature)[:, 0].tolist()


def _probabilities(logits: np.ndarray, tokens: np.ndarray, temperature: float) -> np.ndarray:
    """`confidences` of tokens [n, k] through NumPy: MLX's CPU build takes three times as long, and its thread waits."""
    own = logits[np.arange(len(tokens))[:, None], tokens]
    most = own.max(axis=-1, keepdims=True)
    scale = np.float32(1 if temperature in (0, 1) else 1 / temperature)
    # What is far above a token that was chosen says that it was far from certain.
    with np.errstate(over="ignore"):
        rest = logits - most
        if scale != 1:
            rest *= scale
        return np.exp((own - most) * scale) / np.exp(rest, out=rest).sum(axis=-1, keepdims=True)


def read(tokens: list, confidences: list | None) -> Draft:
    """The host's form of a draft that was read; where confidences were not, they are 1."""
    rows = tokens if tokens and isinstance(tokens[0], list) else [[token] for token in tokens]
    if confidences is None:
        return Draft(rows, [[1.0] * len(row) for row in rows])
    return Draft(rows, confidences if rows is tokens else [[confidence] for confidence in confidences])
