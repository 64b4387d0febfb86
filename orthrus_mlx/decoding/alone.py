"""Driving one request's decode cycle by itself: every pass it asks for is run at once, every value read at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx

from ..exactness import Exactness
from ..model import Model
from ..passes import Block, run_pass
from .loop import Decoder, Emission, Emit, Read
from .prefill import Progress, prefill

CLEAR_CACHE_EVERY = 256
"""Tokens between two releases of MLX's buffer cache, as in mlx-lm."""


class Generation:
    """One request: reads the prompt, then runs the decoder until it ends or the consumer closes the iterator."""

    def __init__(self, model: Model, decoder: Decoder, exactness: Exactness):
        self.model, self.decoder, self.exactness = model, decoder, exactness
        self.emitted = 0
        self.stopped = False
        self._all_read: Callable[[], None] | None = None
        self._known = decoder.cache.offset

    def read(self, prompt: Sequence[int], *, step_size: int, progress: Progress | None) -> None:
        """Read `prompt` into the cache, all but its last token. Interrupted, the cache holds the part read."""
        decoder = self.decoder
        self._known = decoder.cache.offset + len(prompt)
        self._all_read = (lambda: progress(len(prompt), len(prompt))) if progress else None
        ids = mx.array(list(prompt), dtype=mx.int32)
        logits = prefill(self.model, ids, decoder.cache, self.exactness, step_size=step_size, progress=progress)
        decoder.begin(prompt, logits)

    def run(self) -> Iterator[Emission]:
        """After `read`: emit until a stop token, the limit, or until the consumer closes the iterator.

        However it ends, the cache then holds the prompt and every emitted token.
        """
        try:
            for emission in self._emissions():
                if self._all_read and self.emitted == 0:
                    self._all_read()
                self.emitted += 1
                self._known += 1
                self.decoder.stats.count_token(emission.draft)
                self.stopped = emission.token in self.decoder.stop_tokens
                yield emission
                if self.stopped:
                    return
                if self.emitted % CLEAR_CACHE_EVERY == 0:
                    mx.clear_cache()
        finally:
            self._settle()

    def _emissions(self) -> Iterator[Emission]:
        steps = self.decoder.cycles()
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(step, Block):
                answer = self._pass(step)
            elif isinstance(step, Read):
                answer = self._read(step.arrays)
            elif isinstance(step, Emit):
                yield from step.tokens

    def _pass(self, block: Block) -> mx.array:
        self.decoder.stats.count_pass(block.view)
        return run_pass(self.model, [block], self.exactness.rows)[0]

    def _read(self, arrays: Sequence[mx.array]) -> list:
        mx.eval(arrays)
        return [array.tolist() for array in arrays]

    def _settle(self) -> None:
        """Leave exactly the known tokens in the cache: drop what ran ahead, read the token still pending."""
        cache, decoder = self.decoder.cache, self.decoder
        cache.trim(cache.offset - self._known)
        if cache.offset == self._known - 1:
            unseen = decoder.chosen - self.emitted
            last = decoder.text[len(decoder.text) - unseen - 1]
            self._pass(Block(cache, mx.array([last], dtype=mx.int32)))
            cache.commit(1)
            mx.async_eval(cache.arrays)
