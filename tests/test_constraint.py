"""Grammars in the decode loop: every token is allowed where it stands, and block decoding stays lossless."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest
import tiny
from mlx_lm.sample_utils import make_logits_processors

from orthrus_mlx.decoding.constraint import masked
from orthrus_mlx.decoding.stats import DecodeStats
from orthrus_mlx.generation import mlx_generate

END = 0


class EveryThird:
    """Each token is the last one plus 1, 4, 7, ... of the vocabulary; after `length` tokens the text must end."""

    def __init__(self, first: int, length: int) -> None:
        self.last, self.left = first, length
        self.asked = self.cut = 0

    def allows(self, last: int, left: int) -> np.ndarray:
        allowed = np.zeros(tiny.VOCABULARY, dtype=bool)
        if left == 0:
            allowed[END] = True
        else:
            allowed[1:] = (np.arange(1, tiny.VOCABULARY) - last) % 3 == 1
        return allowed

    def allowed(self, drafts: Sequence[int]) -> tuple[int, np.ndarray]:
        last, left, rows = self.last, self.left, []
        for draft in [*drafts, None]:
            rows.append(self.allows(last, left))
            if draft is None or not rows[-1][draft]:
                break
            last, left = draft, max(left - 1, 0)
        self.asked += 1
        self.cut += len(rows) - 1 < len(drafts)
        return len(rows) - 1, np.packbits(np.array(rows), axis=1, bitorder="little").view(np.uint32)

    def advance(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            assert self.allows(self.last, self.left)[token], f"{token} behind {self.last}, {self.left} left"
            self.last, self.left = token, max(self.left - 1, 0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("processors", [False, True])
def test_constrained_text_is_the_same_in_every_mode_and_allowed_throughout(temperature, processors):
    model, prompt = tiny.tiny_model(0, 8.0), tiny.prompt(1, 7)
    accepted = cut = 0
    for seed in range(4):

        def run(seed=seed, **mode):
            constraint, stats = EveryThird(prompt[-1], 25), DecodeStats()
            options = {"seed": seed, "constraint": constraint, "stats": stats, **mode}
            if processors:
                options["logits_processors"] = make_logits_processors(repetition_penalty=1.3)
            return list(mlx_generate(model, prompt, END, 60, temperature, **options)), constraint, stats

        expected, _, _ = run(mode="ar")
        assert len(expected) == 25, "the text ends where the grammar ends it"
        for mode in ({"mode": "diffusion"}, {"mode": "diffusion", "block_size": 5}, {"mode": "auto"}):
            tokens, constraint, stats = run(**mode)
            assert tokens == expected, mode
            accepted += stats.accepted
            cut += constraint.cut
    assert accepted and cut, "no draft fitted the grammar, or all did: nothing was proved"
    assert expected != list(mlx_generate(model, prompt, END, 60, temperature, seed=3, mode="ar"))


def test_masks_may_be_shorter_or_longer_than_the_vocabulary():
    logits = mx.zeros((1, 40))
    short = masked(logits, np.array([[0b101]], dtype=np.uint32))
    assert [i for i, x in enumerate(short[0].tolist()) if x == 0] == [0, 2]
    long = masked(logits, np.array([[0, 1 << 7, 0xFFFFFFFF]], dtype=np.uint32))
    assert [i for i, x in enumerate(long[0].tolist()) if x == 0] == [39]
