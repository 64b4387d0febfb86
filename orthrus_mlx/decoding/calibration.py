"""From confidence to the probability of being accepted: learned while decoding, monotone, kept for a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

CENTRES = (-6.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0)
"""Log-odds of confidence at which acceptance is counted; linear between."""

_CENTRES = np.array(CENTRES)
_GAPS = np.diff(_CENTRES)

PRIOR_DRAFTS = 6.0
"""Drafts that a fresh bin's prior, acceptance = confidence, is worth."""

MEMORY = 2000.0
"""Drafts after which a count has lost two thirds of its weight."""


class Calibration:
    """Acceptance probability of a position's first candidate by its confidence, where all before it was accepted."""

    def __init__(self) -> None:
        self._tried = np.full(len(CENTRES), PRIOR_DRAFTS)
        self._accepted = PRIOR_DRAFTS / (1.0 + np.exp(-_CENTRES))
        self._curve: np.ndarray | None = None
        self.second_tried = PRIOR_DRAFTS
        self.second_accepted = PRIOR_DRAFTS
        """Rejections of a first candidate: how many were expected to, and did, take another one of the tree."""

    def probability(self, confidence: Any) -> Any:
        """In 0..1; never falls with confidence. Of a number or, element by element, of an array."""
        return self._at(_log_odds(confidence))

    def _at(self, log_odds: Any) -> Any:
        if self._curve is None:
            self._curve = self._monotone()
        return np.interp(log_odds, _CENTRES, self._curve)

    def others(self, confidences: Sequence[float], first: float) -> list[float]:
        """Acceptance probabilities of the candidates behind a first one that is accepted with probability `first`.

        Args:
            confidences: of all candidates of the position, the first one's included.
        """
        left = max(1.0 - confidences[0], 1e-6)
        scale = min((1.0 - first) / left * self.second_accepted / self.second_tried, 1.0)
        return [confidence * scale for confidence in confidences[1:]]

    def observe(self, confidence: Any, accepted: Any) -> np.ndarray:
        """Learn from a draft whose predecessors were all accepted, or from arrays of them.

        Returns:
            The probabilities that they were given before.
        """
        log_odds, accepted = np.atleast_1d(_log_odds(confidence)), np.atleast_1d(accepted)
        expected = self._at(log_odds)
        right = np.searchsorted(_CENTRES[1:-1], log_odds, side="right") + 1
        shares = _limited((log_odds - _CENTRES[right - 1]) / _GAPS[right - 1], 0.0, 1.0)
        for bins, weights in ((right - 1, 1.0 - shares), (right, shares)):
            tried = np.bincount(bins, weights, len(CENTRES))
            keep = np.maximum(1.0 - tried / MEMORY, 0.0)
            self._tried = self._tried * keep + tried
            self._accepted = self._accepted * keep + np.bincount(bins, weights * accepted, len(CENTRES))
        self._curve = None
        return expected

    def observe_others(self, expected: float, accepted: bool) -> None:
        """Learn whether a tree's other candidates held the token that the first one was not."""
        keep = 1.0 - 1.0 / MEMORY
        self.second_tried = self.second_tried * keep + expected
        self.second_accepted = self.second_accepted * keep + accepted

    def _monotone(self) -> np.ndarray:
        """Rates by bin, neighbours that fall merged into their mean (pool adjacent violators)."""
        rates = self._accepted / self._tried
        if not (rates[1:] < rates[:-1]).any():
            return rates
        pools: list[list[float]] = []
        for tried, accepted in zip(self._tried.tolist(), self._accepted.tolist(), strict=True):
            pools.append([accepted, tried, 1.0])
            while len(pools) > 1 and pools[-2][0] * pools[-1][1] > pools[-1][0] * pools[-2][1]:
                last = pools.pop()
                pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
        return np.array([accepted / tried for accepted, tried, bins in pools for _ in range(int(bins))])


class TextShift:
    """How much more or less the current text accepts than the calibration says, in log-odds."""

    PRIOR_DRAFTS = 6.0
    MEMORY = 40.0

    def __init__(self) -> None:
        self._expected = self._accepted = self.PRIOR_DRAFTS / 2
        self._expected_not = self._rejected = self.PRIOR_DRAFTS / 2

    def apply(self, probability: Any) -> Any:
        """`probability`, a number or an array of them, shifted."""
        odds = self._accepted * self._expected_not / (self._expected * self._rejected)
        return probability * odds / (probability * odds + 1.0 - probability)

    def observe(self, probability: Any, accepted: Any) -> None:
        """A draft of calibrated `probability` was accepted or not; or arrays of them."""
        n, expected, taken = np.size(probability), float(np.sum(probability)), float(np.sum(accepted))
        keep = (1.0 - 1.0 / self.MEMORY) ** n
        prior = self.PRIOR_DRAFTS / 2 * (1.0 - keep)
        self._expected = self._expected * keep + prior + expected
        self._accepted = self._accepted * keep + prior + taken
        self._expected_not = self._expected_not * keep + prior + n - expected
        self._rejected = self._rejected * keep + prior + n - taken


def _log_odds(confidence: Any) -> Any:
    confidence = _limited(confidence, 1e-4, 1.0 - 1e-4)
    return np.log(confidence / (1.0 - confidence))


def _limited(value: Any, low: float, high: float) -> Any:
    """`np.clip`, which takes twice as long for a few numbers."""
    return np.minimum(np.maximum(value, low), high)
