"""Ctrl-C while an answer comes."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class StopKey:
    """A context in which the first Ctrl-C is a wish that is read from `pressed`, and a second one interrupts at once.

    An interrupt that may strike anywhere would strike inside MLX or the tokenizer; a wish is granted between tokens.
    """

    def __init__(self) -> None:
        self.pressed = False

    def __enter__(self) -> StopKey:
        self._previous: Any = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
