"""Training rows: documents as token ids, packed into rows of one length, with the answers marked.

NumPy only: worker processes that tokenise import this module and must not touch a GPU.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic_file import replacing
from ..errors import TrainingError

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class ChatFormat:
    """The ids that delimit an answer in Qwen's chat format: `<|im_start|>assistant\\n ... <|im_end|>`."""

    start: int
    assistant: tuple[int, ...]
    end: int

    @classmethod
    def of(cls, encode: Encode) -> ChatFormat:
        """Read the ids off a tokenizer.

        Raises:
            TrainingError: a delimiter is not one token.
        """
        start, end = encode("<|im_start|>"), encode("<|im_end|>")
        if len(start) != 1 or len(end) != 1:
            raise TrainingError("the tokenizer has no <|im_start|> and <|im_end|>; a Qwen3 tokenizer is needed")
        return cls(start[0], tuple(encode("assistant\n")), end[0])


@dataclass(frozen=True)
class Document:
    """Token ids [n] of one document and, per token, the number of the answer it belongs to (0 = none, 1, 2, ..)."""

    tokens: np.ndarray
    answers: np.ndarray

    @property
    def last_answer(self) -> tuple[int, int]:
        """The half-open token range of the last answer; (n, n) when there is none."""
        last = int(self.answers.max(initial=0))
        where = np.flatnonzero(self.answers == last)
        return (int(where[0]), int(where[-1]) + 1) if last else (len(self.tokens), len(self.tokens))


def chat_document(ids: Sequence[int], chat: ChatFormat) -> Document:
    """Mark the assistant turns of a chat, each with the `<|im_end|>` that closes it.

    Text without a chat turn is an answer as a whole, but for its first token, which nothing precedes.
    """
    tokens = np.asarray(ids, np.int64)
    answers = np.zeros(len(tokens), np.int64)
    starts = np.flatnonzero(tokens == chat.start)
    if not len(starts):
        answers[1:] = 1
        return Document(tokens, answers)
    ends = np.flatnonzero(tokens == chat.end)
    turn = 0
    for start in starts:
        body = start + 1 + len(chat.assistant)
        if tuple(tokens[start + 1 : body]) != chat.assistant:
            continue
        stop = bisect.bisect_left(ends, body)
        turn += 1
        answers[body : ends[stop] + 1 if stop < len(ends) else len(tokens)] = turn
    return Document(tokens, answers)


def read_jsonl(path: str | Path, tokenizer: Any) -> Iterator[str]:
    """The documents of a JSONL file as text; one object a line, `{"messages": [..]}` or `{"text": ".."}`.

    Chats go through the tokenizer's own template (`apply_chat_template`).

    Raises:
        TrainingError: the file cannot be read, or a line is not such an object.
    """
    try:
        with Path(path).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _document_text(line, f"{path}:{number}", tokenizer)
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: cannot be read ({error})") from error


def _document_text(line: str, where: str, tokenizer: Any) -> str:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise TrainingError(f"{where}: not JSON ({error})") from error
    if isinstance(entry, dict) and isinstance(entry.get("text"), str):
        return entry["text"]
    messages = entry.get("messages") if isinstance(entry, dict) else None
    if not isinstance(messages, list) or not messages or not all(_is_message(m) for m in messages):
        raise TrainingError(f'{where}: expected {{"messages": [{{"role", "content"}}, ..]}} or {{"text": ".."}}')
    # A chat that ends with a question is a prompt, to be answered by the model itself.
    prompt = messages[-1]["role"] != "assistant"
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


