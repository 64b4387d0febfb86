"""What could be done next with a diffusion pass, and what each would probably give and cost."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import truediv
from typing import cast

import numpy as np

from .belief import EXPECTED
from .costs import AR as AR_VIEW
from .costs import DIFFUSION, CostTable
from .steps import CHAIN, NGRAM, TREE, Step

MARGIN = 1.03
"""How much faster than one-token steps a step must promise to be: estimates are rough, a change of lanes costs."""

MOST_DEBT, MOST_READ_DEBT = 6.0, 10.0
"""Most one-token steps that a text may lose beyond its credit: where its last tokens were certain, and where a draft
was read, that included, and its confidences speak for it."""

STAKE_OF_CREDIT, STAKE_OF_DEBT = 3.0, 4.0
"""How many times the gain expected of a step it may lose of the text's credit, and beyond that."""

DEBT_PER_TOKEN = 0.75
"""A text may get into debt by so many one-token steps for each certain token since the last doubtful one but the first:
one alone says little."""

MOST_TREE_GAIN = 3.0
"""Accepted drafts of a tree are taken to be at most so many times those of a chain."""

RELIABILITY = 0.6
"""Of what knowing a passage's kind exactly would save, the share that reading its draft's confidences saves."""

READ_RISK = 0.4
"""Of what verifying a draft may lose, the share that reading it risks: verified is what its confidences speak for."""

CONTEXT_STEP = 64
"""Costs are looked up for the context rounded down to a multiple of this."""

STALE = 8
"""Corrections of the cost table after which costs are looked up again: one alone changes little."""

MOST_KEPT = 64
"""Contexts whose options are kept."""


@dataclass(frozen=True)
class Option:
    """A step with the tokens and milliseconds expected of it, and the milliseconds that it may lose."""

    step: Step
    tokens: float
    ms: float
    risk: float

    @property
    def rate(self) -> float:
        """Tokens per millisecond."""
        return self.tokens / self.ms


@dataclass(frozen=True)
class Means:
    """What a step may lose, in milliseconds: credit and debt, each in proportion to the gain expected of the step."""

    credit: float
    debt: float = 0.0

    def cover(self, risk: float, gain: float) -> bool:
        """Whether a step that loses `risk` at worst and gains `gain` on average may be taken."""
        gain = max(gain, 0.0)
        return risk <= min(self.credit, STAKE_OF_CREDIT * gain) + min(self.debt, STAKE_OF_DEBT * gain)


