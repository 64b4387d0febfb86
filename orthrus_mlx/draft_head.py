"""A head over the draft vocabulary for passes that only draft, used where it is worth it on this machine.

It is lossless: a draft is a proposal, and what the target pass does not choose is not emitted (rule A). It costs
drafts, since a token outside the vocabulary is never proposed, and saves the time in which the rest of the head is
read. Both are known: how much of a text the vocabulary covers, from the converter, and the pass, from timing it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from .cache import KVCache
from .cpu_pass import CpuPass
from .draft_vocabulary import DraftVocabulary
from .kernels import requested_mode
from .kernels.tuning import Timing, recall, remember
from .model import Model
from .passes import Block, run_pass
from .weights import DIFFUSION

_ROWS = 16
"""Rows of the timed draft pass."""

_ROUNDS = 9

_ACCEPTANCE = 0.85
"""Chance of a draft in the decision: 6.2 tokens a cycle. Published for 16 rows: prose 2.9, reasoning 5.6, JSON 8.4."""

_MARGIN = 0.97
"""A head that saves less than 3 % of a cycle is not worth its memory, nor told from none by timing."""


class DraftHead:
    """Logits [..., V] of hidden states [..., hidden], -inf for every token outside `vocabulary`.

    Copies the vocabulary's rows of the head, in the head's own format and computing as it does. Not a module: it is
    not among the model's parameters.
    """

    def __init__(self, model: Model, vocabulary: DraftVocabulary):
        tied = model.args.tie_word_embeddings
        self.size = len(vocabulary.ids)
        self._vocab_size = model.args.vocab_size
        self._ids = mx.array(vocabulary.ids)
        layer = _with_rows(model.model.embed_tokens if tied else model.lm_head, self._ids)
        stock: Callable[[mx.array], mx.array] = layer.as_linear if tied else layer
        whole = model.model.fused
        self._product = (whole.draft_head(layer) if isinstance(whole, CpuPass) else None) or stock
        self.nbytes = sum(array.nbytes for array in layer.values()) + self._ids.nbytes
        mx.eval(self._ids, list(layer.values()))

    def __call__(self, hidden: mx.array) -> mx.array:
        logits = self._product(hidden)
        # All of V, so that rule A's noise is the target's, and choosing needs no second form.
        whole = mx.full((*logits.shape[:-1], self._vocab_size), -mx.inf, logits.dtype)
        # Not `whole[..., ids] = logits`, which took 17 to 50 times as long on a Linux CPU.
        return mx.put_along_axis(whole, mx.broadcast_to(self._ids, logits.shape), logits, axis=-1)


def install_draft_head(model: Model, mode: str | None = None) -> str | None:
    """Give `model`, its kernels in place, the head of its draft vocabulary where that is worth it.

    Args:
        mode: "auto" times it, "force" uses it, "off" does not; None reads `$ORTHRUS_KERNELS`.

    Returns:
        What was decided and why, as a line; None for a model without a draft vocabulary.
    """
    model.draft_head = None
    vocabulary, mode = model.draft_vocabulary, requested_mode(mode)
    if vocabulary is None:
        return None
    name = f"draft head of {len(vocabulary.ids)} tokens, {vocabulary.coverage:.2%} of a text"
    if mode == "off":
        return f"{name}: off by request"
    head = DraftHead(model, vocabulary)
    memory = f"{head.nbytes / 1e6:.3g} MB"
    if mode == "force":
        model.draft_head = head
        return f"{name}: used by request ({memory})"
    times = _pass_times(model, head)
    full, reduced = times["full"], times["reduced"]
    model.draft_head = head if worthwhile(full, reduced, vocabulary.coverage) else None
    verdict = f"used, {memory}" if model.draft_head else "not worth it"
    return f"{name}: {verdict} (draft pass {reduced:.3g} ms, with the full head {full:.3g} ms)"


def worthwhile(full: float, reduced: float, coverage: float) -> bool:
    """Whether a draft pass of `reduced` ms gives more tokens a second than one of `full` ms, at a typical acceptance.

    A cycle is a draft pass and a target pass, which reads the same weights and is taken to cost what the full draft
    pass does. A draft is right only if the vocabulary has it: with chance `coverage`.
    """
    kept = _tokens(_ACCEPTANCE * coverage) / _tokens(_ACCEPTANCE)
    return reduced + full < _MARGIN * kept * 2 * full


def _tokens(acceptance: float) -> float:
    """Tokens expected of a cycle of `_ROWS` rows."""
    return sum(acceptance**accepted for accepted in range(_ROWS))


def _pass_times(model: Model, head: DraftHead) -> Timing:
    """Milliseconds of a draft pass with the "full" head and with the "reduced" one, from disk where they are known."""
    what = f"draft pass of {_fingerprint(model, head)}"
    known = recall(what)
    if known is not None and {"full", "reduced"} <= set(known):
        return known
    cache, rows = KVCache(len(model.layers)), min(_ROWS, model.args.block_size or _ROWS)
    block = Block(cache, mx.full((rows,), model.args.mask_token_id or 0, dtype=mx.int32), DIFFUSION, wanted=rows - 1)
    heads = {"full": None, "reduced": head}
    # In turn, so that a busy moment of the machine slows both; the first round may compile.
    rounds = [{name: _milliseconds(model, block, chosen) for name, chosen in heads.items()} for _ in range(_ROUNDS)]
    times = {name: min(spent[name] for spent in rounds) for name in heads}
    remember(what, times)
    return times


def _milliseconds(model: Model, block: Block, head: DraftHead | None) -> float:
    model.draft_head = head
    start = time.perf_counter()
    (logits,) = run_pass(model, [block])
    mx.eval(mx.argmax(logits, axis=-1))
    return (time.perf_counter() - start) * 1e3


def _fingerprint(model: Model, head: DraftHead) -> str:
    """Names what decides a draft pass's cost."""
    digest = hashlib.sha256(f"{head.size} {mx.default_device()}".encode())
    for name, array in cast(list[tuple[str, mx.array]], tree_flatten(model.parameters())):
        digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
    for name, module in model.named_modules():
        digest.update(f"{name} {type(module).__name__}\n".encode())
    return digest.hexdigest()[:16]


def _with_rows(layer: nn.Module, ids: mx.array) -> Any:
    """`layer` with these rows of its weight only."""
    kind: Any = type(layer)
    fewer = kind.__new__(kind)
    fewer.__dict__.update(layer.__dict__)
    dict.update(fewer, {name: array[ids] for name, array in layer.items()})
    return fewer
