"""Stop strings in streamed text: found wherever tokens or blocks cut them, and never half printed."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import RequestError


class StopStrings:
    """Feed text segments; what comes back can be shown, and ends before the first stop string."""

    def __init__(self, stops: Sequence[str]):
        for stop in stops:
            if not isinstance(stop, str) or not stop:
                raise RequestError(f"stop must hold non-empty strings, not {stop!r}")
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def feed(self, segment: str) -> str:
        """Text that is safe to show after `segment`; the rest waits, as it may begin a stop string."""
        self._held += segment
        hits = [(self._held.find(stop), stop) for stop in self._stops if stop in self._held]
        if hits:
            # The earliest one; of two at the same place, the longer.
            start, self.found = min(hits, key=lambda hit: (hit[0], -len(hit[1])))
            return self._take(start, drop_rest=True)
        return self._take(len(self._held) - self._longest_beginning())

    def flush(self) -> str:
        """The text still held back, once no more can come."""
        return self._take(len(self._held))

    def _longest_beginning(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max(map(len, self._stops), default=0)
        for length in range(min(longest - 1, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0

    def _take(self, end: int, drop_rest: bool = False) -> str:
        text, self._held = self._held[:end], "" if drop_rest else self._held[end:]
        return text
