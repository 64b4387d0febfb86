"""A tool call's arguments while the model still writes them, for calls in JSON: {"name": .., "arguments": {..}}."""

from __future__ import annotations

import re
from collections.abc import Collection

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"arguments"\s*:\s*(?=\{)')


class CallStream:
    """Feed the text between a call's markers.

    Args:
        names: the functions that were offered; a call of another one is never taken up.

    Attributes:
        name: the function's, once it and the beginning of the arguments have come.
        text: all that was fed.
    """

    def __init__(self, names: Collection[str]):
        self._names = names
        self.name: str | None = None
        self.text = ""
        self._read = 0
        self._depth = 0
        self._in_string = self._escaped = self._complete = False

    def feed(self, text: str) -> str:
        """The arguments' text that `text` adds; nothing before the head of the call is complete or after their end."""
        self.text += text
        if self.name is None:
            head = _HEAD.match(self.text)
            if head is None or head[1] not in self._names:
                return ""
            self.name, self._read = head[1], head.end()
        start = self._read
        while self._read < len(self.text) and not self._complete:
            self._step(self.text[self._read])
            self._read += 1
        return self.text[start : self._read]

    def _step(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif self._in_string:
            self._escaped = character == "\\"
            self._in_string = character != '"'
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self._complete = self._depth == 0
