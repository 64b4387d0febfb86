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


def accepted_rows(tokens: Sequence[int], parents: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """The rows that the choices confirm, from the root on: the path goes to the child whose token was chosen.

    Args:
        tokens: the tokens of the rows; row 0 is the pending token.
        parents: parents[i] < i of a tree whose siblings have different tokens; parents[0] is -1.
        chosen: the target's choice behind each row, or behind the first ones, where a stop token ended the rest.
    """
    path = [0]
    for row in range(1, len(tokens)):
        if path[-1] < len(chosen) and parents[row] == path[-1] and tokens[row] == chosen[path[-1]]:
            path.append(row)
    return path
