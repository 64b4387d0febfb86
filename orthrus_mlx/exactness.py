"""Rule B: do a row's bits depend on the rows that travel with it? Probed on the loaded model, never assumed.

Block decoding emits what one-token decoding would emit, bit for bit, when the logits of a row are the same
however many rows were computed with it and wherever its block began. The probe runs one text through the
autoregressive view in blocks of several widths, behind caches of several lengths, and compares bits. Where they
differ it looks for a *row class*: a row count such that passes padded to it agree with each other whatever they
carry; then every target pass, one-token steps included, is padded to that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from . import exactness_notes
from .cache import KVCache
from .config import MAX_BLOCK_SIZE
from .model import Model
from .passes import Block, run_pass, target_pass
from .trees import paths

PROBE_WIDTHS = (1, 2, 3, 5, 8, 16, 32)
ROW_CLASSES = (16, 32)


@dataclass(frozen=True)
class Place:
    """Where the probe compares: `positions` behind a cache of `prefix` tokens."""

    prefix: int
    positions: int

    def __str__(self) -> str:
        return f"{self.prefix} to {self.prefix + self.positions - 1}"


PLACES = (Place(7, 40), Place(1018, 12), Place(4090, 12))
"""Odd lengths, so that blocks do not start on a tile boundary of the cache; and on both sides of 1,024 and 4,096
keys, where attention kernels of Metal change their plan."""

PROBE_TREE = (-1, 0, *range(14))
"""Two branches, row by row in turn: no node but the first stands where a chain would have it."""


@dataclass(frozen=True)
class Exactness:
    """What the probe showed.

    Attributes:
        kind: "row-exact" (any row count gives a row the same bits), "row-class" (passes padded to `rows` rows
            do), "inexact" (neither was shown) or "off" (the user waived it).
        rows: the row count that passes are padded to, and the most they may have; None where there is no need.
        evidence: one line saying what was compared.
    """

    kind: str
    rows: int | None = None
    evidence: str = ""

    @property
    def lossless(self) -> bool:
        """True where the probe found block decoding's logits equal, bit for bit, to one-token decoding's."""
        return self.kind in ("row-exact", "row-class")

    def padded(self, rows: int) -> int:
        """The row count to run for `rows` rows."""
        return rows if self.rows is None else self.rows

    def most(self, rows: int) -> int:
        """`rows`, or fewer where a pass that wide would leave the row class."""
        return rows if self.rows is None else min(rows, self.rows)

    def __str__(self) -> str:
        return f"{self.kind} at {self.rows} rows" if self.rows else self.kind


OFF = Exactness("off", evidence="not probed: exact=False")


def exactness_of(model: Model) -> Exactness:
    """The model's exactness, probed once per loaded model; for kernels on the CPU, once per machine."""
    found = getattr(model, "_exactness", None)
    if found is None:
        found = _noted(model) if _is_fact_of_machine(model) else probe(model)
        model._exactness = found
    return found


def probe(model: Model) -> Exactness:
    """Run the probe: some 100 to 150 short passes of the autoregressive view."""
    places = [p for i, p in enumerate(PLACES) if i == 0 or p.prefix + MAX_BLOCK_SIZE <= model.args.context_length]
    behind = f"behind caches of {_listed(places)} tokens"
    difference = _difference(model, places, PROBE_WIDTHS)
    if difference is None:
        return Exactness("row-exact", None, f"blocks of {_listed(PROBE_WIDTHS)} rows {behind}: equal bits")
    for rows in ROW_CLASSES:
        widths = [w for w in PROBE_WIDTHS if w <= rows]
        if _difference(model, places, widths, rows) is None:
            evidence = f"blocks of {_listed(widths)} rows padded to {rows}, {behind}: equal bits"
            return Exactness("row-class", rows, evidence)
    return Exactness("inexact", None, f"{difference} differ from one-row blocks, padded or not")


