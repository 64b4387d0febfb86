"""From rounds to figures. A speed-up is the median of ratios within rounds: no baseline in the round, no speed-up."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .lanes import MLX_LM, is_fixed
from .results import Measured, Results, Round

LEAST_OF_AR = 0.97
LEAST_OF_BEST = 0.95
BASELINES = ("ar", MLX_LM)


@dataclass(frozen=True)
class Spread:
    """Quartiles of a sample."""

    low: float
    median: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None of an empty sample."""
        sample = list(values)
        if not sample:
            return None
        low, median, high = (
            statistics.quantiles(sample, n=4, method="inclusive") if len(sample) > 1 else [sample[0]] * 3
        )
        return cls(low, median, high, len(sample))


@dataclass(frozen=True)
class Counts:
    """`DecodeStats` of several answers, added up."""

    tokens: int
    cycles: int
    passes: int
    drafted: int
    accepted: int
    drafted_at: list[int]
    accepted_at: list[int]
    steps: dict[str, int]
    target_rows: dict[str, int]
    draft_rows: dict[str, int]
    seconds: float
    plain_seconds: float
    predicted_seconds: float
    predicted_plain_seconds: float

    @property
    def tokens_per_cycle(self) -> float:
        return self.tokens / self.cycles if self.cycles else 0.0

    @property
    def tokens_per_forward(self) -> float:
        return self.tokens / self.passes if self.passes else 0.0

    @property
    def gains(self) -> tuple[float, float] | None:
        """One-token steps' time, by the policy's cost table, over that of its cycles: as it expected, and as it was."""
        if not self.predicted_seconds or not self.seconds:
            return None
        return self.predicted_plain_seconds / self.predicted_seconds, self.plain_seconds / self.seconds


@dataclass(frozen=True)
class LaneSummary:
    """A lane in a case.

    Attributes:
        speed, first_token, memory: tokens per second without the prompt; seconds; bytes above those held before.
        speedup: by baseline ("ar", "mlx_lm"), of the speeds without the prompt; only baselines of the same rounds.
        speedup_with_prompt: the same of the whole time.
        answers: how many there are.
        same, compared: answers equal to AR's, and answers compared.
        counts: None for mlx-lm.
    """

    lane: str
    answers: int
    speed: Spread
    first_token: Spread
    memory: int
    speedup: dict[str, Spread]
    speedup_with_prompt: dict[str, Spread]
    same: int
    compared: int
    counts: Counts | None


@dataclass(frozen=True)
class CaseSummary:
    name: str
    kind: str
    context: int | None
    prompt_tokens: Spread
    lanes: dict[str, LaneSummary]
    against: dict[str, Spread]
    """`auto` against each fixed setting, answer by answer of the same rounds."""
    whole: dict[str, float]
    """The same of the time that all these answers took together."""


def summarise(results: Results) -> list[CaseSummary]:
    """A summary per case, in the order in which they were first measured."""
    cases: dict[str, list[Round]] = {}
    for round in results.rounds:
        cases.setdefault(round.case, []).append(round)
    return [_case(name, rounds) for name, rounds in cases.items()]


def _case(name: str, rounds: list[Round]) -> CaseSummary:
    lanes = sorted({lane for r in rounds for lane in r.lanes}, key=_rank)
    against = {lane: ratio for lane in lanes if is_fixed(lane) and (ratio := _ratio(rounds, "auto", lane))}
    prompt = Spread.of(float(r.prompt_tokens) for r in rounds)
    assert prompt is not None
    summaries = {lane: _lane(lane, rounds) for lane in lanes}
    whole = {lane: _whole_ratio(rounds, "auto", lane) for lane in against}
    return CaseSummary(name, rounds[0].kind, rounds[0].context, prompt, summaries, against, whole)


def _rank(lane: str) -> tuple[int, int]:
    """mlx-lm first, then from plain to clever, blocks by size."""
    kind = next(i for i, start in enumerate((MLX_LM, "ar", "block", "diffusion", "auto")) if lane.startswith(start))
    return kind, int(lane.split()[1]) if lane.startswith("block") else 0


