"""What a text's recent drafts say about the next ones, before they are drafted.

A passage is taken to be of one of a few kinds, and in one of kind k each draft is accepted with probability RATES[k]
where all before it were. Outcomes move the weights of the kinds (Bayes), and so does how certain the target is of the
tokens of one-token steps; tokens that pass let them drift back to what is usual for such texts: passages change. A
mixture, because acceptance is: a list of names and the sentence introducing it differ by 30 drafts, and their mean
describes neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RATES = (0.02, 0.2, 0.4, 0.55, 0.7, 0.8, 0.88, 0.94, 0.97, 0.99)
USUAL = (0.08, 0.10, 0.12, 0.14, 0.14, 0.14, 0.12, 0.08, 0.05, 0.03)
"""How common each kind is before a model has shown its own: workloads from prose (2 tokens a cycle) to JSON (10 and
more), as published for Orthrus models."""

CHANGE = 0.008
"""Chance per token that the passage ends."""

LEARNING = 0.02
"""Share of what is usual that a draft's outcome replaces in the long run; the first outcomes replace more."""

PRIOR_DRAFTS = 6
"""Outcomes that what is usual to begin with is worth."""

DOUBTFUL, CERTAIN = 0.9, 0.98
CERTAIN_POWER = 1.5
"""The target is certain of a share RATES[k] ** CERTAIN_POWER of the tokens of kind k (gives them `CERTAIN` or more) and
doubtful of the others. Measured on the demo model's answers: predictable ones 0.98 at a rate of 0.99, stories 0.61 at
0.8, JSON in a form that it does not know 0.39 at 0.5; the power that lost least in simulation, of 1.5, 2 and 3."""

LONGEST = 32


def _expected(rate: float) -> list[float]:
    """expected[d] of d drafts, each accepted with `rate` after the ones before it."""
    expected, survival = [0.0], 1.0
    for _ in range(LONGEST):
        survival *= rate
        expected.append(expected[-1] + survival)
    return expected


CERTAIN_SHARES = tuple(rate**CERTAIN_POWER for rate in RATES)

EXPECTED = np.array([_expected(rate) for rate in RATES])
"""EXPECTED[k, d]: expected accepted drafts of d in a passage of kind k."""


class Usual:
    """How common the kinds are in texts of one genre; shared by all of them."""

    def __init__(self, weights: Sequence[float] = USUAL) -> None:
        self.weights = list(weights)
        self._outcomes = PRIOR_DRAFTS

    def learn(self, weights: Sequence[float]) -> None:
        self._outcomes += 1
        share = max(LEARNING, 1 / self._outcomes)
        self.weights = [old + share * (new - old) for old, new in zip(self.weights, weights, strict=True)]


class Belief:
    """The weights of the kinds at the current end of one text."""

    def __init__(self, usual: Usual):
        self.usual = usual
        self.weights = list(usual.weights)

    def enter(self, usual: Usual) -> None:
        """The text is of a genre for which this is usual; what its own tokens have shown stays."""
        weights = [w * new / old for w, new, old in zip(self.weights, usual.weights, self.usual.weights, strict=True)]
        total = sum(weights)
        self.weights = [weight / total for weight in weights]
        self.usual = usual

    def observe(self, drafts: int, accepted: int, unseen: float | None = None) -> None:
        """`accepted` of `drafts` were accepted.

        Args:
            unseen: acceptance probability of the draft after these where there was one and it was left out for its low
                confidence. Without it, a text whose drafts are cut where they fail would look better than it is.
        """
        weights = []
        for weight, rate in zip(self.weights, RATES, strict=True):
            likelihood = rate**accepted * (1.0 - rate if accepted < drafts else 1.0)
            if accepted == drafts and unseen is not None:
                likelihood *= unseen * rate + (1.0 - unseen) * (1.0 - rate)
            weights.append(weight * likelihood)
        total = sum(weights)
        if total > 0:
            self.weights = [weight / total for weight in weights]
            self.usual.learn(self.weights)

    def chosen(self, certainties: Sequence[float]) -> None:
        """The target chose tokens that it gave these probabilities; one between the bounds counts in part for each."""
        certain = sum(min(max((c - DOUBTFUL) / (CERTAIN - DOUBTFUL), 0.0), 1.0) for c in certainties)
        doubtful = len(certainties) - certain
        weights = [
            weight * share**certain * (1.0 - share) ** doubtful
            for weight, share in zip(self.weights, CERTAIN_SHARES, strict=True)
        ]
        total = sum(weights)
        self.weights = [weight / total for weight in weights]

    def passed(self, tokens: int) -> None:
        """`tokens` tokens were emitted."""
        same = (1.0 - CHANGE) ** tokens
        usual = self.usual.weights
        self.weights = [same * weight + (1.0 - same) * u for weight, u in zip(self.weights, usual, strict=True)]
