"""Choosing a draft vocabulary: the ids that texts like the given ones use most, and what they cover of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from orthrus_mlx.config import ModelArgs
from orthrus_mlx.draft_vocabulary import DRAFT_VOCABULARY, LEAST_IDS, DraftVocabulary
from orthrus_mlx.errors import ConfigError

from .plan import Constant, OutputTensor
from .tokenizer import added_and_end_ids, fast_tokenizer

_CHUNK = 4096
"""Characters of a text file, or more to the line's end, that are counted as one document."""

_Encode = Callable[[str], Sequence[int]]


def choose_vocabulary(
    folder: Path, config: dict[str, Any], args: ModelArgs, size: int | None, files: Sequence[str | Path]
) -> DraftVocabulary | None:
    """The `size` ids that `files` use most, by the tokenizer of `folder`; None where no size is asked for.

    Added tokens and those that end a text are always among them; where the files use fewer ids, the lowest others
    fill up, which are the oldest merges of a BPE. Coverage is cross-validated: the share of every second document's
    tokens that the others' most frequent ids cover.

    Args:
        files: UTF-8 text, or `.jsonl` with an object a line, `{"text": ".."}` or `{"messages": [{"content"}, ..]}`.

    Raises:
        ConfigError: the size is out of range, or there is no text, too little, or none that can be read.
    """
    if size is None:
        if files:
            raise ConfigError("--draft-text needs --draft-vocabulary, the number of ids to choose from it")
        return None
    if not args.has_diffusion_view:
        raise ConfigError(f"{folder}: has no diffusion weights; leave out --draft-vocabulary")
    if not LEAST_IDS <= size < args.vocab_size:
        raise ConfigError(f"--draft-vocabulary must be in {LEAST_IDS}..{args.vocab_size - 1}, not {size}")
    if not files:
        raise ConfigError(
            "--draft-vocabulary counts ids in a text like those to write; name one with --draft-text FILE"
        )
    always = added_and_end_ids(folder, config)
    if len(always) > size:
        raise ConfigError(f"--draft-vocabulary {size} is less than the tokenizer's {len(always)} added tokens")
    halves = _count(folder, args.vocab_size, files)
    if not all(half.any() for half in halves):
        raise ConfigError("--draft-text has less than two documents of text; name a larger file")
    known, unknown = halves
    covered = int(unknown[_most_frequent(known, always, size)].sum())
    return DraftVocabulary(_most_frequent(known + unknown, always, size), round(covered / int(unknown.sum()), 6))


def as_tensor(vocabulary: DraftVocabulary) -> Constant:
    """What is written of it."""
    return Constant(OutputTensor(DRAFT_VOCABULARY, "I32", vocabulary.ids.shape), vocabulary.ids.astype("<i4").tobytes())


def _most_frequent(counts: np.ndarray, always: set[int], size: int) -> np.ndarray:
    """Ids int32 [size], ascending: those of `always`, then the most frequent; of equals the lowest."""
    ranked = counts.copy()
    ranked[list(always)] = np.iinfo(ranked.dtype).max
    return np.sort(np.argsort(-ranked, kind="stable")[:size]).astype(np.int32)


def _count(folder: Path, vocab_size: int, files: Sequence[str | Path]) -> np.ndarray:
    """How often each id occurs in the odd and in the even documents, int64 [2, vocab_size]."""
    encode = _encoder(folder)
    counts = np.zeros((2, vocab_size), np.int64)
    number = 0
    for file in files:
        for document in _documents(Path(file).expanduser()):
            counts[number % 2] += np.bincount(np.asarray(encode(document), np.int64), minlength=vocab_size)
            number += 1
    return counts


def _encoder(folder: Path) -> _Encode:
    file = fast_tokenizer(folder)
    if file is None:
        return SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing more special
        raise ConfigError(f"{file}: cannot count with this tokenizer ({str(error).splitlines()[0]})") from error
    tokenizer.no_truncation()
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def _documents(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8") as stream:
            if file.suffix == ".jsonl":
                for number, line in enumerate(stream, 1):
                    if line.strip():
                        yield _text_of(line, f"{file}:{number}")
            else:
                while lines := stream.readlines(_CHUNK):
                    yield "".join(lines)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error


def _text_of(line: str, where: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: not JSON ({error})") from None
    if isinstance(entry, dict):
        if isinstance(entry.get("text"), str):
            return entry["text"]
        messages = entry.get("messages")
        if isinstance(messages, list) and all(
            isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages
        ):
            return "\n".join(message["content"] for message in messages)
    raise ConfigError(f'{where}: expected {{"text": ".."}} or {{"messages": [{{"content": ".."}}, ..]}}')
