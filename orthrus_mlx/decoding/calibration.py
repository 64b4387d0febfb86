"""From confidence to the probability of being accepted: learned while decoding, monotone, kept for a model."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

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
        self._accepted = [PRIOR_DRAFTS / (1.0 + math.exp(-centre)) for centre in CENTRES]
        self._curve = self._monotone()
        self.second_tried = PRIOR_DRAFTS
        self.second_accepted = PRIOR_DRAFTS
        """Rejections of a first candidate: how many were expected to, and did, take another one of the tree."""

    def probability(self, confidence: float) -> float:
        """In 0..1; never falls with confidence."""
        return self._at(*_place(confidence))

    def _at(self, right: int, share: float) -> float:
        return (1.0 - share) * self._curve[right - 1] + share * self._curve[right]

    def others(self, confidences: Sequence[float], first: float) -> list[float]:
        """Acceptance probabilities of the candidates behind a first one that is accepted with probability `first`.

        Args:
            confidences: of all candidates of the position, the first one's included.
        """
        left = max(1.0 - confidences[0], 1e-6)
        scale = min((1.0 - first) / left * self.second_accepted / self.second_tried, 1.0)
        return [confidence * scale for confidence in confidences[1:]]

    def observe(self, confidences: Sequence[float], accepted: Sequence[bool]) -> list[float]:
        """Learn from drafts, each accepted or not where those before it were accepted.

        Returns:
            The probabilities that they were given before.
        """
        places = [_place(confidence) for confidence in confidences]
        expected = [self._at(*place) for place in places]
        tried, taken = [0.0] * len(CENTRES), [0.0] * len(CENTRES)
        for (right, share), hit in zip(places, accepted, strict=True):
            for bin, weight in ((right - 1, 1.0 - share), (right, share)):
                tried[bin] += weight
                taken[bin] += weight * hit
        keep = [max(1.0 - new / MEMORY, 0.0) for new in tried]
        self._tried = [old * k + new for old, k, new in zip(self._tried, keep, tried, strict=True)]
        self._accepted = [old * k + new for old, k, new in zip(self._accepted, keep, taken, strict=True)]
        self._curve = self._monotone()
        return expected

    def observe_others(self, expected: float, accepted: bool) -> None:
        """Learn whether a tree's other candidates held the token that the first one was not."""
        keep = 1.0 - 1.0 / MEMORY
        self.second_tried = self.second_tried * keep + expected
        self.second_accepted = self.second_accepted * keep + accepted

    def _monotone(self) -> list[float]:
        """Rates by bin, neighbours that fall merged into their mean (pool adjacent violators)."""
        pools: list[tuple[float, float, int]] = []
        for accepted, tried in zip(self._accepted, self._tried, strict=True):
            bins = 1
            while pools and pools[-1][0] * tried > accepted * pools[-1][1]:
                before = pools.pop()
                accepted, tried, bins = accepted + before[0], tried + before[1], bins + before[2]
            pools.append((accepted, tried, bins))
        return [accepted / tried for accepted, tried, bins in pools for _ in range(bins)]


def _place(confidence: float) -> tuple[int, float]:
    """Between which centres a confidence lies: the index of the right one, and how near it is to it, 0..1."""
    confidence = min(max(confidence, 1e-4), 1.0 - 1e-4)
    log_odds = math.log(confidence / (1.0 - confidence))
    right = min(max(bisect_right(CENTRES, log_odds), 1), len(CENTRES) - 1)
    left = CENTRES[right - 1]
    return right, min(max((log_odds - left) / (CENTRES[right] - left), 0.0), 1.0)


class TextShift:
    """How much more or less the current text accepts than the calibration says, in log-odds."""

    PRIOR_DRAFTS = 6.0
    MEMORY = 40.0

    def __init__(self) -> None:
        self._expected = self._accepted = self.PRIOR_DRAFTS / 2
        self._expected_not = self._rejected = self.PRIOR_DRAFTS / 2

    def apply(self, probability: float) -> float:
        """`probability`, shifted."""
        odds = self._accepted * self._expected_not / (self._expected * self._rejected)
        return probability * odds / (probability * odds + 1.0 - probability)

    def observe(self, probabilities: Sequence[float], accepted: Sequence[bool]) -> None:
        """Drafts of these calibrated probabilities were accepted or not."""
        n, expected, taken = len(probabilities), sum(probabilities), sum(accepted)
        keep = (1.0 - 1.0 / self.MEMORY) ** n
        prior = self.PRIOR_DRAFTS / 2 * (1.0 - keep)
        self._expected = self._expected * keep + prior + expected
        self._accepted = self._accepted * keep + prior + taken
        self._expected_not = self._expected_not * keep + prior + n - expected
        self._rejected = self._rejected * keep + prior + n - taken
