"""What a policy learns about a loaded model, across texts. One object per model; a text's own state is not here."""

from __future__ import annotations

from itertools import accumulate
from operator import mul

from .belief import Usual
from .calibration import Calibration

FIRST_CREDIT = 1.25
"""One-token steps that a text may lose to drafts that are not accepted before it has earned any."""

MOST_CARRIED = 4.0
"""Most that the next text may start with, in one-token steps."""

GAIN_CARRIED = 0.03
"""Share of what a text gained that the next ones may lose: more would let predictable texts pay with prose's time."""

NGRAM_ORDERS = (3, 4, 5, 7, 10, 16)
NGRAM_PRIOR = (0.3, 0.4, 0.5, 0.65, 0.8, 0.9)
NGRAM_PRIOR_DRAFTS = 4.0
NGRAM_MEMORY = 100.0
"""Drafts after which a count has lost two thirds of its weight."""


class NGramRates:
    """Chance that the token after an n-gram match is right, by how many tokens match."""

    def __init__(self) -> None:
        self._tried = [NGRAM_PRIOR_DRAFTS] * len(NGRAM_ORDERS)
        self._accepted = [NGRAM_PRIOR_DRAFTS * rate for rate in NGRAM_PRIOR]

    def chances(self, order: int, drafts: int) -> list[float]:
        """Of each of the first `drafts` drafts of a match, the chance that it is accepted where all before it were."""
        bins = (_bin(order + draft) for draft in range(drafts))
        return [self._accepted[bin] / self._tried[bin] for bin in bins]

    def accepted(self, order: int, drafts: int) -> list[float]:
        """accepted[d] is the expected number of accepted drafts of the first d = 0 .. `drafts`."""
        survival = accumulate(self.chances(order, drafts), mul)
        return list(accumulate(survival, initial=0.0))

    def observe(self, order: int, drafts: int, accepted: int) -> None:
        """Of `drafts` drafts of a match, the first `accepted` were accepted."""
        keep = 1.0 - 1.0 / NGRAM_MEMORY
        for draft in range(min(accepted + 1, drafts)):
            bin = _bin(order + draft)
            self._tried[bin] = self._tried[bin] * keep + 1.0
            self._accepted[bin] = self._accepted[bin] * keep + (draft < accepted)


def _bin(order: int) -> int:
    bin = 0
    while bin + 1 < len(NGRAM_ORDERS) and NGRAM_ORDERS[bin + 1] <= order:
        bin += 1
    return bin


class PolicyMemory:
    """Shared by the policies of one loaded model.

    Attributes:
        usual: how common predictable passages are.
        ngrams: acceptance of n-gram drafts.
        credit: one-token steps that the next text may lose; what one text lost, the next ones earn back first.
        tree_gain: accepted drafts of a tree over those of a chain of as many rows, lately.
    """

    def __init__(self) -> None:
        self.usual = Usual()
        self.ngrams = NGramRates()
        self.credit = FIRST_CREDIT
        self.tree_gain = 1.1
        self._calibrations = {False: Calibration(), True: Calibration()}

    def calibration(self, sampled: bool) -> Calibration:
        """Confidence and acceptance go together differently where both views draw with the same noise."""
        return self._calibrations[sampled]