class Options:
    """The widths that a text may use and their costs.

    They are ten numbers: only what is summed over kinds of passage as well is worth an array.

    Args:
        costs: of passes.
        widths: row counts, ascending, the first being 1.
        padded: rows that a target pass of so many rows is computed with.
        trees: whether a draft that is read may be verified as a tree.
        context: cached tokens.

    Attributes:
        target: milliseconds of a target pass, by width.
        least_risk: the milliseconds that any draft may lose.
    """

    def __init__(
        self, costs: CostTable, widths: Sequence[int], padded: Callable[[int], int], trees: bool, context: int
    ):
        self._sync_ms = costs.sync_ms
        self._kind = TREE if trees else CHAIN
        self.widths = tuple(widths)
        self._rows = np.array(widths)
        self._expected = EXPECTED[:, self._rows - 1]
        self._worth: np.ndarray | None = None
        cost, sync = costs.cost, self._sync_ms
        self.target = [cost(AR_VIEW, padded(rows), context) for rows in widths]
        draft = [cost(DIFFUSION, rows, context) for rows in widths]
        # A wider pass drafts for a narrower one, too, and may be cheaper.
        cheapest = list(range(len(draft)))
        for i in reversed(range(len(draft) - 1)):
            cheapest[i] = i if draft[i] <= draft[cheapest[i + 1]] else cheapest[i + 1]
        self._draft_rows = tuple(self.widths[i] for i in cheapest)
        self._passes = [draft[i] + ms for i, ms in zip(cheapest, self.target, strict=True)]
        self._unread = [ms + sync for ms in self._passes]
        self._read = [ms + 2.0 * sync for ms in self._passes]
        self._before = np.array([draft[i] + 2.0 * sync for i in cheapest])
        plain = self.target[0]
        self._unread_risk = [ms - plain for ms in self._unread]
        self._read_risk = [
            read - ms + READ_RISK * (ms - plain) for read, ms in zip(self._read, self.target, strict=True)
        ]
        self.least_risk = min([*self._unread_risk[1:], *self._read_risk[1:]], default=math.inf)

    def _allowed(
        self, tokens: Sequence[float], ms: Sequence[float], risk: Sequence[float], room: int, means: Means
    ) -> list[int]:
        """Which widths, by index, may be drafted where each should give `tokens` in `ms` with `risk` at stake."""
        plain = self.target[0]
        widths = range(1, bisect_right(self.widths, room))
        return [i for i in widths if means.cover(risk[i], tokens[i] * plain - ms[i])]

    def expected(self, weights: Sequence[float]) -> list[float]:
        """Tokens expected of an unread chain, by width, where the kinds of passage have these weights."""
        return cast(list[float], (1.0 + np.array(weights) @ self._expected).tolist())

    def promise(self, tokens: Sequence[float]) -> float:
        """Tokens that the best unread chain is `expected` to give in the time of one by one-token steps."""
        return max(map(truediv, tokens[1:], self._passes[1:])) * self.target[0]

    def given(self, accepted: Sequence[float], means: Means) -> Option | None:
        """The drafts that cost no pass worth verifying most; accepted[d] is expected of the first d of them."""
        usable = bisect_right(self.widths, len(accepted))
        tokens = [1.0 + accepted[rows - 1] for rows in self.widths[:usable]]
        ms = [ms + self._sync_ms for ms in self.target[:usable]]
        # There is no evidence for a match that a debt could be taken on.
        allowed = [i for i in range(1, usable) if ms[i] - self.target[0] <= means.credit]
        i = _fastest(tokens, ms, allowed)
        return None if i is None else Option(Step(NGRAM, 0, self.widths[i]), tokens[i], ms[i], ms[i] - self.target[0])

    def unread(self, tokens: Sequence[float], room: int, means: Means) -> Option | None:
        """The chain with the most expected tokens per millisecond of those verified whole, unread.

        Args:
            tokens: `expected` of each.
            room: most rows.
            means: what may be lost.
        """
        ms = self._unread
        i = _fastest(tokens, ms, self._allowed(tokens, ms, self._unread_risk, room, means))
        if i is None:
            return None
        return Option(Step(CHAIN, self._draft_rows[i], self.widths[i]), tokens[i], ms[i], self._unread_risk[i])

    def read(self, weights: Sequence[float], room: int, means: Means, goal: float, tree_gain: float) -> Option | None:
        """A draft to be read before it is verified, if that is worth more than `goal` tokens per millisecond.

        Reading tells, roughly, which kind of passage this is, so that every kind gets its own width; the part that it
        does not tell leaves the width that suits their mixture.

        Args:
            weights: of the kinds of passage.
            room: most rows.
            means: what may be lost.
            tree_gain: accepted drafts of a tree over those of a chain with as many rows.
        """
        weight = np.array(weights)
        if weight @ self._worth_knowing() <= 0:
            return None
        tokens = np.minimum(1.0 + tree_gain * self._expected, self._rows)
        mixture = weight @ tokens
        allowed = self._allowed(mixture.tolist(), self._read, self._read_risk, room, means)
        if not allowed:
            return None
        # What is drafted may be left out.
        widths = [0, *allowed]
        target, before = np.array(self.target)[widths], self._before[widths]
        value = tokens[:, widths] - goal * target
        mixed_value = mixture[widths] - goal * target
        known = weight @ np.maximum.accumulate(value, axis=1)
        mixed = np.maximum.accumulate(mixed_value)
        total = RELIABILITY * known + (1.0 - RELIABILITY) * mixed - goal * before
        i = 1 + int(total[1:].argmax())
        if total[i] <= 0:
            return None
        best = target[value[:, : i + 1].argmax(axis=1)]
        mixed_ms = target[mixed_value[: i + 1].argmax()]
        ms = float(RELIABILITY * (weight @ best) + (1.0 - RELIABILITY) * mixed_ms + before[i])
        drafted = widths[i]
        return Option(self._looked(drafted), float(total[i]) + goal * ms, ms, self._read_risk[drafted])

    def _worth_knowing(self) -> np.ndarray:
        """By kind of passage, what a draft that is read is worth there at most, in tokens: one look at it spares many a
        text the reckoning."""
        if self._worth is None:
            goal, gain = MARGIN / self.target[0], 1.0 if self._kind == CHAIN else MOST_TREE_GAIN
            tokens = np.minimum(1.0 + gain * self._expected, self._rows)
            self._worth = (tokens - goal * np.array(self.target)).max(axis=1) - goal * self._before[1:].min()
        return self._worth

    def trial(self, weights: Sequence[float], room: int, most: float) -> Option | None:
        """The draft from which most may be learned for its price: expected gain where there is one, over the risk.

        Args:
            most: milliseconds that may ever be risked.
        """
        plain, ms = self.target[0], np.array(self._read)
        risk = ms - plain
        gains = np.maximum(1.0 + self._expected - ms / plain, 0.0)
        usable = (self._rows > 1) & (self._rows <= room) & (risk <= most)
        promise = np.where(usable, np.array(weights) @ gains, 0.0)
        i = int((promise / np.maximum(risk, 1e-3 * plain)).argmax())
        if promise[i] <= 0.0:
            return None
        return Option(self._looked(i), self.expected(weights)[i], self._read[i], float(risk[i]))

    def _looked(self, i: int) -> Step:
        return Step(self._kind, self._draft_rows[i], self.widths[i], look=True)


class OptionsByContext:
    """`Options` at the contexts that a model's texts are at, kept until their costs have changed.

    Args:
        costs, widths, padded, trees: as of `Options`.
    """

    def __init__(self, costs: CostTable, widths: Sequence[int], padded: Callable[[int], int], trees: bool):
        self._costs, self._widths, self._padded, self._trees = costs, tuple(widths), padded, trees
        self._known: dict[int, tuple[int, Options]] = {}

    def at(self, context: int) -> Options:
        """What could be done behind `context` cached tokens."""
        step, version = context // CONTEXT_STEP, self._costs.version
        kept, found = self._known.get(step, (0, None))
        if found is None or version - kept >= STALE:
            if len(self._known) == MOST_KEPT:
                self._known.clear()
            found = Options(self._costs, self._widths, self._padded, self._trees, step * CONTEXT_STEP)
            self._known[step] = version, found
        return found

    def target_ms(self, rows: int, context: int) -> float:
        """What a target pass costs now."""
        return self._costs.cost(AR_VIEW, self._padded(rows), context // CONTEXT_STEP * CONTEXT_STEP)

    def draft_ms(self, rows: int, context: int) -> float:
        """What a diffusion pass costs now."""
        return self._costs.cost(DIFFUSION, rows, context // CONTEXT_STEP * CONTEXT_STEP)


def _fastest(tokens: Sequence[float], ms: Sequence[float], allowed: Sequence[int]) -> int | None:
    """Which of the allowed widths gives the most tokens per millisecond; None where none is allowed."""
    return max(allowed, key=lambda i: tokens[i] / ms[i], default=None)
