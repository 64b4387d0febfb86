"""What a grammar says to the decode loop: which tokens may stand where. The loop knows nothing else about grammars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import mlx.core as mx
import numpy as np


class Constraint(Protocol):
    """The state of one constrained text. Stop tokens are allowed where the text may end, and only there."""

    def allowed(self, drafts: Sequence[int]) -> tuple[int, np.ndarray]:
        """(n, masks): how many leading `drafts` may follow the text so far, and what may stand at each of n+1 rows.

        masks is uint32 [n+1, words]: bit v % 32 of word v // 32 in row i allows token v behind the text and i drafts.
        Tokens past the last word are forbidden. The state is left as it was.
        """

    def advance(self, tokens: Sequence[int]) -> None:
        """`tokens` were chosen: the state moves past them. A stop token ends the text."""


def masked(logits: mx.array, masks: np.ndarray) -> mx.array:
    """`logits` [L, V], -inf where `masks` uint32 [L, words] forbid a token."""
    words = mx.array(masks)
    bits = ((words[:, :, None] >> mx.arange(32, dtype=mx.uint32)) & 1).reshape(words.shape[0], -1)
    V = logits.shape[-1]
    if bits.shape[1] < V:
        bits = mx.pad(bits, [(0, 0), (0, V - bits.shape[1])])
    return mx.where(bits[:, :V].astype(mx.bool_), logits, -mx.inf)
