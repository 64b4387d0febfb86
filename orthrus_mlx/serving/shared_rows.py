"""How a request's policy is kept to its share of a pass that several requests ride in."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..decoding.steps import Candidates, Draft, Outcome, Policy, Prediction, Situation, Step

LEAST_SHARE = 4
"""A drafted cycle takes two passes and emits at most as many tokens as it has rows: with two rows no more than two
one-token steps, with three hardly more."""


@dataclass
class Load:
    """What the scheduler is doing.

    Attributes:
        requests: under way, those whose prompt is still read included: they will want rows soon.
        interruptions: rises with whatever makes a request's wall time say little about its own passes: a pass with
            another request's rows, several passes in a tick, a prompt being read.
    """

    requests: int = 0
    interruptions: int = 0


class SharedRows:
    """`policy`, kept to this request's share of the rows of a pass.

    Up to `most_rows` rows a pass costs little more than one of few rows; beyond them a second pass is needed. So `n`
    requests have `most_rows // n` rows each: alone a request has all that its policy wants, and in a
    crowd, where the share is below `LEAST_SHARE`, all take one-token steps. What a cycle took while others shared its
    passes is not what its own passes cost, and is kept from the policy.
    """

    def __init__(self, policy: Policy, load: Load, most_rows: int):
        self._policy, self._load, self._most = policy, load, most_rows
        self._seen = load.interruptions

    @property
    def learns(self) -> bool:
        # A crowd drafts nothing, so nothing is to be learned, and the look through the vocabulary is saved.
        return self._policy.learns and self._share() > 1

    @property
    def prediction(self) -> Prediction | None:
        return self._policy.prediction

    def step(self, situation: Situation) -> Step:
        if self._load.requests <= 1:
            return self._policy.step(situation)
        share = self._share()
        room, ngram = min(situation.room, share), min(situation.ngram, share - 1)
        step = self._policy.step(replace(situation, room=room, ngram=ngram))
        return replace(step, draft_rows=min(step.draft_rows, share), verify_rows=min(step.verify_rows, share))

    def _share(self) -> int:
        """Rows of a pass that this request may have."""
        share = self._most // max(self._load.requests, 1)
        return share if share >= LEAST_SHARE or self._load.requests <= 1 else 1

    def shape(self, step: Step, draft: Draft, situation: Situation) -> Candidates:
        return self._policy.shape(step, draft, situation)

    def observe(self, outcome: Outcome) -> None:
        if self._load.interruptions != self._seen:
            self._seen = self._load.interruptions
            outcome = replace(outcome, seconds=0.0)
        self._policy.observe(outcome)
