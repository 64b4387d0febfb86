"""Greedy answers of the AR view for many prompts at once: distillation data and accuracy checks.

Prompts are padded on the left and the padding is masked; as rotary embeddings are relative, a row computes
what it would compute alone (up to rounding: a near-tie may fall the other way).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from ..cache import KVCache
from ..model import Model
from .data import Document

_CHECK_EVERY = 32
"""Steps between two looks at which rows have ended: a look waits for the device."""
_WIDTH_STEP = 32
"""Prompts are padded to a multiple of this many tokens."""

Progress = Callable[[int, int], None]
"""Called with (answers done, answers in all)."""


def greedy_answers(
    model: Model,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stop_tokens: frozenset[int],
    batch_size: int = 512,
    expected_lengths: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[list[int]]:
    """The AR view's greedy continuation of every prompt, at most `limits[i]` tokens, the stop token included.

    Prompts of similar length, with answers of similar `expected_lengths`, share a batch, so that little is
    padded and few rows wait for the longest. The result is in the order of `prompts`.
    """
    lengths = expected_lengths or limits
    order = sorted(range(len(prompts)), key=lambda i: (lengths[i] // _CHECK_EVERY, len(prompts[i]), i))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = _answer_batch(model, [prompts[i] for i in chosen], max(limits[i] for i in chosen), stop_tokens)
        for i, answer in zip(chosen, batch, strict=True):
            answers[i] = answer[: limits[i]]
        if progress:
            progress(start + len(chosen), len(order))
    return answers


def _answer_batch(
    model: Model, prompts: list[Sequence[int]], max_tokens: int, stop_tokens: frozenset[int]
) -> list[list[int]]:
    # Few different widths: a GPU plans its attention anew for each.
    B, width = len(prompts), -(-max(map(len, prompts)) // _WIDTH_STEP) * _WIDTH_STEP
    padded = np.zeros((B, width), np.int32)
    for row, prompt in enumerate(prompts):
        padded[row, width - len(prompt) :] = prompt
    padding = mx.array([width - len(p) for p in prompts])
    stops = mx.array(sorted(stop_tokens))
    cache = KVCache(len(model.layers))
    rows = np.arange(B)  # which prompt each row of the shrinking batch belongs to
    ended = mx.zeros((B,), mx.bool_)
    token = _next_tokens(model, mx.array(padded), padding, cache)
    answers: list[list[int]] = [[] for _ in prompts]
    recent: list[mx.array] = []
    for count in range(1, max_tokens + 1):
        recent.append(token)
        ended = ended | (token[:, None] == stops).any(axis=1)
        if count % _CHECK_EVERY and count < max_tokens:
            token = _next_tokens(model, token[:, None], padding, cache)
            mx.async_eval(token, ended, cache.arrays)
            continue
        for i, new in zip(rows.tolist(), np.array(mx.stack(recent, axis=1)), strict=True):
            answers[i] += new.tolist()
        recent = []
        alive = np.flatnonzero(~np.array(ended))
        if not len(alive) or count == max_tokens:
            break
        if len(alive) <= 0.7 * len(rows):
            keep = mx.array(alive)
            rows, padding, token, ended = rows[alive], padding[keep], token[keep], ended[keep]
            _keep_rows(cache, keep)
        token = _next_tokens(model, token[:, None], padding, cache)
    return [_until_stop(answer, stop_tokens) for answer in answers]


def _keep_rows(cache: KVCache, rows: mx.array) -> None:
    for layer in cache.layers:
        if layer.keys is not None and layer.values is not None:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]


def _next_tokens(model: Model, tokens: mx.array, padding: mx.array, cache: KVCache) -> mx.array:
    """Feed token ids [B, L] and choose the next token of each row [B]; `padding` [B] columns are not attended to."""
    L = tokens.shape[1]
    columns = mx.arange(cache.offset + L)
    seen = (columns <= mx.arange(cache.offset, cache.offset + L)[:, None]) & (columns >= padding[:, None, None])
    # A padded row still needs one key to look at; what it computes is never read.
    seen = seen | (columns == mx.arange(cache.offset, cache.offset + L)[:, None])
    h = model.model.embed_tokens(tokens)
    mask = mx.where(seen, 0.0, -mx.inf).astype(h.dtype)[:, None]
    for layer, layer_cache in zip(model.layers, cache, strict=True):
        h = layer(h, mask, layer_cache)
    cache.commit(L)
    return mx.argmax(model.head(model.model.norm(h[:, -1])), axis=-1)


def _until_stop(answer: list[int], stop_tokens: frozenset[int]) -> list[int]:
    for i, token in enumerate(answer):
        if token in stop_tokens:
            return answer[: i + 1]
    return answer


def answer_documents(
    model: Model,
    documents: Sequence[Document],
    stop_tokens: frozenset[int],
    length: int,
    batch_size: int = 512,
    progress: Progress | None = None,
) -> list[Document]:
    """Replace the last answer of every chat by the model's own, cut so that the document fits in `length` tokens.

    A document that ends with a question is answered. Text that is an answer as a whole, and documents whose
    question leaves no room, stay as they are. What follows an answer is kept if the answer was not cut.
    """
    spans = [d.last_answer for d in documents]
    chosen = [i for i, (start, _) in enumerate(spans) if 1 < start < length]
    answers = greedy_answers(
        model,
        [documents[i].tokens[: spans[i][0]].tolist() for i in chosen],
        [length - spans[i][0] for i in chosen],
        stop_tokens,
        batch_size,
        [spans[i][1] - spans[i][0] for i in chosen],
        progress,
    )
    result = list(documents)
    for i, answer in zip(chosen, answers, strict=True):
        start, end = spans[i]
        document = documents[i]
        turn = int(document.answers.max(initial=0)) + (start == len(document.tokens))
        tail = document.tokens[end:] if answer[-1] in stop_tokens else document.tokens[:0]
        result[i] = Document(
            np.concatenate([document.tokens[:start], np.array(answer, np.int64), tail]),
            np.concatenate([document.answers[:start], np.full(len(answer), turn), np.zeros_like(tail)]),
        )
    return result
