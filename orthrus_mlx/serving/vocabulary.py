"""Tokens as clients see them in log-probabilities: text and bytes."""

from __future__ import annotations

import math
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from .engine import Event

_BYTES = {symbol: byte for byte, symbol in bytes_to_unicode().items()}


class Vocabulary:
    """The bytes of each token of a tokenizer."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._added = {int(token) for token in tokenizer.added_tokens_decoder}
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._byte_level = backend is not None and "ByteLevel" in str(backend.decoder)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for; of a vocabulary that is not byte-level, of its text alone."""
        symbol = self._tokenizer.convert_ids_to_tokens(token)
        if symbol is None:
            return b""
        if self._byte_level and token not in self._added and all(c in _BYTES for c in symbol):
            return bytes(_BYTES[c] for c in symbol)
        return symbol.encode() if token in self._added else self._tokenizer.decode([token]).encode()

    def text(self, token: int) -> str:
        """A token as text; bytes that are no characters by themselves are replaced."""
        return self.token_bytes(token).decode(errors="replace")

    def entry(self, event: Event, top: int) -> dict[str, Any]:
        """An event's log-probability in OpenAI's form, with the `top` likeliest tokens of its position."""
        likeliest = [{**self._shown(token), "logprob": value} for token, value in possible(event)[:top]]
        return {**self._shown(event.token), "logprob": event.logprob, "top_logprobs": likeliest}

    def _shown(self, token: int) -> dict[str, Any]:
        return {"token": self.text(token), "bytes": list(self.token_bytes(token))}


def possible(event: Event) -> list[tuple[int, float]]:
    """The likeliest tokens, without those that a grammar or a bias forbids: JSON has no infinity."""
    return [(token, value) for token, value in event.top_logprobs if math.isfinite(value)]
