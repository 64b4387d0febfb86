"""Streamed text taken apart into content, thoughts and tool calls, wherever tokens cut the markers."""

from __future__ import annotations

from collections.abc import Mapping

CONTENT, REASONING, TOOL = "content", "reasoning", "tool"
Exits = Mapping[str, Mapping[str, str]]
"""kind of text -> {marker that ends it: the kind that begins there}"""


def exits(think: tuple[str, str] | None, tool: tuple[str, str] | None) -> Exits:
    """The markers of a model: (opening, closing) of its thoughts and of its tool calls."""
    found: dict[str, dict[str, str]] = {CONTENT: {}, REASONING: {}, TOOL: {}}
    if think:
        found[CONTENT][think[0]] = REASONING
        found[REASONING][think[1]] = CONTENT
    if tool:
        found[CONTENT][tool[0]] = TOOL
        found[TOOL][tool[1]] = CONTENT
    return found


class Splitter:
    """Feed text; what comes back is (kind, text), without the markers. A beginning of a marker is held back."""

    def __init__(self, exits: Exits, kind: str = CONTENT):
        self._exits, self.kind, self._held = exits, kind, ""

    def feed(self, text: str) -> list[tuple[str, str]]:
        """The pieces that `text` completes, in order; where a kind ends, its last piece comes even if empty."""
        self._held += text
        pieces = []
        while True:
            markers = self._exits[self.kind]
            hits = [(self._held.find(marker), marker) for marker in markers if marker in self._held]
            if not hits:
                break
            start, marker = min(hits)
            pieces.append((self.kind, self._held[:start]))
            self._held = self._held[start + len(marker) :]
            self.kind = markers[marker]
            # So that whoever reads the pieces sees each change of kind.
            pieces.append((self.kind, ""))
        safe = len(self._held) - self._beginning(self._exits[self.kind])
        if safe:
            pieces.append((self.kind, self._held[:safe]))
            self._held = self._held[safe:]
        return pieces

    def flush(self) -> list[tuple[str, str]]:
        """The text still held back, once no more can come."""
        held, self._held = self._held, ""
        return [(self.kind, held)] if held else []

    def _beginning(self, markers: Mapping[str, str]) -> int:
        """Length of the longest end of the held text that begins a marker."""
        longest = max(map(len, markers), default=0)
        if not any(marker[0] in self._held[-longest:] for marker in markers):
            return 0
        for length in range(min(longest - 1, len(self._held)), 0, -1):
            if any(marker.startswith(self._held[-length:]) for marker in markers):
                return length
        return 0
