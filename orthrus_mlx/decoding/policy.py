"""The policy of modes "ar" and "diffusion"; mode "auto" has `auto_policy`. No device code."""

from __future__ import annotations

from .steps import AR, CHAIN, Candidates, Draft, Outcome, Prediction, Situation, Step


class FixedPolicy:
    """Always the same number of rows: plain decoding (1) or full blocks."""

    learns = False
    prediction: Prediction | None = None

    def __init__(self, rows: int):
        self._step = Step(CHAIN, rows, rows) if rows > 1 else Step(AR)

    def step(self, situation: Situation) -> Step:
        return self._step

    def shape(self, step: Step, draft: Draft, situation: Situation) -> Candidates:
        tokens = tuple(row[0] for row in draft.tokens[: step.verify_rows - 1])
        return Candidates(tokens, tuple(range(-1, len(tokens) - 1)))

    def observe(self, outcome: Outcome) -> None:
        pass
