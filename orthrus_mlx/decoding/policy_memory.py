"""What a policy learns about a loaded model, across texts. One object per model; a text's own state is not here."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from operator import mul, truediv

from .belief import LONGEST, Usual
from .calibration import Calibration
from .costs import CostTable
from .options import OptionsByContext

FIRST_CREDIT = 0.5
"""One-token steps that a text may lose to drafts that are not accepted before it has earned any: less than any cycle
costs, so nothing is drafted before a text has shown something."""

MOST_CARRIED, MOST_UNFAMILIAR = 8.0, 4.0
"""Most that the next text of a genre may start with, in one-token steps, and one that begins like none before: enough
for 16 rows at once, which on the demo model's texts are the best size; texts that differ share less."""

GAIN_CARRIED = 0.15
"""Share of what a text gained that the next ones may lose: more would let predictable texts pay with prose's time."""

MOST_GENRES = 256

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
        order = min(order, NGRAM_ORDERS[-1])
        rates = list(map(truediv, self._accepted, self._tried))
        return [rates[bin] for bin in _BINS[order : order + drafts]]

    def accepted(self, order: int, drafts: int) -> list[float]:
        """accepted[d] is the expected number of accepted drafts of the first d = 0 .. `drafts`."""
        return [0.0, *accumulate(accumulate(self.chances(order, drafts), mul))]

    def observe(self, order: int, drafts: int, accepted: int) -> None:
        """Of `drafts` drafts of a match, the first `accepted` were accepted."""
        keep = 1.0 - 1.0 / NGRAM_MEMORY
        for draft in range(min(accepted + 1, drafts)):
            bin = _BINS[min(order, NGRAM_ORDERS[-1]) + draft]
            self._tried[bin] = self._tried[bin] * keep + 1.0
            self._accepted[bin] = self._accepted[bin] * keep + (draft < accepted)


_BINS = [max(bisect_right(NGRAM_ORDERS, matching) - 1, 0) for matching in range(NGRAM_ORDERS[-1] + LONGEST + 1)]
"""By the number of tokens that match, which of `NGRAM_ORDERS` counts for it."""


@dataclass
class Genre:
    """What texts taught that begin alike.

    Attributes:
        usual: how common predictable passages are.
        credit: one-token steps that the next text may lose; what one text lost, the next ones earn back first.
        most: what `credit` is at most.
        wanted: the credit that a trial of drafting takes, as far as is known since the last draft.
    """

    usual: Usual
    credit: float = FIRST_CREDIT
    most: float = MOST_CARRIED
    wanted: float = 0.0


class PolicyMemory:
    """Shared by the policies of one loaded model.

    Attributes:
        ngrams: acceptance of n-gram drafts.
        tree_gain: accepted drafts of a tree over those of a chain of as many rows, lately.
    """

    def __init__(self) -> None:
        self.ngrams = NGramRates()
        self.tree_gain = 1.1
        self._unfamiliar = Genre(Usual(), most=MOST_UNFAMILIAR)
        self._genres: dict[tuple[int, ...], Genre | None] = {}
        self._calibrations = {False: Calibration(), True: Calibration()}
        self._options: tuple[tuple, OptionsByContext] | None = None

    def genre(self, beginning: tuple[int, ...]) -> Genre:
        """The genre of texts whose prompt's last token and first own token are `beginning`: a list, a heading, a block
        of code, a sentence. Beginnings not met before share one."""
        if beginning not in self._genres:
            if len(self._genres) == MOST_GENRES:
                del self._genres[next(iter(self._genres))]
            self._genres[beginning] = None
            return self._unfamiliar
        found = self._genres[beginning]
        if found is None:
            found = self._genres[beginning] = Genre(Usual(self._unfamiliar.usual.weights), self._unfamiliar.credit)
        return found

    def options(
        self, costs: CostTable, widths: tuple[int, ...], padded: Callable[[int], int], trees: bool
    ) -> OptionsByContext:
        """Looked up once for all texts that ask for the same."""
        asked = costs, widths, padded, trees
        if self._options is None or self._options[0] != asked:
            self._options = asked, OptionsByContext(*asked)
        return self._options[1]

    def calibration(self, sampled: bool) -> Calibration:
        """Confidence and acceptance go together differently where both views draw with the same noise."""
        return self._calibrations[sampled]
