"""What is measured: prompts as token ids, grouped into cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BenchmarkError
from ..training.corpus import training_documents
from .prompts import Prompt, workloads_of

FORMATS = ("raw", "chat", "think")
"""raw: the text alone. chat: by the chat template, thoughts switched off where it can. think: with thoughts."""

_FILLER_SEED = 20260
_FILLER_STEP = 64


@dataclass(frozen=True)
class Item:
    """A prompt of a case: its name and its ids, and the most tokens of an answer."""

    id: str
    tokens: tuple[int, ...]
    max_tokens: int


@dataclass(frozen=True)
class Case:
    """Prompts that are reported together.

    Attributes:
        kind: "workload", "context" (answers behind a prompt of `context` tokens) or "long" (long answers).
        trials: how often every prompt is measured.
        until_eos: whether an answer ends where the model ends it. In a sweep it goes on, so that all have one length.
    """

    name: str
    kind: str
    items: tuple[Item, ...]
    trials: int
    context: int | None = None
    until_eos: bool = True


def formats_of(tokenizer: Any) -> list[str]:
    """The formats that this tokenizer's chat template has."""
    if not tokenizer.has_chat_template:
        return ["raw"]
    probe = [{"role": "user", "content": "?"}]
    switched = [_render(tokenizer, probe, thinking=on) for on in (True, False)]
    return list(FORMATS) if switched[0] != switched[1] else ["raw", "chat"]


def chosen(kind: str, wanted: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    """The wanted ones of the available names; all where none is named. Raises BenchmarkError for one that is not."""
    missing = [name for name in wanted or () if name not in available]
    if missing:
        raise BenchmarkError(f"{kind} {missing[0]!r} is not available here; choose from {', '.join(available)}")
    return [name for name in available if not wanted or name in wanted]


def encode(tokenizer: Any, prompt: Prompt, format: str) -> list[int]:
    """The ids of a prompt in a format."""
    if format == "raw":
        return list(tokenizer.encode(prompt.raw))
    text = _render(tokenizer, prompt.messages, thinking=format == "think")
    return list(tokenizer.encode(text, add_special_tokens=False))


def workload_cases(
    tokenizer: Any,
    prompts: Sequence[Prompt],
    formats: Sequence[str],
    *,
    count: int,
    trials: int,
    max_tokens: int,
    context_length: int,
) -> list[Case]:
    """A case per workload and format, of its first `count` prompts that have this format and fit the context."""
    cases = []
    for workload in workloads_of(prompts):
        for format in formats:
            usable = [p for p in prompts if p.workload == workload and (format != "raw" or p.raw is not None)]
            items = _items(((p.id, encode(tokenizer, p, format)) for p in usable[:count]), max_tokens, context_length)
            if items:
                cases.append(Case(f"{workload}, {format}", "workload", items, trials))
    return cases


def context_cases(
    tokenizer: Any,
    prompts: Sequence[Prompt],
    format: str,
    lengths: Iterable[int],
    *,
    max_tokens: int,
    context_length: int,
) -> list[Case]:
    """A case per prompt length: the first prompt of every workload behind other text, `length` tokens in all.

    Lengths that leave no room for an answer are replaced by the longest that does.

    Raises:
        BenchmarkError: a length is below that of every prompt.
    """
    longest = context_length - max_tokens
    fitting = sorted({min(length, longest) for length in lengths})
    cases = []
    for length in fitting:
        tails = [(p.id, encode(tokenizer, p, format)) for p in _first_of_each(prompts, format)]
        padded = [(id, _filler(tokenizer, length - len(ids)) + ids) for id, ids in tails if len(ids) <= length]
        items = _items(padded, max_tokens, context_length)
        if not items:
            raise BenchmarkError(f"--context {length}: every prompt alone is longer than that; ask for more")
        cases.append(Case(f"context {length}", "context", items, 1, context=length, until_eos=False))
    return cases


def long_case(
    tokenizer: Any, prompts: Sequence[Prompt], format: str, *, length: int, context_length: int
) -> list[Case]:
    """Answers of `length` tokens, or as many as the context has room for, to the first prompt of every workload."""
    first = ((p.id, encode(tokenizer, p, format)) for p in _first_of_each(prompts, format))
    items = _items(first, length, context_length)
    return [Case(f"long output, {format}", "long", items, 1, until_eos=False)] if items else []


def _render(tokenizer: Any, messages: Sequence[dict[str, str]], *, thinking: bool) -> str:
    try:
        return tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=False, enable_thinking=thinking
        )
    except Exception as error:
        # A template is a program of the checkpoint: it raises whatever its author, or Jinja, liked.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BenchmarkError(f"the model's chat template fails ({reason}); use --formats raw") from error


def _first_of_each(prompts: Sequence[Prompt], format: str) -> list[Prompt]:
    usable = [p for p in prompts if format != "raw" or p.raw is not None]
    return [next(p for p in usable if p.workload == workload) for workload in workloads_of(usable)]


def _items(encoded: Iterable[tuple[str, list[int]]], max_tokens: int, context_length: int) -> tuple[Item, ...]:
    return tuple(
        Item(id, tuple(ids), min(max_tokens, context_length - len(ids)))
        for id, ids in encoded
        if 0 < len(ids) < context_length
    )


def _filler(tokenizer: Any, length: int) -> list[int]:
    """`length` ids of chats from the demo model's corpus: text that a program writes, as much as is asked for."""
    ids: list[int] = []
    start = 0
    while len(ids) < length:
        text = "".join(training_documents(_FILLER_SEED, _FILLER_STEP, start))
        ids += tokenizer.encode(text, add_special_tokens=False)
        start += _FILLER_STEP
    return ids[len(ids) - length :]
