"""Where a chat's lines come from: a line editor for a person, plain lines from a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .terminal import is_terminal, well_formed

if TYPE_CHECKING:
    from prompt_toolkit.history import History

ReadLine = Callable[[], str | None]
"""The next line, or None at the end. A line editor raises KeyboardInterrupt at Ctrl-C."""

PROMPT = "> "


def piped_lines() -> ReadLine:
    """Lines of stdin; on a terminal (with stdout elsewhere) behind a prompt on stderr."""

    def read() -> str | None:
        if is_terminal(sys.stdin):
            print(PROMPT, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        return well_formed(line.rstrip("\r\n")) if line else None

    return read


def edited_lines(commands: Sequence[str], *, keep_history: bool) -> ReadLine:
    """Lines from prompt_toolkit: Enter sends, Esc Enter breaks the line, Tab completes `commands`, Ctrl-D ends."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.key_binding.key_processor import KeyPressEvent
    from prompt_toolkit.shortcuts import CompleteStyle

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def break_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        PROMPT,
        history=_history(history_file()) if keep_history else InMemoryHistory(),
        completer=WordCompleter(list(commands), sentence=True),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
        key_bindings=keys,
    )

    def read() -> str | None:
        try:
            return well_formed(session.prompt())
        except EOFError:
            return None

    return read


def history_file() -> Path:
    """Where lines typed into the chat are kept, as the XDG base directories have it."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "orthrus-mlx" / "chat_history"


def _history(file: Path) -> History:
    """A history in `file`, readable by its owner only; in memory where the disk will not have it."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class Appended(FileHistory):
        def store_string(self, string: str) -> None:
            # A full disk must not end the chat.
            with contextlib.suppress(OSError):
                super().store_string(string)

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return Appended(str(file))
