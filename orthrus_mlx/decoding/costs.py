"""What passes cost on this machine: milliseconds by view, row count and context, kept current while decoding.

Pure bookkeeping: measuring is `measure_costs`'s business, and a test may invent any machine.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import OrthrusError

AR = "ar"
DIFFUSION = "diffusion"
VIEWS = (AR, DIFFUSION)

OWN_WEIGHT = 0.25
COMMON_WEIGHT = 0.05
"""Shares of a measured deviation that a pass's own correction and everybody's take. The common share is small: a slow
draft must not make plain steps look slow, or drafting would go on."""

LARGEST_STEP = math.log(2)

_REMEMBERED = 4096

_Between = tuple[int, int, float]
"""Two indices, and how near to the second one: 0..1."""


@dataclass(frozen=True)
class Pass:
    """A measured pass: `ms` milliseconds for `rows` rows of `view` behind `context` cached tokens."""

    view: str
    rows: int
    context: int
    ms: float


class CostTable:
    """Milliseconds of a pass, interpolated between measured ones and corrected by what cycles really took.

    Linear between row counts and between contexts; beyond the last of either the last slope goes on. Of a view that
    was not measured the other one's passes are taken.

    Args:
        passes: measurements; some pass of some view is needed.
        sync_ms: what waiting for the device costs the host, which `passes` do not include.

    Attributes:
        version: counts the corrections; costs stay what they were while it does.

    Raises:
        OrthrusError: a measurement is not a positive number of milliseconds, or there is none.
    """

    def __init__(self, passes: Iterable[Pass], sync_ms: float = 0.0):
        self.passes = tuple(passes)
        self.sync_ms = sync_ms
        if not all(p.view in VIEWS and p.rows > 0 and p.context >= 0 and 0 < p.ms < math.inf for p in self.passes):
            raise OrthrusError("cost table: a pass needs a known view, rows, and a positive time")
        if not self.passes or not 0 <= sync_ms < math.inf:
            raise OrthrusError("cost table: no pass was measured")
        measured = {view: _Grid([p for p in self.passes if p.view == view]) for view in self._views()}
        self._grids = {view: measured.get(view) or next(iter(measured.values())) for view in VIEWS}
        self.version = 0
        self._common = 0.0
        # By row count and context, as measured: what is wrong behind a long context says little of a short one.
        self._own = {view: [[0.0] * len(grid.contexts) for _ in grid.rows] for view, grid in self._grids.items()}
        self._recent: dict[tuple[tuple[str, int], ...], deque[float]] = {}
        self._measured: dict[tuple[str, int, int], tuple[float, _Between, _Between]] = {}

    def _views(self) -> list[str]:
        return [view for view in VIEWS if any(p.view == view for p in self.passes)]

    def cost(self, view: str, rows: int, context: int) -> float:
        """Milliseconds of a pass."""
        key = view, rows, context
        known = self._measured.get(key)
        if known is None:
            if len(self._measured) >= _REMEMBERED:
                self._measured.clear()
            grid = self._grids[view]
            known = self._measured[key] = grid.ms(rows, context), *grid.place(rows, context)
        ms, (left, right, share), (below, above, near) = known
        fewer, more = self._own[view][left], self._own[view][right]
        own = (1.0 - share) * ((1.0 - near) * fewer[below] + near * fewer[above])
        own += share * ((1.0 - near) * more[below] + near * more[above])
        return ms * math.exp(self._common + own)

    def observe(self, passes: Sequence[tuple[str, int]], context: int, predicted_ms: float, measured_ms: float) -> None:
        """Learn that the (view, rows) of a cycle behind `context` tokens took `measured_ms` together where
        `predicted_ms` was expected.

        The median of the last three cycles with the same passes counts, so that one that waited for a compilation or
        for another program does not; until there are three, the one nearest to what was expected.
        """
        if not (passes and 0 < predicted_ms < math.inf and 0 < measured_ms < math.inf):
            return
        recent = self._recent.setdefault(tuple(passes), deque(maxlen=3))
        recent.append(math.log(measured_ms / predicted_ms))
        deviation = sorted(recent)[1] if len(recent) == 3 else min(recent, key=abs)
        deviation = min(max(deviation, -LARGEST_STEP), LARGEST_STEP)
        self._common += COMMON_WEIGHT * deviation
        for view, rows in passes:
            (left, right, share), (below, above, near) = self._grids[view].place(rows, context)
            for row, part in ((left, 1.0 - share), (right, share)):
                self._own[view][row][below] += OWN_WEIGHT * deviation * part * (1.0 - near)
                self._own[view][row][above] += OWN_WEIGHT * deviation * part * near
        self.version += 1

    def to_dict(self) -> dict[str, float]:
        """Measurements as plain numbers for a file, corrections left out."""
        entry = {f"{p.view}/{p.rows}/{p.context}": p.ms for p in self.passes}
        return entry | {"sync": self.sync_ms}

    @classmethod
    def from_dict(cls, entry: Mapping[str, float]) -> CostTable:
        """The table that `to_dict` wrote.

        Raises:
            OrthrusError: it did not.
        """
        passes = []
        try:
            for name, ms in entry.items():
                if name != "sync":
                    view, rows, context = name.split("/")
                    passes.append(Pass(view, int(rows), int(context), float(ms)))
            return cls(passes, float(entry["sync"]))
        except (KeyError, TypeError, ValueError) as error:
            raise OrthrusError(f"cost table: not one of ours ({error})") from error


class _Grid:
    """Times of one view at every measured row count and context, the ones not measured filled in."""

    def __init__(self, passes: Sequence[Pass]):
        found = {(p.rows, p.context): p.ms for p in passes}
        self.rows = sorted({rows for rows, _ in found})
        self.contexts = sorted({context for _, context in found})
        self._columns: list[list[float]] = []
        base = [0.0] * len(self.rows)
        for context in self.contexts:
            # What a longer context adds, at the row counts measured there; it changes little between them.
            known = [(i, found[rows, context]) for i, rows in enumerate(self.rows) if (rows, context) in found]
            xs = [self.rows[i] for i, _ in known]
            extra = [ms - base[i] for i, ms in known]
            if context == self.contexts[0]:
                column = [max(_line(xs, extra, rows), min(extra) / 2) for rows in self.rows]
                # One pass says nothing of wider ones: they are then taken to cost by the row.
                if len(xs) == 1:
                    column = [extra[0] * max(1.0, rows / xs[0]) for rows in self.rows]
                base = column
            else:
                added = [_line(xs, extra, min(max(rows, xs[0]), xs[-1])) for rows in self.rows]
                column = [max(b + a, b / 2) for b, a in zip(base, added, strict=True)]
            self._columns.append(column)

    def ms(self, rows: int, context: int) -> float:
        at_context = [self._at(column, rows) for column in self._columns]
        if context <= self.contexts[0] or len(self.contexts) == 1:
            return at_context[0]
        if context > self.contexts[-1]:
            slope = (at_context[-1] - at_context[-2]) / (self.contexts[-1] - self.contexts[-2])
            return at_context[-1] + max(slope, 0.0) * (context - self.contexts[-1])
        return _line(self.contexts, at_context, context)

    def _at(self, column: list[float], rows: int) -> float:
        if len(self.rows) == 1:
            return column[0] * max(1.0, rows / self.rows[0])
        return max(_line(self.rows, column, max(rows, 1)), min(column) / 2)

    def place(self, rows: int, context: int) -> tuple[_Between, _Between]:
        """Between which measured row counts and contexts a pass lies."""
        return _place(self.rows, rows), _place(self.contexts, context)


def _place(xs: Sequence[int], x: int) -> _Between:
    right = min(bisect_right(xs, x), len(xs) - 1)
    if right == 0:
        return 0, 0, 1.0
    below, above = xs[right - 1], xs[right]
    return right - 1, right, min(max((x - below) / (above - below), 0.0), 1.0)


def _line(xs: Sequence[int], ys: Sequence[float], x: int) -> float:
    """The value at `x` of the lines through the points (xs ascending); the outer lines go on."""
    if len(xs) == 1:
        return ys[0]
    i = min(max(bisect_right(xs, x) - 1, 0), len(xs) - 2)
    return ys[i] + (ys[i + 1] - ys[i]) * (x - xs[i]) / (xs[i + 1] - xs[i])