def trees_agree(model: Model, exactness: Exactness) -> bool:
    """Whether the rows of a tree have the bits of the chains that its paths are. Probed once per loaded model.

    Where passes are not lossless anyway there is nothing to lose: True.
    """
    if not exactness.lossless:
        return True
    found = getattr(model, "_trees_agree", None)
    if found is None:
        places = [p for p in PLACES if p.prefix + MAX_BLOCK_SIZE <= model.args.context_length]
        found = model._trees_agree = all(_tree_agrees(model, place.prefix, exactness.rows) for place in places)
    return found


def _tree_agrees(model: Model, prefix: int, rows: int | None) -> bool:
    text, cache = _text(model.args.vocab_size, len(PROBE_TREE)), _filled(model, prefix)
    (tree,) = run_pass(model, [Block(cache, text, parents=PROBE_TREE)], rows)
    for path in map(mx.array, paths(PROBE_TREE)):
        (chain,) = run_pass(model, [Block(cache, text[path])], rows)
        if not _same(tree[path], chain):
            return False
    return True


def _difference(
    model: Model, places: Sequence[Place], widths: Sequence[int], padded_to: int | None = None
) -> str | None:
    """The first blocks whose bits are not those of one-row blocks, in words; None where all agree."""
    for place in places:
        text = _text(model.args.vocab_size, place.positions - 1 + MAX_BLOCK_SIZE)
        cache = _filled(model, place.prefix)
        reference = _logits_in_blocks(model, text, cache, 1, place.positions, padded_to)
        for width in widths[1:]:
            if not _same(reference, _logits_in_blocks(model, text, cache, width, place.positions, padded_to)):
                return f"blocks of {width} rows behind caches of {place} tokens"
    return None


def _text(vocab_size: int, length: int) -> mx.array:
    """Ids spread over the vocabulary; a fixed key, so that every probe of a model is the same."""
    return mx.random.randint(0, vocab_size, (length,), key=mx.array([0x50524F42, 1], dtype=mx.uint32))


def _filled(model: Model, length: int) -> KVCache:
    """A cache of `length` rows for the price of one pass: a block's keys and values over and over."""
    cache = KVCache(len(model.layers))
    rows = min(length, MAX_BLOCK_SIZE)
    mx.eval(target_pass(model, _text(model.args.vocab_size, rows), cache, rows))
    cache.commit(length, [i % rows for i in range(length)])
    mx.eval(cache.arrays)
    return cache


def _logits_in_blocks(
    model: Model, text: mx.array, cache: KVCache, width: int, positions: int, padded_to: int | None
) -> mx.array:
    """Logits of `positions` ids of `text` behind `cache`, computed `width` rows at a time; `cache` stays as it was."""
    parts = []
    for start in range(0, positions, width):
        block = text[start : start + width]
        parts.append(target_pass(model, block, cache, max(padded_to or 1, width)))
        cache.commit(width)
        mx.eval(parts[-1])
    cache.trim(width * len(parts))
    return mx.concatenate(parts)[:positions]


def _is_fact_of_machine(model: Model) -> bool:
    """Whether two models of the same shapes must get the same answer.

    On the CPU a kernel is chosen by shapes alone. Layers of a model that was not given its kernels by `accelerate`
    may be of any kind.
    """
    return hasattr(model, "kernels") and mx.default_device().type == mx.DeviceType.cpu


def _noted(model: Model) -> Exactness:
    """What a probe on this machine found earlier; else it is probed and noted."""
    key = exactness_notes.key(model)
    note = exactness_notes.read(key)
    if note is not None:
        return Exactness(note.kind, note.rows, f"{note.evidence} (seen earlier on this machine)")
    found = probe(model)
    exactness_notes.write(key, exactness_notes.Note(found.kind, found.rows, found.evidence))
    return found


def _same(a: mx.array, b: mx.array) -> bool:
    return bool(mx.array_equal(a, b).item())


def _listed(things: Sequence[object]) -> str:
    return ", ".join(map(str, things))
