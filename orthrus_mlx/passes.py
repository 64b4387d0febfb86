"""A pass over the weights: the rows of one or several blocks, in either view, through all layers together.

Rows of different sequences, or of both views, share every weight that they have in common; each block attends to
its own cache. By rule B (orthrus_mlx.exactness) a row of the autoregressive view has the same bits whatever shares
its pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import mlx.core as mx

from .cache import KVCache
from .cpu_pass import CpuPass
from .model import Model, Part
from .weights import AR, DIFFUSION


@dataclass(slots=True)
class Block:
    """Rows of one sequence in a pass, staged behind its cache's prefix until they are committed.

    Attributes:
        cache: the sequence's cache.
        tokens: ids int32 [L]; row 0 is the pending token.
        view: AR, or DIFFUSION for a draft.
        parents: of a tree of rows (see `orthrus_mlx.trees`); None for a chain.
        wanted: the number of rows whose logits are wanted, leading ones; None for all.
        skipped: rows before these whose logits are not wanted.
    """

    cache: KVCache
    tokens: mx.array
    view: str = AR
    parents: tuple[int, ...] | None = None
    wanted: int | None = None
    skipped: int = 0


def run_pass(model: Model, blocks: Sequence[Block], rows: int | None = None) -> list[mx.array]:
    """Logits [wanted, V] of each of `blocks`, computed together.

    Where the model has a draft head, a pass of drafts alone gives -inf to the tokens outside its vocabulary.

    Args:
        rows: the row count that rule B pads autoregressive passes to (`Exactness.rows`), and the most that may be
            given then; None where there is none.
    """
    order = sorted(range(len(blocks)), key=lambda i: blocks[i].view == DIFFUSION)
    # A pass of drafts alone owes nobody its bits.
    drafts_alone = blocks[order[0]].view == DIFFUSION
    rows = None if drafts_alone else rows
    draft_head = model.draft_head if drafts_alone else None
    given = sum(block.tokens.size for block in blocks)
    total = max(given, rows or 0)
    parts: dict[int, Part] = {}
    start = 0
    for i in order:
        block = blocks[i]
        # A chain alone takes the padding with it: behind its rows, where causal attention hides it.
        stop = total if len(blocks) == 1 and block.parents is None else start + block.tokens.size
        part_rows = rows if block.view == AR else None
        parts[i] = Part(start, stop, block.view, block.cache, block.parents, part_rows)
        start = stop
    ids = [blocks[i].tokens for i in order]
    if total > given:
        ids.append(mx.zeros((total - given,), ids[0].dtype))
    joined, ordered = mx.concatenate(ids) if len(ids) > 1 else ids[0], list(parts.values())
    wanted = [block.tokens.size - block.skipped if block.wanted is None else block.wanted for block in blocks]
    spans = [(parts[i].start + blocks[i].skipped, count) for i, count in enumerate(wanted)]
    whole = model.model.fused
    if isinstance(whole, CpuPass) and draft_head is None and whole.takes(ordered):
        return whole.logits(joined, ordered, spans, drafts_alone)
    head = draft_head or partial(model.head, drafts=drafts_alone)
    hidden = model.model.parts(joined, ordered)[0]
    if rows is not None or spans == [(0, total)]:
        logits = head(hidden)
        return [logits[first : first + count] for first, count in spans]
    kept = [hidden[first : first + count] for first, count in spans]
    logits = head(mx.concatenate(kept) if len(kept) > 1 else kept[0])
    ends = accumulate(wanted)
    return [logits[end - count : end] for end, count in zip(ends, wanted, strict=True)]


def target_pass(model: Model, block: mx.array, cache: KVCache, rows: int) -> mx.array:
    """Logits [L, V] of the autoregressive view for ids [L], staged in `cache`, computed in a pass of `rows` rows."""
    return run_pass(model, [Block(cache, block)], rows)[0]
