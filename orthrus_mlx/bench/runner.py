"""Running the rounds: lanes one after the other, in an order that changes from round to round."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..decoding.model_policy import forget
from .cases import Case, Item
from .lanes import MLX_LM, Models, Run, answer, first_difference
from .results import Measured, Results, Round

WARM_UP_TOKENS = 32

Progress = Callable[[str, str], None]
"""Called with a case's name before each round, and with the lane that runs."""


def order(lanes: Sequence[str], round: int) -> list[str]:
    """The lanes' order in a round: forwards, backwards, then the same begun one lane later.

    Whatever drifts (temperature, clock, other load) then meets every lane at every place.
    """
    start = round // 2 % len(lanes)
    rotated = [*lanes[start:], *lanes[:start]]
    return rotated[::-1] if round % 2 else rotated


def plan(cases: Sequence[Case], results: Results) -> Iterator[tuple[Case, Item, int]]:
    """What is still to be measured, trial by trial, so that a run broken off has something of every prompt."""
    done = results.done()
    for trial in range(max((case.trials for case in cases), default=0)):
        for case in cases:
            for item in case.items:
                if trial < case.trials and (case.name, item.id, trial) not in done:
                    yield case, item, trial


def run(
    models: Models,
    cases: Sequence[Case],
    lanes: Callable[[Case], Sequence[str]],
    results: Results,
    *,
    delay: float = 0,
    progress: Progress = lambda case, lane: None,
) -> None:
    """Measure everything that `results` lacks, each finished round into `results` at once.

    Args:
        lanes: the lanes of a case.
        delay: seconds to wait before each answer, for a machine that heats up.
    """
    rounds = list(plan(cases, results))
    if rounds:
        _warm_up(models, sorted({lane for case, *_ in rounds for lane in lanes(case)}), rounds[0][1])
    begun = None
    for case, item, trial in rounds:
        if trial != begun:
            # No answer may profit from what an earlier one to the same prompt taught `auto`.
            forget(models.model)
            begun = trial
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        answers: dict[str, Run] = {}
        for lane in order(lanes(case), len(results.rounds)):
            progress(case.name, lane)
            time.sleep(delay)
            answers[lane] = answer(models, lane, item, until_eos=case.until_eos)
        measured = {lane: _compared(lane, answers) for lane in answers}
        results.add(Round(case.name, case.kind, item.id, trial, len(item.tokens), load, measured, case.context))


def _compared(lane: str, answers: dict[str, Run]) -> Measured:
    run, reference = answers[lane], answers.get("ar")
    return Measured(
        tokens=len(run.tokens),
        prompt_seconds=run.prompt_seconds,
        first_token_seconds=run.first_token_seconds,
        seconds=run.seconds,
        memory=run.memory,
        compared=reference is not None,
        differs_at=None if reference is None else first_difference(run.tokens, reference.tokens),
        stats=run.stats,
    )


def _warm_up(models: Models, lanes: Sequence[str], item: Item) -> None:
    """Compile kernels and let `auto` take its measurements before anything counts."""
    short = replace(item, max_tokens=min(WARM_UP_TOKENS, item.max_tokens))
    for lane in lanes:
        answer(models, lane, short, until_eos=False)


def mismatches(results: Results) -> list[str]:
    """The answers of this package that differ from its AR answer: there must be none."""
    return [
        f"{r.item} ({r.case}, {lane}, trial {r.trial + 1}) at token {measured.differs_at}"
        for r in results.rounds
        for lane, measured in r.lanes.items()
        if lane != MLX_LM and measured.differs_at is not None
    ]
