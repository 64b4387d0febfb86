"""From confidence to the probability of being accepted: learned while decoding, monotone, kept for a model."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np

CENTRES = (-6.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0)
"""Log-odds of confidence at which acceptance is counted; linear between."""

PRIOR_DRAFTS = 6.0
"""Drafts that a fresh bin's prior, acceptance = confidence, is worth."""

MEMORY = 2000.0
"""Drafts after which a count has lost two thirds of its weight."""


class Calibration:
    """Acceptance probability of a position's first candidate by its confidence, where all before it was accepted."""

    def __init__(self) -> None:
        self._tried = [PRIOR_DRAFTS] * len(CENTRES)
        self._accepted = [PRIOR_DRAFTS * _probability(centre) for centre in CENTRES]
        self._curve: list[float] = []
        self.second_tried = PRIOR_DRAFTS
        self.second_accepted = PRIOR_DRAFTS
        """Rejections of a first candidate: how many were expected to, and did, take another one of the tree."""

    def probability(self, confidence: float) -> float:
        """In 0..1; never falls with confidence."""
        curve = self._curve = self._curve or self._monotone()
        right, share = _between(_log_odds(confidence))
        return curve[right - 1] + share * (curve[right] - curve[right - 1])

    def probabilities(self, confidences: Sequence[float]) -> np.ndarray:
        """`probability` of each, float64 [n]."""
        curve = self._curve = self._curve or self._monotone()
        return np.interp(_all_log_odds(confidences), CENTRES, curve)

    def others(self, confidences: Sequence[float], first: float) -> list[float]:
        """Acceptance probabilities of the candidates behind a first one that is accepted with probability `first`.

        Args:
            confidences: of all candidates of the position, the first one's included.
        """
        left = max(1.0 - confidences[0], 1e-6)
        scale = min((1.0 - first) / left * self.second_accepted / self.second_tried, 1.0)
        return [confidence * scale for confidence in confidences[1:]]

    def observe(self, confidence: float, accepted: bool) -> None:
        """Learn from a draft whose predecessors were all accepted."""
        right, share = _between(_log_odds(confidence))
        for i, weight in ((right - 1, 1.0 - share), (right, share)):
            keep = 1.0 - weight / MEMORY
            self._tried[i] = self._tried[i] * keep + weight
            self._accepted[i] = self._accepted[i] * keep + weight * accepted
        self._curve = []

    def observe_chain(self, confidences: Sequence[float], accepted: int) -> None:
        """Learn from the drafts of a chain up to the first refused one: all but the first `accepted` were refused."""
        log_odds = _all_log_odds(confidences)
        right = np.clip(np.searchsorted(CENTRES, log_odds, side="right"), 1, len(CENTRES) - 1)
        left_at, right_at = _CENTRES[right - 1], _CENTRES[right]
        shares = np.clip((log_odds - left_at) / (right_at - left_at), 0.0, 1.0)
        for bins, weights in ((right - 1, 1.0 - shares), (right, shares)):
            tried = np.bincount(bins, weights, len(CENTRES))
            kept = np.bincount(bins[:accepted], weights[:accepted], len(CENTRES))
            for i in np.flatnonzero(tried).tolist():
                keep = max(1.0 - tried[i] / MEMORY, 0.0)
                self._tried[i] = self._tried[i] * keep + tried[i]
                self._accepted[i] = self._accepted[i] * keep + kept[i]
        self._curve = []

    def observe_others(self, expected: float, accepted: bool) -> None:
        """Learn whether a tree's other candidates held the token that the first one was not."""
        keep = 1.0 - 1.0 / MEMORY
        self.second_tried = self.second_tried * keep + expected
        self.second_accepted = self.second_accepted * keep + accepted

    def _monotone(self) -> list[float]:
        """Rates by bin, neighbours that fall merged into their mean (pool adjacent violators)."""
        pools: list[list[float]] = []
        for tried, accepted in zip(self._tried, self._accepted, strict=True):
            pools.append([accepted, tried, 1.0])
            while len(pools) > 1 and pools[-2][0] * pools[-1][1] > pools[-1][0] * pools[-2][1]:
                last = pools.pop()
                pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
        return [accepted / tried for accepted, tried, bins in pools for _ in range(int(bins))]


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

    def observe(self, probability: float, accepted: bool) -> None:
        """A draft of calibrated `probability` was accepted or not."""
        keep = 1.0 - 1.0 / self.MEMORY
        prior = self.PRIOR_DRAFTS / 2 * (1.0 - keep)
        self._expected = self._expected * keep + prior + probability
        self._accepted = self._accepted * keep + prior + accepted
        self._expected_not = self._expected_not * keep + prior + 1.0 - probability
        self._rejected = self._rejected * keep + prior + (not accepted)

    def observe_chain(self, probabilities: np.ndarray, accepted: int) -> None:
        """`observe` of the drafts of a chain up to the first refused one, all but the first `accepted`."""
        n, expected = len(probabilities), float(probabilities.sum())
        keep = (1.0 - 1.0 / self.MEMORY) ** n
        prior = self.PRIOR_DRAFTS / 2 * (1.0 - keep)
        self._expected = self._expected * keep + prior + expected
        self._accepted = self._accepted * keep + prior + accepted
        self._expected_not = self._expected_not * keep + prior + n - expected
        self._rejected = self._rejected * keep + prior + n - accepted


_CENTRES = np.array(CENTRES)


def _all_log_odds(confidences: Sequence[float]) -> np.ndarray:
    clipped = np.clip(confidences, 1e-4, 1.0 - 1e-4)
    return np.log(clipped / (1.0 - clipped))


def _log_odds(confidence: float) -> float:
    confidence = min(max(confidence, 1e-4), 1.0 - 1e-4)
    return math.log(confidence / (1.0 - confidence))


def _probability(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds))


def _between(log_odds: float) -> tuple[int, float]:
    """The centre to the right and how near it is, in 0..1."""
    right = min(max(bisect_right(CENTRES, log_odds), 1), len(CENTRES) - 1)
    left = CENTRES[right - 1]
    return right, min(max((log_odds - left) / (CENTRES[right] - left), 0.0), 1.0)
