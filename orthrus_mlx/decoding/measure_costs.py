"""Measure what passes cost, in less than a second: the passes that tell most first, in rounds over all of them.

Rounds, and not one pass after the other, so that a busy moment of the machine makes all passes look slow and none of
them slower than the rest. The median round of each counts, not the fastest: cycles are compared with it,
which take what they usually take, and a pass that is seldom run would look cheap beside those corrected every time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median_low

from .costs import AR, DIFFUSION, CostTable, Pass

BUDGET = 0.8
"""Seconds for all of it."""

FIRST_ROUND = 0.5
"""Share of the budget that may go before the second round: in the first one a pass may have to be compiled."""

ROUNDS = 6

CONTEXTS = (1024, 4096, 16384)
ROWS = (16, 8, 24, 2)
"""Row counts measured beside 1, 4 and the most; the first ones tell most."""


_Key = tuple[str, int, int]
"""(view, rows, context)"""


def measure_costs(
    run: Callable[[str, int, int], None],
    *,
    most_rows: int,
    draft_rows: int,
    padded: Callable[[int], int] = int,
    contexts: Sequence[int] = CONTEXTS,
    budget: float = BUDGET,
    now: Callable[[], float] = time.perf_counter,
) -> tuple[CostTable, bool]:
    """Time passes on the loaded model: their costs, and whether each was timed more than once, so worth keeping.

    Args:
        run: (view, rows, context) runs a pass and waits for it. With 0 rows it only waits for the device, as a pass
            that computes next to nothing would.
        most_rows: of a target pass.
        draft_rows: most of a diffusion pass; 1 where there is no diffusion view.
        padded: rows that a target pass of so many rows is computed with.
        contexts: cached tokens that fit this model and its memory, ascending; 0 is always measured.
        budget: seconds. One-row and four-row passes are run whatever they take; any other is left out, and
            extrapolated, where it is not expected to fit.
        now: a clock, in seconds.
    """
    start = now()
    sync_ms = min(_milliseconds(run, AR, 0, 0, now) for _ in range(5))
    found: dict[_Key, list[float]] = {}
    for key in _plan(most_rows, draft_rows, padded, contexts):
        if len(found) >= 2:
            expected = _table(found, sync_ms).cost(*key) / 1e3
            if now() + expected > start + FIRST_ROUND * budget:
                continue
        found[key] = [_milliseconds(run, *key, now)]
    for further in range(ROUNDS - 1):
        for key, rounds in found.items():
            # Behind a wide pass a step finds cold caches, up to a quarter of its time where a model fits them; behind
            # another step, where it mostly is, it does not.
            warming = key[1] == 1
            if now() + (1 + warming) * min(rounds) / 1e3 > start + budget:
                return _table(found, sync_ms), further > 0
            if warming:
                run(*key)
            rounds.append(_milliseconds(run, *key, now))
    return _table(found, sync_ms), True


def _table(found: Mapping[_Key, Sequence[float]], sync_ms: float) -> CostTable:
    # Of two rounds the faster one: the other may have been a compilation.
    usual = {key: median_low(rounds) for key, rounds in found.items()}
    # An odd moment while waiting was timed must not make a pass free.
    return CostTable([Pass(*key, max(ms - sync_ms, ms / 2, 1e-6)) for key, ms in usual.items()], sync_ms)


def _plan(
    most_rows: int, draft_rows: int, padded: Callable[[int], int], contexts: Sequence[int]
) -> list[tuple[str, int, int]]:
    """Passes (view, rows, context), each once, the most telling first."""
    wide = ((AR, most_rows), (DIFFUSION, draft_rows))
    plan = [(AR, 1, 0), (AR, 4, 0), (DIFFUSION, 4, 0), *((view, rows, 0) for view, rows in wide)]
    plan += [(view, rows, 0) for rows in ROWS[:2] for view in (AR, DIFFUSION)]
    for context in contexts:
        plan += [(AR, 1, context), *((view, rows, context) for view, rows in wide)]
    plan += [(view, rows, 0) for rows in ROWS[2:] for view in (AR, DIFFUSION)]
    most = {AR: most_rows, DIFFUSION: draft_rows}
    allowed = [(view, rows, context) for view, rows, context in plan if rows <= most[view] and most[view] > 1]
    return list(dict.fromkeys((v, padded(rows) if v == AR else rows, context) for v, rows, context in allowed))


def _milliseconds(
    run: Callable[[str, int, int], None], view: str, rows: int, context: int, now: Callable[[], float]
) -> float:
    start = now()
    run(view, rows, context)
    return (now() - start) * 1e3
