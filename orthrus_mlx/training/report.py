"""What a run shows and leaves behind: a progress bar (plain lines in a pipe), `metrics.jsonl`, `curves.png`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0
"""Seconds between two lines where there is no terminal."""


class Report:
    """Progress of one run of `steps` steps; use as a context manager."""

    def __init__(self, folder: Path, name: str, steps: int, first_step: int):
        self.name, self.steps = name, steps
        self.folder = folder
        self._metrics = folder / "metrics.jsonl"
        self._first_step = first_step
        self._started = self._printed = time.monotonic()
        self._progress: Progress | None = None
        if sys.stderr.isatty():
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._progress.add_task(name, total=steps, completed=first_step, state="")
        self._forget_after(first_step)

    def __enter__(self) -> Report:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def _forget_after(self, step: int) -> None:
        """Drop lines that a killed run wrote after the checkpoint it continues from."""
        if self._metrics.exists():
            lines = self._metrics.read_text().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            self._metrics.write_text("".join(kept))

    def log(self, record: dict[str, Any]) -> None:
        """Show `record` (it has `step` and `loss`) and append it to `metrics.jsonl` with the elapsed seconds."""
        now = time.monotonic()
        seconds = now - self._started
        speed = (record["step"] - self._first_step) / max(seconds, 1e-9)
        with self._metrics.open("a") as file:
            file.write(json.dumps({**record, "seconds": round(seconds, 2)}) + "\n")
        state = f"{_summary(record)}  {speed:.1f} steps/s"
        if self._progress:
            self._progress.update(self._task, completed=record["step"], state=state)
        elif now - self._printed >= PLAIN_SECONDS or record["step"] == self.steps:
            self._printed = now
            left = (self.steps - record["step"]) / max(speed, 1e-9)
            print(
                f"{self.name} {record['step']}/{self.steps}  {state}  {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )


def _summary(record: dict[str, Any]) -> str:
    text = f"loss {record['loss']:.4f}"
    for key, value in record.items():
        if key.startswith("agreement") and isinstance(value, list):
            text += f"  agreement first/middle/last {value[0]:.2f}/{value[len(value) // 2]:.2f}/{value[-1]:.2f}"
        elif key == "answer_accuracy":
            text += f"  answer accuracy {value:.3f}"
    return text


def draw_curves(folder: Path, title: str) -> None:
    """Draw `metrics.jsonl` as `curves.png`: every scalar over the steps, agreement by block position at the end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    if not records:
        return
    steps = [r["step"] for r in records]
    scalars = [k for k, v in records[0].items() if not isinstance(v, list) and k not in ("step", "seconds")]
    lists = [k for k, v in records[0].items() if isinstance(v, list)]
    figure = Figure(figsize=(4 * (len(scalars) + len(lists)), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = figure.subplots(1, len(scalars) + len(lists), squeeze=False)[0]
    for axis, key in zip(axes, scalars, strict=False):
        axis.plot(steps, [r[key] for r in records], linewidth=1)
        axis.set(title=key.replace("_", " "), xlabel="step")
        if "loss" in key:
            axis.set_yscale("log")
    for axis, key in zip(axes[len(scalars) :], lists, strict=True):
        values = records[-1][key]
        axis.plot(range(1, len(values) + 1), values, marker=".")
        axis.set(title=key.replace("_", " "), xlabel="block position", ylim=(0, 1))
    figure.savefig(folder / "curves.png", dpi=110)
