"""Drafts from the text itself: where its last tokens occurred before, what followed then may follow now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LEAST_ORDER = 3
MOST_ORDER = 16
"""Tokens of text that a match rests on; `MOST_ORDER` stands for it and more."""

OCCURRENCES = 8
"""Earlier places looked at, the most recent ones: a common trigram in a long text has too many."""


class NGramIndex:
    """The tokens of a text by the trigrams they end. Adding a token and asking for a match take constant time."""

    def __init__(self, tokens: Iterable[int] = ()):
        self._tokens: list[int] = []
        self._last: dict[tuple[int, ...], int] = {}
        self._earlier: list[int] = []
        self.extend(tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """Add tokens to the end of the text."""
        text, last, earlier = self._tokens, self._last, self._earlier
        for token in tokens:
            text.append(token)
            gram = tuple(text[-LEAST_ORDER:])
            earlier.append(last.get(gram, -1))
            last[gram] = len(text) - 1

    def find(self, most: int) -> tuple[Sequence[int], int]:
        """The `most` tokens that followed the longest match of the text's end, and the match's order.

        Of equally long matches the most recent one counts; what follows a match that reaches the end of the text
        repeats. Empty and 0 where the last `LEAST_ORDER` tokens are new.
        """
        text = self._tokens
        if len(text) < LEAST_ORDER or most < 1:
            return (), 0
        best_end, best_order = -1, 0
        end = self._earlier[-1]
        for _ in range(OCCURRENCES):
            if end < LEAST_ORDER - 1 or best_order == MOST_ORDER:
                break
            order = self._order(end)
            if order > best_order:
                best_end, best_order = end, order
            end = self._earlier[end]
        if best_end < 0:
            return (), 0
        following = text[best_end + 1 : best_end + 1 + most]
        period = len(following)
        while len(following) < most:
            following.append(following[len(following) - period])
        return following, best_order

    def _order(self, end: int) -> int:
        """How many tokens up to `end` equal the last ones of the text."""
        text, order = self._tokens, LEAST_ORDER
        final = len(text) - 1
        while order < MOST_ORDER and order <= end and text[end - order] == text[final - order]:
            order += 1
        return order
