"""The corpus as documents and rows, chunk by chunk, so that worker processes can share the work.

Imports nothing of MLX: see `data`.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from . import corpus
from .data import ChatFormat, Document, Rows, chat_document, join_chats, pack

CHUNK = 2000
"""Documents per chunk: packed together, so large enough to fill rows well."""

_JOINED = 5
"""One document in so many becomes part of a long conversation (`join_chats`)."""


def documents_of_chunk(tokenizer_file: Path, seed: int, chunk: int, count: int, length: int) -> list[Document]:
    """A chunk's documents as ids, some joined to conversations of up to `length` tokens."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    chat = ChatFormat.of(lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
    encoded = tokenizer.encode_batch(
        list(corpus.training_documents(seed, count, start=chunk * CHUNK)), add_special_tokens=False
    )
    documents = [chat_document(e.ids, chat) for e in encoded]
    cut = count // _JOINED
    return join_chats(documents[:cut], chat, length) + documents[cut:]


def rows_of_chunk(tokenizer_file: Path, seed: int, chunk: int, count: int, length: int) -> Rows:
    """A chunk packed into rows of `length` tokens."""
    size = Tokenizer.from_file(str(tokenizer_file)).get_vocab_size()
    return pack(documents_of_chunk(tokenizer_file, seed, chunk, count, length), length, size)
