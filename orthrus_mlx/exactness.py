"""Rule B: do a row's bits depend on the rows that travel with it? Probed on the loaded model, never assumed.

Block decoding emits what one-token decoding would emit, bit for bit, when the logits of a row are the same
however many rows were computed with it and wherever its block began. The probe runs one text through the
autoregressive view in blocks of several widths and compares bits. Where they differ it looks for a *row
class*: a row count such that passes padded to it agree with each other whatever they carry; then every target
pass, one-token steps included, is padded to that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from .cache import KVCache
from .model import Model
from .passes import target_pass

PROBE_WIDTHS = (1, 2, 3, 5, 8, 16, 32)
ROW_CLASSES = (16, 32)
PROBE_ROWS = 64
PROBE_PREFIX = 7
"""An odd prefix, so that blocks do not start on a tile boundary of the cache."""


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
    """The model's exactness, probed once per loaded model."""
    found = getattr(model, "_exactness", None)
    if found is None:
        found = probe(model)
        model._exactness = found
    return found


def probe(model: Model) -> Exactness:
    """Run the probe: about `PROBE_ROWS` * (len(PROBE_WIDTHS) + 2) rows through the autoregressive view."""
    tokens = _probe_text(model.args.vocab_size, PROBE_PREFIX + PROBE_ROWS)
    compared = f"{tokens.size - PROBE_PREFIX} positions in blocks of"
    reference = _logits_in_blocks(model, tokens, 1)
    differing = [w for w in PROBE_WIDTHS[1:] if not _same(reference, _logits_in_blocks(model, tokens, w))]
    if not differing:
        return Exactness("row-exact", None, f"{compared} {_listed(PROBE_WIDTHS)} rows: equal bits")
    for rows in ROW_CLASSES:
        widths = [w for w in PROBE_WIDTHS if w <= rows]
        reference = _logits_in_blocks(model, tokens, 1, padded_to=rows)
        if all(_same(reference, _logits_in_blocks(model, tokens, w, padded_to=rows)) for w in widths[1:]):
            return Exactness("row-class", rows, f"{compared} {_listed(widths)} rows padded to {rows}: equal bits")
    return Exactness("inexact", None, f"{compared} {differing[0]} rows differ from one-row blocks, padded or not")


def _probe_text(vocab_size: int, length: int) -> mx.array:
    """Ids spread over the vocabulary; a fixed key, so that every probe of a model is the same."""
    return mx.random.randint(0, vocab_size, (length,), key=mx.array([0x50524F42, 1], dtype=mx.uint32))


def _logits_in_blocks(model: Model, tokens: mx.array, width: int, padded_to: int = 1) -> mx.array:
    """Logits of the positions after the prefix, computed `width` rows at a time."""
    cache = KVCache(len(model.layers))
    model.model(tokens[None, :PROBE_PREFIX], cache)
    cache.commit(PROBE_PREFIX)
    parts = []
    for start in range(PROBE_PREFIX, tokens.size, width):
        block = tokens[start : start + width]
        parts.append(target_pass(model, block, cache, max(padded_to, block.size)))
        cache.commit(block.size)
        mx.eval(parts[-1])
    return mx.concatenate(parts)


def _same(a: mx.array, b: mx.array) -> bool:
    return bool(mx.array_equal(a, b).item())


def _listed(widths: Sequence[int]) -> str:
    return ", ".join(map(str, widths))
