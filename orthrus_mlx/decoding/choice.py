"""Choosing tokens where user code takes part: logits processors and mlx-lm samplers, row by row.

A processor is shown what one-token decoding would show it: the prompt, the accepted tokens, and nothing
rejected. A sampler is called once per emitted token. Both may keep state, so rows are walked in order and the
walk stops where the draft stops agreeing; each row costs a host synchronisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx

from ..sampling import LogitsProcessor, Sampler, Sampling


@dataclass(frozen=True)
class StepwiseChoice:
    """Rule A behind `processors`; with a `sampler`, the sampler's word instead of rule A."""

    sampling: Sampling
    processors: Sequence[LogitsProcessor] = ()
    sampler: Sampler | None = None

    def choose(self, tokens: Sequence[int], logits: mx.array, position: int) -> tuple[int, mx.array]:
        """(token, processed logits [V]) for logits [V] of `position`, where `tokens` stand before it."""
        row = logits[None]
        if self.processors:
            seen = mx.array(list(tokens))
            for processor in self.processors:
                row = processor(seen, row)
        if self.sampler is None:
            token = self.sampling.choose(row, position)
        else:
            token = self.sampler(row - mx.logsumexp(row, axis=-1, keepdims=True))
        return cast(int, token.item()), row[0]


def matching_prefix(drafted: Sequence[int], chosen: Sequence[int]) -> int:
    """How many leading drafts are what the target chose."""
    for i, (draft, token) in enumerate(zip(drafted, chosen, strict=False)):
        if draft != token:
            return i
    return min(len(drafted), len(chosen))
