"""Tokens as clients see them in log-probabilities: text and bytes."""

from __future__ import annotations

from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTES = {symbol: byte for byte, symbol in bytes_to_unicode().items()}


class Vocabulary:
    """The bytes of each token of a tokenizer."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._added = {int(token) for token in tokenizer.added_tokens_decoder}
        self._byte_level = "ByteLevel" in str(tokenizer.backend_tokenizer.decoder)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for; of a vocabulary that is not byte-level, of its text alone."""
        symbol = self._tokenizer.convert_ids_to_tokens(token)
        if symbol is None:
            return b""
        if self._byte_level and token not in self._added and all(c in _BYTES for c in symbol):
            return bytes(_BYTES[c] for c in symbol)
        return symbol.encode() if token in self._added else self._tokenizer.decode([token]).encode()

    def shown(self, token: int) -> dict[str, Any]:
        """{"token", "bytes"} as in OpenAI's log-probabilities."""
        raw = self.token_bytes(token)
        return {"token": raw.decode(errors="replace"), "bytes": list(raw)}
