"""How many rows the next cycle verifies. Any answer is lossless (rule A), so a policy may be wrong, only slower.

Pure bookkeeping: no device code, no clock of its own.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Protocol


class Policy(Protocol):
    def rows(self) -> int:
        """Rows of the next cycle: 1 is a plain one-token step, more is the pending token and rows-1 drafts."""

    def observe(self, rows: int, tokens: int, seconds: float) -> None:
        """A cycle of `rows` rows emitted `tokens` tokens in `seconds`, the consumer's time not counted."""


class FixedPolicy:
    """Always the same number of rows: plain decoding (1) or full blocks."""

    def __init__(self, rows: int):
        self._rows = rows

    def rows(self) -> int:
        return self._rows

    def observe(self, rows: int, tokens: int, seconds: float) -> None:
        pass


class MeasuredPolicy:
    """Blocks or one-token steps, whichever gave more tokens per second lately on this machine and text.

    Both lanes are tried first; then the faster one runs, and the slower one is tried again after a number of
    tokens that doubles while it keeps losing, so that the time spent on it stays a bounded share.
    """

    TRIAL_STEPS = MappingProxyType({"ar": 4, "block": 1})
    FIRST_PATIENCE = 32
    MOST_PATIENCE = 512
    WEIGHT = 0.3

    def __init__(self, block_rows: int):
        self._block_rows = block_rows
        self._seconds_per_token: dict[str, float] = {}
        self._lane = "block"
        self._trial = self.TRIAL_STEPS["block"]
        self._patience = self.FIRST_PATIENCE
        self._tokens_since_trial = 0

    def rows(self) -> int:
        return self._block_rows if self._lane == "block" else 1

    def observe(self, rows: int, tokens: int, seconds: float) -> None:
        lane = "block" if rows > 1 else "ar"
        rate = seconds / max(tokens, 1)
        known = self._seconds_per_token.get(lane)
        self._seconds_per_token[lane] = rate if known is None else known + self.WEIGHT * (rate - known)
        self._tokens_since_trial += tokens
        if self._trial > 0:
            self._trial -= 1
        if self._trial == 0:
            self._choose()

    def _choose(self) -> None:
        other = "ar" if self._lane == "block" else "block"
        if other not in self._seconds_per_token:
            self._try(other)
            return
        fastest = min(self._seconds_per_token, key=self._seconds_per_token.__getitem__)
        if fastest != self._lane:
            self._lane = fastest
            self._tokens_since_trial = 0
        elif self._tokens_since_trial >= self._patience:
            self._patience = min(2 * self._patience, self.MOST_PATIENCE)
            self._try(other)

    def _try(self, lane: str) -> None:
        self._lane = lane
        self._trial = self.TRIAL_STEPS[lane]
        self._tokens_since_trial = 0


def make_policy(mode: str, block_rows: int) -> Policy:
    """The policy of a decoding mode: "ar", "diffusion" or "auto"."""
    if mode == "auto" and block_rows > 1:
        return MeasuredPolicy(block_rows)
    return FixedPolicy(block_rows if mode == "diffusion" else 1)
