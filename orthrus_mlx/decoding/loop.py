"""The decode cycle: draft a block in the diffusion view, verify it in the autoregressive view, commit.

Terms: the *pending* token is known text whose keys and values are not in the cache yet. A cycle takes the
pending token and up to K-1 drafts through one target pass, emits the tokens that rule A chooses for as long
as the drafts agree with it, and leaves the last one pending.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import mlx.core as mx

from ..cache import KVCache
from ..exactness import Exactness, target_pass
from ..model import DIFFUSION, Model
from ..sampling import Sampling, position_keys
from .choice import StepwiseChoice, matching_prefix
from .policy import Policy
from .prefill import Progress, prefill
from .stats import DecodeStats

CLEAR_CACHE_EVERY = 256
"""Tokens between two releases of MLX's buffer cache, as in mlx-lm."""


@dataclass(frozen=True)
class Emission:
    """An emitted token; `logits` [L, V] and `row` give its logits without computing anything more."""

    token: int
    from_draft: bool
    logits: mx.array
    row: int

    @property
    def logprobs(self) -> mx.array:
        """Log-probabilities [V], before filters and temperature, in the model's dtype."""
        logits = self.logits[self.row]
        return logits - mx.logsumexp(logits)


class Decoder:
    """One generation over one cache.

    Args:
        model, cache: both views and the cache they share; the cache may hold earlier text.
        sampling: rule A's settings; drafts are chosen with them too.
        stepwise: set where user code takes part in choosing; every token then passes through it.
        policy: rows of each cycle.
        exactness: how target passes are padded.
        block_size: K, rows of a draft pass.
        stop_tokens: ids that end the text; the one met is emitted.
        limit: most tokens to emit.
        stats: counted into.
    """

    def __init__(
        self,
        model: Model,
        cache: KVCache,
        *,
        sampling: Sampling,
        stepwise: StepwiseChoice | None,
        policy: Policy,
        exactness: Exactness,
        block_size: int,
        stop_tokens: Collection[int],
        limit: int,
        stats: DecodeStats,
    ):
        self.model, self.cache = model, cache
        self.sampling, self.stepwise = sampling, stepwise
        self.policy, self.exactness, self.stats = policy, exactness, stats
        self.block_size, self.stop_tokens, self.limit = block_size, frozenset(stop_tokens), limit
        self.stopped = False
        self.emitted = 0
        self._choice_kernel = model.choice_kernel
        self._masks = mx.full((block_size - 1,), model.args.mask_token_id or 0, dtype=mx.int32)
        self._tokens: list[int] = []
        self._all_read: Callable[[], None] | None = None
        self._known = cache.offset

    def read(self, prompt: Sequence[int], *, step_size: int, progress: Progress | None) -> None:
        """Read `prompt` into the cache, all but its last token. Interrupted, the cache holds the part read."""
        ids = mx.array(list(prompt), dtype=mx.int32)
        self._tokens = list(prompt)
        self._known = self.cache.offset + len(self._tokens)
        self._all_read = partial(progress, len(prompt), len(prompt)) if progress else None
        prefill(self.model, ids, self.cache, step_size=step_size, progress=progress)

    def run(self) -> Iterator[Emission]:
        """After `read`: emit until a stop token, the limit, or until the consumer closes the iterator.

        However it ends, the cache then holds the prompt and every emitted token.
        """
        try:
            for cycle in self._cycles(mx.array(self._tokens[-1:], dtype=mx.int32)):
                for emission in cycle:
                    if self._all_read and self.emitted == 0:
                        self._all_read()
                    self.emitted += 1
                    self.stats.count_token(emission.row if emission.from_draft else None)
                    self._known += 1
                    self._tokens.append(emission.token)
                    self.stopped = emission.token in self.stop_tokens
                    yield emission
                    if self.stopped:
                        return
                    if self.emitted % CLEAR_CACHE_EVERY == 0:
                        mx.clear_cache()
        finally:
            self._settle()

    def _settle(self) -> None:
        """Leave exactly the known tokens in the cache: drop what ran ahead, read the token still pending."""
        self.cache.trim(self.cache.offset - self._known)
        if self.cache.offset == self._known - 1:
            self._target(mx.array(self._tokens[-1:], dtype=mx.int32))
            self.cache.commit(1)
            mx.async_eval(self.cache.arrays)

    # Cycles -----------------------------------------------------------------------------------------

    def _cycles(self, pending: mx.array) -> Iterator[list[Emission]]:
        while self.emitted < self.limit:
            plain = self.stepwise is None and self._rows() == 1
            lane = self._pipelined_steps if plain else self._blocks
            pending = yield from lane(pending)

    def _rows(self, unread: int = 0) -> int:
        """Rows of the next cycle, given tokens already chosen but not yet emitted."""
        most = self.exactness.most(self.block_size)
        return min(self.policy.rows(), most, self.limit - self.emitted - unread)

    def _blocks(self, pending: mx.array) -> Generator[list[Emission], None, mx.array]:
        """Cycles of draft, verify, commit, until the policy or the text asks for something else."""
        clock = _Clock()
        drafts = self._draft(pending)
        while True:
            rows = min(drafts.size + 1, self.limit - self.emitted)
            position = self.cache.offset + 1
            drafts = drafts[: rows - 1]
            logits = self._target(mx.concatenate([pending, drafts]))
            chosen, accepted, logits = self._verify(logits, drafts, position)
            self.cache.commit(accepted + 1)
            pending = mx.array(chosen[accepted:], dtype=mx.int32)
            cycle = [Emission(token, i < accepted, logits, i) for i, token in enumerate(chosen)]
            self.stats.count_cycle(rows)
            self.policy.observe(rows, len(cycle), clock.lap())
            # The next draft runs on the device while the consumer takes this cycle's tokens.
            again = self._rows(len(cycle)) > (self.stepwise is None) and not self.stop_tokens.intersection(chosen)
            if again:
                drafts = self._draft(pending, len(cycle))
            with clock.paused():
                yield cycle
            if not again:
                return pending

    def _pipelined_steps(self, pending: mx.array) -> Generator[list[Emission], None, mx.array]:
        """One-token steps, each queued before the host reads the one before it."""
        clock = _Clock()
        token, logits = self._step(pending)
        while True:
            ahead = self._step(token) if self._rows(unread=1) == 1 else None
            self.stats.host_syncs += 1
            cycle = [Emission(cast(int, token.item()), False, logits, 0)]
            self.stats.count_cycle(1)
            self.policy.observe(1, 1, clock.lap())
            with clock.paused():
                yield cycle
            if ahead is None:
                return token
            token, logits = ahead

    # Passes -----------------------------------------------------------------------------------------

    def _draft(self, pending: mx.array, unread: int = 0) -> mx.array:
        """Queue a diffusion pass over [pending, MASK ...]: drafts [rows-1] for the positions behind `pending`."""
        rows = self._rows(unread)
        if rows == 1:
            return self._masks[:0]
        # The pass keeps its full width near the end of the text: it is what the view was trained on.
        block = mx.concatenate([pending, self._masks])
        hidden = self.model.model(block[None], self.cache, view=DIFFUSION)[0, : rows - 1]
        drafts = self._choose(self.model.head(hidden), self.cache.offset + 1)
        mx.async_eval(drafts)
        self.stats.diffusion_passes += 1
        return drafts

    def _target(self, block: mx.array) -> mx.array:
        self.stats.ar_passes += 1
        return target_pass(self.model, block, self.cache, self.exactness.padded(block.size))

    def _verify(self, logits: mx.array, drafts: mx.array, position: int) -> tuple[list[int], int, mx.array]:
        """(tokens to emit, how many of them are accepted drafts, their logits [L, V]) by rule A."""
        if self.stepwise is not None:
            return self._verify_stepwise(self.stepwise, logits, drafts, position)
        drafted, chosen = self._read(drafts, self._choose(logits, position))
        chosen = self._until_stop(chosen[: matching_prefix(drafted, chosen) + 1])
        return chosen, matching_prefix(drafted, chosen), logits

    def _verify_stepwise(
        self, choice: StepwiseChoice, logits: mx.array, drafts: mx.array, position: int
    ) -> tuple[list[int], int, mx.array]:
        (drafted,) = self._read(drafts)
        chosen: list[int] = []
        processed: list[mx.array] = []
        for row in range(len(drafted) + 1):
            token, row_logits = choice.choose(self._tokens + chosen, logits[row], position + row)
            self.stats.host_syncs += 1
            chosen.append(token)
            processed.append(row_logits)
            if token in self.stop_tokens or matching_prefix(drafted, chosen) <= row:
                break
        return chosen, matching_prefix(drafted, chosen), mx.stack(processed)

    def _until_stop(self, tokens: list[int]) -> list[int]:
        for i, token in enumerate(tokens):
            if token in self.stop_tokens:
                return tokens[: i + 1]
        return tokens

    def _step(self, pending: mx.array) -> tuple[mx.array, mx.array]:
        """Queue a one-token step: (token [1], logits [1, V]), and commit its row."""
        logits = self._target(pending)
        token = self._choose(logits, self.cache.offset + 1)
        self.cache.commit(1)
        mx.async_eval(token)
        return token, logits

    def _choose(self, logits: mx.array, position: int) -> mx.array:
        """Rule A for logits [L, V] of positions position ..: tokens int32 [L], on the kernel where there is one."""
        if self._choice_kernel is None or self.sampling.filtered:
            return self.sampling.choose(logits, position).astype(mx.int32)
        keys = None if self.sampling.greedy else position_keys(self.sampling.seed, position, logits.shape[0])
        return self._choice_kernel(logits, self.sampling.temperature, keys).astype(mx.int32)

    def _read(self, *arrays: mx.array) -> list[list[int]]:
        """The one place where a block cycle waits for the device."""
        mx.eval(arrays)
        self.stats.host_syncs += 1
        return [cast(list[int], a.tolist()) for a in arrays]


class _Clock:
    """Wall time between laps, without the time the consumer holds the tokens."""

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self._now = now
        self._last = now()

    def lap(self) -> float:
        last, self._last = self._last, self._now()
        return self._last - last

    def paused(self) -> _Clock:
        return self

    def __enter__(self) -> None:
        self._paused_at = self._now()

    def __exit__(self, *exc: object) -> None:
        self._last += self._now() - self._paused_at
