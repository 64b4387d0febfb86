"""What could be done next with a diffusion pass, and what each would probably give and cost."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .belief import EXPECTED
from .costs import AR as AR_VIEW
from .costs import DIFFUSION, CostTable
from .steps import CHAIN, NGRAM, TREE, Step

MOST_DEBT = 6.0
"""One-token steps that a text may lose beyond its credit, where at least as many are expected to be gained."""

DEBT_PER_TOKEN = 0.5
"""A text may get into debt by so many one-token steps for each certain token since the last doubtful one."""

RELIABILITY = 0.6
"""Of what knowing a passage's kind exactly would save, the share that reading its draft's confidences saves."""

CONTEXT_STEP = 64
"""Costs are looked up for the context rounded down to a multiple of this."""

STALE = 4
"""Corrections of the cost table after which costs are looked up again: one alone changes little."""


@dataclass(frozen=True)
class Option:
    """A step with the tokens and milliseconds expected of it, and the milliseconds lost if nothing is accepted."""

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
    """What a step may lose, in milliseconds: the text's credit, and a debt of no more than the gain expected of it."""

    credit: float
    debt: float = 0.0

    def cover(self, risk: Any, gain: Any) -> Any:
        """Whether a step that loses `risk` at worst and gains `gain` on average may be taken (numbers or arrays)."""
        return risk <= self.credit + np.minimum(np.maximum(gain, 0.0), self.debt)