@dataclass(frozen=True)
class Rows:
    """Packed rows, each array [N, L].

    `tokens`: ids. `segments`: the number of the document in its row, from 1; 0 is padding.
    `answers`: the number of the answer in its row, from 1; 0 is everything that is not an answer.
    """

    tokens: np.ndarray
    segments: np.ndarray
    answers: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def length(self) -> int:
        """Tokens per row."""
        return self.tokens.shape[1]

    def save(self, path: str | Path) -> None:
        """Write an `.npz`, atomically."""
        with replacing(Path(path)) as partial, partial.open("wb") as file:
            np.savez(file, tokens=self.tokens, segments=self.segments, answers=self.answers)

    @classmethod
    def load(cls, path: str | Path) -> Rows:
        """Read what `save` wrote.

        Raises:
            TrainingError: the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(arrays["tokens"], arrays["segments"], arrays["answers"])
        except Exception as error:
            # zipfile, zlib and NumPy each have their own errors for a damaged archive.
            raise TrainingError(f"{path}: not a readable row file ({error}); delete it to rebuild it") from error

    @classmethod
    def concatenate(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of all `parts`, in order."""
        return cls(
            np.concatenate([p.tokens for p in parts]),
            np.concatenate([p.segments for p in parts]),
            np.concatenate([p.answers for p in parts]),
        )


def pack(documents: Iterable[Document], length: int, vocab_size: int) -> Rows:
    """Pack documents into rows of `length` tokens, best fit first; longer ones are cut at the row's end.

    Deterministic: depends on the documents and their order alone.

    Raises:
        TrainingError: there is no document.
    """
    ordered = sorted((d for d in documents if len(d.tokens) > 1), key=lambda d: -len(d.tokens))
    if not ordered:
        raise TrainingError("the data holds no document; nothing to train on")
    rows: list[list[Document]] = []
    space: list[tuple[int, int]] = []  # (free tokens, row), ascending
    for document in ordered:
        need = min(len(document.tokens), length)
        fit = bisect.bisect_left(space, (need, -1))
        if fit == len(space):
            rows.append([document])
            bisect.insort(space, (length - need, len(rows) - 1))
        else:
            free, row = space.pop(fit)
            rows[row].append(document)
            bisect.insort(space, (free - need, row))
    shape = (len(rows), length)
    packed = Rows(
        np.zeros(shape, np.uint16 if vocab_size <= 1 << 16 else np.uint32),
        np.zeros(shape, np.uint16),
        np.zeros(shape, np.uint16),
    )
    for i, row_documents in enumerate(rows):
        _fill(packed, i, row_documents)
    return packed


def _fill(rows: Rows, i: int, documents: list[Document]) -> None:
    at = turns = 0
    for segment, document in enumerate(documents, 1):
        end = min(at + len(document.tokens), rows.length)
        answers = document.answers[: end - at]
        rows.tokens[i, at:end] = document.tokens[: end - at]
        rows.segments[i, at:end] = segment
        rows.answers[i, at:end] = np.where(answers > 0, answers + turns, 0)
        turns += int(document.answers.max(initial=0))
        at = end


def join_chats(documents: Sequence[Document], chat: ChatFormat, length: int) -> list[Document]:
    """Join neighbouring chats into conversations of up to `length` tokens, so that long ones are trained too.

    What follows the last turn of a chat but the newline (an end-of-text token) is dropped at the seams.
    """
    joined: list[Document] = []
    for document in documents:
        previous = joined[-1] if joined else None
        if previous is None or len(previous.tokens) + len(document.tokens) > length:
            joined.append(document)
            continue
        ends = np.flatnonzero(previous.tokens == chat.end)
        if document.tokens[0] != chat.start or not len(ends):
            joined.append(document)
            continue
        keep = int(ends[-1]) + 2  # the turn's end and its newline
        turns = int(previous.answers.max(initial=0))
        joined[-1] = Document(
            np.concatenate([previous.tokens[:keep], document.tokens]),
            np.concatenate([previous.answers[:keep], np.where(document.answers > 0, document.answers + turns, 0)]),
        )
    return joined


class BatchOrder:
    """Which rows step `step` takes: a shuffle per epoch, a function of (seed, step) alone."""

    def __init__(self, rows: int, batch_size: int, seed: int):
        if rows < 1:
            raise TrainingError("the data holds no row to train on; check that it has answers")
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def __call__(self, step: int) -> np.ndarray:
        """Row indices [batch_size] of a step; a batch may straddle two epochs."""
        first = step * self.batch_size
        return np.array([self._row(first + i) for i in range(self.batch_size)])

    def _row(self, position: int) -> int:
        epoch, at = divmod(position, self.rows)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        return int(self._order[at])
