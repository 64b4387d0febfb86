"""Texts to replay: invented ones that accept as published for real Orthrus models, and ones that no policy likes.

Published (tokens per cycle of 16 rows, 1.7B in bf16 on an M4 Max, from speed-ups of 0.83, 0.71, 2.06 and 1.38 at 4.08
one-row steps a cycle, with JSON's 8.4 given): code 3.4, prose 2.9, JSON 8.4, reasoning 5.6.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .policy_replay import Trace, invented_trace

PASSAGE = 24
"""Mean tokens of a passage: an expression, a clause, a record."""


@dataclass(frozen=True)
class Workload:
    """Passages by how surely their tokens are drafted right, and how common each is."""

    name: str
    passages: tuple[tuple[float, float], ...]
    """(acceptance probability of a token, share of the text)."""

    def texts(self, count: int, length: int, seed: int = 0) -> list[Trace]:
        rng = random.Random(f"{self.name}/{length}/{seed}")
        return [invented_trace(self._acceptance(rng, length), rng.randrange(2**31)) for _ in range(count)]

    def _acceptance(self, rng: random.Random, length: int) -> Sequence[float]:
        levels, shares = zip(*self.passages, strict=True)
        acceptance: list[float] = []
        while len(acceptance) < length:
            level = rng.choices(levels, shares)[0]
            acceptance += [level] * (1 + int(rng.expovariate(1 / PASSAGE)))
        return acceptance[:length]


WORKLOADS = (
    Workload("prose", ((0.90, 0.15), (0.70, 0.45), (0.45, 0.40))),
    Workload("code", ((0.95, 0.25), (0.75, 0.35), (0.45, 0.40))),
    Workload("reasoning", ((0.97, 0.40), (0.85, 0.35), (0.60, 0.25))),
    Workload("json", ((0.985, 0.70), (0.88, 0.20), (0.60, 0.10))),
    Workload("nothing accepted", ((0.0, 1.0),)),
    Workload("everything accepted", ((1.0, 1.0),)),
    Workload("switching", ((1.0, 0.5), (0.0, 0.5))),
)
LENGTHS = (20, 60, 400)
