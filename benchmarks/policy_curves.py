"""Costs of passes by row count on M1 to M5, in one-row passes: what others measured, and what our kernels should do.

Between points a curve is linear, beyond the last it is flat. Every entry names its source. "Derived" curves follow from
which MLX kernel runs at a row count, not from a timing. The predictions of our kernels are a roofline
(docs/kernels.md); they have not run on a Mac.
"""

from __future__ import annotations

from dataclasses import dataclass

from orthrus_mlx.decoding.costs import AR, DIFFUSION

from .policy_replay import Machine

PLAIN_MS = 10.0
"""A one-row pass; only ratios matter here."""

SYNC_MS = 0.25


@dataclass(frozen=True)
class Curve:
    """`points[rows]` is the cost of a pass in one-row passes; `row_class`: rows that rule B pads target passes to;
    `drafts`: the same of diffusion passes, where they cost something else; `ahead`, `given` and `cold`: see
    `Machine`."""

    name: str
    points: dict[int, float]
    source: str
    row_class: int | None = None
    drafts: dict[int, float] | None = None
    ahead: bool = True
    given: bool = False
    cold: tuple[float, ...] = ()

    def at(self, rows: int, view: str = AR) -> float:
        points = self.drafts if view == DIFFUSION and self.drafts else self.points
        known = sorted(points)
        right = next((r for r in known if r >= rows), known[-1])
        left = max((r for r in known if r <= rows), default=right)
        if left == right:
            return points[right]
        share = (rows - left) / (right - left)
        return points[left] * (1 - share) + points[right] * share

    def machine(self, noise: float = 0.03) -> Machine:
        """With attention that adds 2 % of a one-row pass per 1,000 cached tokens."""

        def cost(view: str, rows: int, context: int) -> float:
            return PLAIN_MS * (self.at(rows, view) + 0.02 * context / 1000)

        padded = int if self.row_class is None else self._pad
        return Machine(cost, SYNC_MS, noise, padded, self.ahead, self.given, self.cold)

    def _pad(self, rows: int) -> int:
        return self.row_class or rows


STOCK = (
    Curve(
        "M1/M2 bf16",
        {1: 1.0, 2: 2.0, 32: 2.2},
        "derived: from 2 rows on MLX runs its matrix kernel; 2x as measured for it on an M3 Ultra (mlx issue 4265)",
    ),
    Curve(
        "M1/M2 4-bit",
        {1: 1.0, 5: 4.6, 6: 4.5, 16: 4.5, 32: 5.0},
        "derived: below 6 rows MLX reads the weights once per row, then its matrix kernel runs",
    ),
    Curve(
        "M3/M4 Max bf16",
        {1: 1.0, 5: 1.3, 8: 2.0, 16: 2.05, 32: 2.3},
        "M4 Max, 8 to 16 rows (matryoshka-inference, 1.7B: 4.1 one-row steps a cycle of 16); below 8 derived",
    ),
    Curve("M3 Max 4-bit", {1: 1.0, 8: 2.5, 10: 3.95, 32: 3.95}, "mlx PR 3863, 5120 x 17408"),
    Curve(
        "M3 Ultra 4-bit",
        {1: 1.0, 8: 6.1, 16: 6.3, 32: 6.3},
        "mlx issue 4265, where the one-row figure looks cache-warm: the worst case",
    ),
    Curve(
        "M5 bf16",
        {1: 1.0, 5: 1.2, 15: 1.8, 16: 1.25, 32: 1.3},
        "derived: from 16 rows one matrix-unit kernel reads the weights once",
    ),
    Curve("M5 4-bit", {1: 1.0, 8: 1.8, 16: 2.4, 32: 2.4}, "derived: mlx PR 4171 and issue 4198"),
    Curve(
        "M4 Max bf16, row class 32",
        {1: 1.0, 5: 1.3, 8: 2.0, 16: 2.05, 32: 2.3},
        "as M3/M4 Max bf16, all target passes padded to 32 rows for exactness",
        row_class=32,
    ),
)

PREDICTED = (
    Curve("M1 Max bf16, ours", {1: 1.0, 16: 1.05, 32: 2.1}, "docs/kernels.md, roofline"),
    Curve("M1 Max 4-bit, ours", {1: 1.0, 4: 1.05, 8: 2.1, 16: 3.9, 32: 7.5}, "docs/kernels.md, roofline"),
    Curve("M4 Max bf16, ours", {1: 1.0, 16: 1.05, 32: 1.7}, "docs/kernels.md, roofline"),
    Curve("M4 Max 8-bit, ours", {1: 1.0, 8: 1.05, 16: 1.7, 32: 3.3}, "docs/kernels.md, roofline"),
    Curve("M4 Max 4-bit, ours", {1: 1.0, 4: 1.05, 8: 1.7, 16: 3.2, 32: 6.3}, "docs/kernels.md, roofline"),
    Curve("M5 bf16, ours", {1: 1.0, 16: 1.05, 32: 1.9}, "docs/kernels.md, roofline"),
)

OTHER = (
    Curve(
        "Linux CPU, MLX's BLAS",
        {1: 1.0, 32: 30.0},
        "facts of MLX 0.32.4's CPU wheel: a row costs a row",
        ahead=False,
    ),
    Curve(
        "Linux CPU, NumPy",
        {1: 1.0, 2: 1.2, 4: 1.5, 8: 2.2, 16: 3.6, 32: 6.4},
        "the demo model on 2 vCPU of an AMD EPYC, benchmarks/cpu_passes.py",
        drafts={2: 1.4, 4: 1.3, 8: 1.6, 16: 2.25, 32: 3.6},
        ahead=False,
        given=True,
        cold=(0.25, 0.13, 0.07, 0.04),
    ),
    Curve("H200 bf16", {1: 1.0, 16: 1.13, 32: 1.3}, "first measurement on an H200, MLX 0.32.4"),
)

CURVES = (*STOCK, *PREDICTED, *OTHER)
