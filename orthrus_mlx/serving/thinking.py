"""A limit on the tokens of a thought: behind it, nothing but the thought's end is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..decoding.constraint import Constraint


@dataclass(frozen=True)
class _Place:
    """Where in a text one is: inside a thought or not, and the tokens of all thoughts so far."""

    inside: bool
    used: int = 0


class ThinkingBudget:
    """A `Constraint` that ends thoughts at `budget` tokens in all, markers not counted, and keeps to `inner` besides.

    Args:
        start, end: ids of the markers.
        budget: 0 or more.
        vocabulary: V of the logits.
        inside: whether the text begins in a thought.
        inner: a grammar that holds, too.
    """

    def __init__(
        self, start: int, end: int, budget: int, vocabulary: int, *, inside: bool, inner: Constraint | None = None
    ):
        self._start, self._end, self._budget = start, end, budget
        self._inner = inner
        self._place = _Place(inside)
        self._anything = np.full(-(-vocabulary // 32), 0xFFFFFFFF, dtype=np.uint32)
        self._only_end = np.zeros_like(self._anything)
        self._only_end[end // 32] = 1 << end % 32

    def allowed(self, drafts: Sequence[int]) -> tuple[int, np.ndarray]:
        """See `Constraint.allowed`."""
        places = [self._place]
        for token in drafts:
            if self._spent(places[-1]) and token != self._end:
                break
            places.append(self._behind(places[-1], token))
        n = len(places) - 1
        if self._inner is None:
            masks = np.tile(self._anything, (n + 1, 1))
        else:
            n, masks = self._inner.allowed(drafts[:n])
        for row, place in zip(masks, places[: n + 1], strict=True):
            if self._spent(place):
                row &= self._only_end
        return n, masks

    def advance(self, tokens: Sequence[int]) -> None:
        """See `Constraint.advance`."""
        for token in tokens:
            self._place = self._behind(self._place, token)
        if self._inner is not None:
            self._inner.advance(tokens)

    def _spent(self, place: _Place) -> bool:
        return place.inside and place.used >= self._budget

    def _behind(self, place: _Place, token: int) -> _Place:
        if token in (self._start, self._end):
            return replace(place, inside=token == self._start)
        return replace(place, used=place.used + 1) if place.inside else place
