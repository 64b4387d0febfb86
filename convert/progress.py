"""A conversion's progress on stderr: a bar with bytes and time left, or a line per file when piped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from .converter import OnProgress, Progress


@contextmanager
def show_progress() -> Iterator[OnProgress]:
    """Gives the `on_progress` to hand to `convert`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_per_file(console)
        return
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    tasks = {}

    def on_progress(progress: Progress) -> None:
        if progress.stage not in tasks:
            tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total)
            bars.start()
        description = f"{progress.stage} {progress.file}"
        bars.update(tasks[progress.stage], completed=progress.done, description=description)

    # Started by the first event: until then the hub's own download bars have the terminal.
    try:
        yield on_progress
    finally:
        bars.stop()


def _line_per_file(console: Console) -> OnProgress:
    last = None

    def on_progress(progress: Progress) -> None:
        nonlocal last
        if (progress.stage, progress.file) != last:
            last = (progress.stage, progress.file)
            console.out(f"{progress.stage} {progress.file}", highlight=False)

    return on_progress