def _lane(lane: str, rounds: list[Round]) -> LaneSummary:
    runs = [r.lanes[lane] for r in rounds if lane in r.lanes]
    # An answer of one token, which came with the prompt, has no speed.
    speed = Spread.of(m.tokens_per_second for m in runs if m.decoded) or Spread(0.0, 0.0, 0.0, 0)
    first = Spread.of(m.first_token_seconds for m in runs)
    assert first is not None
    others = [b for b in BASELINES if b != lane]
    compared = [m for m in runs if m.compared]
    return LaneSummary(
        lane=lane,
        answers=len(runs),
        speed=speed,
        first_token=first,
        memory=max(m.memory for m in runs),
        speedup={b: s for b in others if (s := _ratio(rounds, lane, b))},
        speedup_with_prompt={b: s for b in others if (s := _ratio(rounds, lane, b, with_prompt=True))},
        same=sum(m.differs_at is None for m in compared),
        compared=len(compared),
        counts=_counts([m.stats for m in runs if m.stats is not None]),
    )


def _ratio(rounds: Sequence[Round], lane: str, baseline: str, *, with_prompt: bool = False) -> Spread | None:
    def speed(measured: Measured) -> float:
        return measured.tokens_per_second_with_prompt if with_prompt else measured.tokens_per_second

    pairs = [(r.lanes[lane], r.lanes[baseline]) for r in rounds if lane in r.lanes and baseline in r.lanes]
    return Spread.of(speed(a) / speed(b) for a, b in pairs if speed(a) and speed(b))


def _whole_ratio(rounds: Sequence[Round], lane: str, other: str) -> float:
    """Time of all answers of `other` over that of `lane`, the prompts not counted."""
    pairs = [(r.lanes[lane], r.lanes[other]) for r in rounds if lane in r.lanes and other in r.lanes]
    return sum(b.decode_seconds for _, b in pairs) / sum(a.decode_seconds for a, _ in pairs)


def _counts(stats: list[dict[str, Any]]) -> Counts | None:
    if not stats:
        return None
    return Counts(
        tokens=_sum(stats, "tokens"),
        cycles=_sum(stats, "cycles"),
        passes=_sum(stats, "ar_passes") + _sum(stats, "diffusion_passes"),
        drafted=_sum(stats, "drafted"),
        accepted=_sum(stats, "accepted"),
        drafted_at=_sum_lists(stats, "drafted_at"),
        accepted_at=_sum_lists(stats, "accepted_at"),
        steps=_sum_maps(stats, "steps"),
        target_rows=_sum_maps(stats, "target_rows"),
        draft_rows=_sum_maps(stats, "draft_rows"),
        seconds=_sum(stats, "seconds"),
        plain_seconds=_sum(stats, "plain_seconds"),
        predicted_seconds=_sum(stats, "predicted_seconds"),
        predicted_plain_seconds=_sum(stats, "predicted_plain_seconds"),
    )


def _sum(stats: list[dict[str, Any]], name: str) -> Any:
    return sum(s[name] for s in stats)


def _sum_lists(stats: list[dict[str, Any]], name: str) -> list[int]:
    lists = [s[name] for s in stats]
    return [sum(at[i] for at in lists if i < len(at)) for i in range(max(map(len, lists)))]


def _sum_maps(stats: list[dict[str, Any]], name: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for s in stats:
        total.update(s[name])
    return dict(total)


@dataclass(frozen=True)
class Verdict:
    """A promise about `auto` on one case and the figure that keeps or breaks it."""

    passed: bool
    text: str

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.text}"


def verdicts(cases: Iterable[CaseSummary]) -> list[Verdict]:
    """Is `auto` never below `LEAST_OF_AR` of AR, and within 5 % of the best fixed setting that ran beside it?

    Judged by the time that all answers of a case took: a draft that did not pay in an answer of two tokens is made up
    for by longer ones, or is not. The median answer stands beside it.
    """
    found = []
    for case in cases:
        if "ar" in case.against:
            text = f"{case.name}: auto is {_times(case, 'ar')} of ar, to be at least {LEAST_OF_AR}"
            found.append(Verdict(case.whole["ar"] >= LEAST_OF_AR, text))
        if any(lane.startswith("block") for lane in case.against):
            best = min(case.whole, key=lambda lane: case.whole[lane])
            text = (
                f"{case.name}: auto is {_times(case, best)} of {best}, the best of {len(case.against)} fixed settings"
            )
            found.append(Verdict(case.whole[best] >= LEAST_OF_BEST, f"{text}, to be at least {LEAST_OF_BEST}"))
    return found


def _times(case: CaseSummary, lane: str) -> str:
    ratio = case.against[lane]
    return f"{case.whole[lane]:.3f}x (median answer {ratio.median:.3f}, {ratio.low:.3f}..{ratio.high:.3f})"