class Options:
    """The widths that a text may use and their costs.

    Args:
        costs: of passes.
        widths: row counts, ascending, the first being 1.
        padded: rows that a target pass of so many rows is computed with.
        trees: whether a draft that is read may be verified as a tree.
    """

    def __init__(self, costs: CostTable, widths: Sequence[int], padded: Callable[[int], int], trees: bool):
        self._costs, self._padded = costs, padded
        self._kind = TREE if trees else CHAIN
        self.widths = np.array(widths)
        self._expected = EXPECTED[:, self.widths - 1]
        self._key = (-1, 0)
        self.target = self.draft = self.widths.astype(float)
        self._draft_rows = tuple(widths)
        self._target_rows = tuple(padded(rows) for rows in widths)
        self._draft_widths = list(widths)

    def price(self, context: int) -> None:
        """Look up what passes cost now: sets `target` and `draft`, milliseconds by width."""
        step, version = context // CONTEXT_STEP, self._costs.version
        if step == self._key[0] and version - self._key[1] < STALE:
            return
        self._key = step, version
        context = step * CONTEXT_STEP
        cost = self._costs.cost
        self.target = np.array([cost(AR_VIEW, rows, context) for rows in self._target_rows])
        draft = [cost(DIFFUSION, rows, context) for rows in self._draft_rows]
        # A wider pass drafts for a narrower one, too, and may be cheaper.
        cheapest = list(range(len(draft)))
        for i in reversed(range(len(draft) - 1)):
            cheapest[i] = i if draft[i] <= draft[cheapest[i + 1]] else cheapest[i + 1]
        self.draft = np.array([draft[i] for i in cheapest])
        self._draft_widths = [self._draft_rows[i] for i in cheapest]

    def target_ms(self, rows: int, context: int) -> float:
        return self._costs.cost(AR_VIEW, self._padded(rows), context // CONTEXT_STEP * CONTEXT_STEP)

    def draft_ms(self, rows: int, context: int) -> float:
        return self._costs.cost(DIFFUSION, rows, context // CONTEXT_STEP * CONTEXT_STEP)

    def _allowed(self, tokens: np.ndarray, ms: np.ndarray, room: int, means: Means) -> np.ndarray:
        """Which widths may be drafted where each is expected to give `tokens` in `ms`."""
        plain = self.target[0]
        allowed = means.cover(ms - plain, tokens * plain - ms)
        allowed[0] = False
        allowed[bisect_right(self._draft_rows, room) :] = False
        return allowed

    def _fastest(self, tokens: np.ndarray, ms: np.ndarray, allowed: np.ndarray) -> int | None:
        """Which of the allowed widths gives the most tokens per millisecond; None where none is allowed."""
        i = int(np.where(allowed, tokens / ms, 0.0).argmax())
        return i if allowed[i] else None

    def _option(self, step: Step, tokens: float, ms: float) -> Option:
        return Option(step, float(tokens), float(ms), float(ms - self.target[0]))

    def promise(self, weights: Sequence[float]) -> float:
        """Tokens that the best chain verified unread is expected to give in the time of one by one-token steps."""
        tokens = 1.0 + np.asarray(weights) @ self._expected
        return float((tokens / (self.draft + self.target))[1:].max() * self.target[0])

    def given(self, accepted: np.ndarray, means: Means) -> Option | None:
        """The drafts that cost no pass worth verifying most; accepted[d] is expected of the first d of them."""
        usable = bisect_right(self._draft_rows, len(accepted))
        tokens = 1.0 + accepted[self.widths[:usable] - 1]
        ms = self.target[:usable] + self._costs.sync_ms
        # There is no evidence for a match that a debt could be taken on.
        allowed = (self.widths[:usable] > 1) & (ms - self.target[0] <= means.credit)
        i = self._fastest(tokens, ms, allowed)
        return None if i is None else self._option(Step(NGRAM, 0, int(self.widths[i])), tokens[i], ms[i])

    def unread(self, weights: Sequence[float], room: int, means: Means) -> Option | None:
        """The chain with the most expected tokens per millisecond of those verified whole, unread.

        Args:
            weights: of the kinds of passage.
            room: most rows.
            means: what may be lost.
        """
        tokens = 1.0 + np.asarray(weights) @ self._expected
        ms = self.draft + self.target + self._costs.sync_ms
        i = self._fastest(tokens, ms, self._allowed(tokens, ms, room, means))
        return (
            None
            if i is None
            else self._option(Step(CHAIN, self._draft_widths[i], int(self.widths[i])), tokens[i], ms[i])
        )

    def read(self, weights: Sequence[float], room: int, means: Means, goal: float, tree_gain: float) -> Option | None:
        """A draft to be read before it is verified, if that is worth more than `goal` tokens per millisecond.

        Reading tells, roughly, which kind of passage this is, so that every kind gets its own width; the part that it
        does not tell leaves the width that suits their mixture.

        Args:
            tree_gain: accepted drafts of a tree over those of a chain with as many rows.
        """
        weight = np.asarray(weights)
        before = self.draft + 2.0 * self._costs.sync_ms
        tokens = np.minimum(1.0 + tree_gain * self._expected, self.widths)
        mean = weight @ tokens
        allowed = self._allowed(mean, before + self.target, room, means)
        if not allowed.any():
            return None
        # What is drafted may be left out.
        allowed[0] = True
        barred = np.where(allowed, 0.0, -np.inf)
        verifying = barred - goal * self.target
        value, mixed_value = tokens + verifying, mean + verifying
        known = weight @ np.maximum.accumulate(value, axis=1)
        mixed = np.maximum.accumulate(mixed_value)
        total = RELIABILITY * known + (1.0 - RELIABILITY) * mixed - goal * before + barred
        total[0] = -np.inf
        i = int(total.argmax())
        if total[i] <= 0:
            return None
        best = value[:, : i + 1].argmax(axis=1)
        mixed_ms = self.target[mixed_value[: i + 1].argmax()]
        ms = float(RELIABILITY * (weight @ self.target[best]) + (1.0 - RELIABILITY) * mixed_ms + before[i])
        risk = before[i] + self.target[i] - self.target[0]
        step = Step(self._kind, self._draft_widths[i], int(self.widths[i]), look=True)
        return Option(step, float(total[i]) + goal * ms, ms, float(risk))

    def trial(self, weights: Sequence[float], room: int, most: float) -> Option | None:
        """The draft from which most may be learned for its price: expected gain where there is one, over the risk.

        Args:
            most: milliseconds that may ever be risked.
        """
        plain = self.target[0]
        ms = self.draft + self.target + 2.0 * self._costs.sync_ms
        risk = ms - plain
        gains = np.maximum(1.0 + self._expected - ms / plain, 0.0)
        promise = np.where((self.widths > 1) & (self.widths <= room) & (risk <= most), np.asarray(weights) @ gains, 0.0)
        i = int(np.argmax(promise / np.maximum(risk, 1e-3 * plain)))
        if promise[i] <= 0.0:
            return None
        step = Step(self._kind, self._draft_widths[i], int(self.widths[i]), look=True)
        return Option(step, float(1.0 + np.asarray(weights) @ self._expected[:, i]), float(ms[i]), float(risk[i]))
