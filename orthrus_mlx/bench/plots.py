"""The report's figures as PNG files; one whose figures were not measured is not drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic_file import replacing
from .results import Results
from .summary import BASELINES, CaseSummary, Spread, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_DRAFTS = 5
"""A position with fewer drafts than that has no acceptance worth a point."""


def draw_plots(results: Results, folder: Path) -> list[str]:
    """Draw what there is into `folder`; returns the names of the files, and removes those of an earlier run."""
    cases = summarise(results)
    drawers: dict[str, Callable[[Sequence[CaseSummary]], Figure | None]] = {
        "speedup.png": _speedup,
        "acceptance.png": _acceptance,
        "context.png": _context,
    }
    drawn = []
    for name, draw in drawers.items():
        figure = draw(cases)
        if figure is None:
            (folder / name).unlink(missing_ok=True)
            continue
        with replacing(folder / name) as partial:
            figure.savefig(partial, dpi=110)
        drawn.append(name)
    return drawn


def _axes(width: float, height: float, **labels: Any) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(**labels)
    return figure, axes


def _speedup(cases: Sequence[CaseSummary]) -> Figure | None:
    workloads = [case for case in cases if case.kind == "workload"]
    baseline = next(
        (b for b in BASELINES if any(b in lane.speedup for c in workloads for lane in c.lanes.values())), ""
    )
    lanes = dict.fromkeys(name for case in workloads for name in case.lanes if name != baseline)
    bars = [
        (lane, [(i, c.lanes[lane].speedup[baseline]) for i, c in enumerate(workloads) if _has(c, lane, baseline)])
        for lane in lanes
    ]
    bars = [(lane, points) for lane, points in bars if points]
    if not bars:
        return None
    figure, axes = _axes(
        2 + 1.1 * len(workloads), 4, ylabel=f"speed-up over {baseline}", title="median and quartiles of paired answers"
    )
    width = 0.8 / len(bars)
    for index, (lane, points) in enumerate(bars):
        spreads = [spread for _, spread in points]
        at = [i + (index - (len(bars) - 1) / 2) * width for i, _ in points]
        axes.bar(at, [s.median for s in spreads], width, yerr=_bars(spreads), capsize=2, label=lane)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(workloads)), [case.name.replace(", ", "\n") for case in workloads])
    axes.legend(fontsize="small")
    return figure


def _has(case: CaseSummary, lane: str, baseline: str) -> bool:
    return lane in case.lanes and baseline in case.lanes[lane].speedup


def _bars(spreads: Sequence[Spread]) -> list[list[float]]:
    return [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]


def _acceptance(cases: Sequence[CaseSummary]) -> Figure | None:
    lines = []
    for case in cases:
        lane = next((case.lanes[name] for name in ("diffusion", "auto") if name in case.lanes), None)
        if case.kind != "workload" or lane is None or lane.counts is None:
            continue
        both = zip(lane.counts.accepted_at, lane.counts.drafted_at, strict=True)
        points = [(i, a / d) for i, (a, d) in enumerate(both, 1) if d >= LEAST_DRAFTS]
        if points:
            lines.append((f"{case.name} ({lane.lane})", points))
    if not lines:
        return None
    figure, axes = _axes(
        8,
        4,
        xlabel="position in the block",
        ylabel="accepted / drafted",
        ylim=(0, 1.02),
        title="Acceptance by position",
    )
    for label, points in lines:
        axes.plot(*zip(*points, strict=True), marker=".", linewidth=1, label=label)
    axes.legend(fontsize="small", ncols=2)
    return figure


def _context(cases: Sequence[CaseSummary]) -> Figure | None:
    swept = sorted((case for case in cases if case.kind == "context"), key=lambda case: case.context or 0)
    lanes = dict.fromkeys(name for case in swept for name in case.lanes)
    if not swept:
        return None
    figure, axes = _axes(
        7, 4, xlabel="tokens of the prompt", ylabel="tokens per second, prompt not counted", xscale="log"
    )
    for lane in lanes:
        points = [(case.context, case.lanes[lane].speed) for case in swept if lane in case.lanes]
        spreads = [spread for _, spread in points]
        axes.errorbar(
            [context for context, _ in points],
            [s.median for s in spreads],
            yerr=_bars(spreads),
            marker=".",
            capsize=2,
            linewidth=1,
            label=lane,
        )
    contexts = [case.context for case in swept]
    axes.set_xticks(contexts, [str(c) for c in contexts])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
    return figure
