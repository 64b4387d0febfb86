"""Signs of life on stderr while a person waits; nothing where stderr is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .terminal import is_terminal, one_line

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def spinner(message: str) -> Iterator[None]:
    """Show `message` with a spinner while the block runs."""
    if not is_terminal(sys.stderr):
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(one_line(message))):
        yield


class PrefillBar:
    """A bar for prompts long enough to wait for; gone once the prompt is read.

    `update` is a `prompt_progress_callback`; `stop` may be called at any time.
    """

    MIN_TOKENS = 512

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def update(self, processed: int, total: int) -> None:
        # The last prompt token is read by the first cycle, whose tokens must find the line empty.
        if processed >= total - 1:
            self.stop()
        elif total >= self.MIN_TOKENS and is_terminal(sys.stderr):
            if self._progress is None:
                self._progress = self._start(total)
            self._progress.update(self._progress.task_ids[0], completed=processed)

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    @staticmethod
    def _start(total: int) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        progress = Progress(
            TextColumn("reading the prompt"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        progress.add_task("prompt", total=total)
        progress.start()
        return progress


class AnswerBar:
    """A bar over the answers of a benchmark; where stderr is no terminal, a line whenever another case begins."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._begun = 0
        self._case = ""
        self._progress: Progress | None = None

    def __enter__(self) -> AnswerBar:
        if self._total and is_terminal(sys.stderr):
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.add_task("warming up", total=self._total)
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, case: str, lane: str) -> None:
        """The next answer begins."""
        if self._progress is not None:
            text = one_line(f"{case}: {lane}")
            self._progress.update(self._progress.task_ids[0], completed=self._begun, description=text)
        elif case != self._case:
            print(f"{self._begun}/{self._total} answers; now {one_line(case)}", file=sys.stderr, flush=True)
        self._case = case
        self._begun += 1
