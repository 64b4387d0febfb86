"""The decode cycle: draft a block in the diffusion view, verify it in the autoregressive view, commit.

Terms: the *pending* token is known text whose keys and values are not in the cache yet. A cycle takes the
pending token and the drafts behind it through one target pass, emits the tokens that rule A chooses for as long
as the drafts agree with it, and leaves the last one pending.

The cycle is a coroutine: it asks for passes and for values on the host, and hands out what it emits. Whoever
drives it (`alone.py` for one request, the serving engine for many) decides what shares a pass and when to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
import numpy as np

from ..cache import KVCache
from ..exactness import Exactness
from ..model import Model
from ..passes import Block
from ..sampling import Positions, Sampling, position_keys
from ..trees import depths, is_chain
from ..weights import AR as AR_VIEW
from ..weights import DIFFUSION
from .choice import StepwiseChoice, accepted_rows
from .constraint import Constraint, masked
from .draft import CANDIDATES, Drafted, candidates, certainties, confidences, read
from .stats import DecodeStats
from .steps import AR, CERTAINTIES, CHAIN, NGRAM, TREE, Candidates, Draft, NGrams, Outcome, Policy, Situation, Step

# What is made at every step is not frozen: that would take four times as long, 0.7 % of the demo model's step.


@dataclass(slots=True)
class Read:
    """Asks for arrays as nested lists: the one place where a cycle waits for the device."""

    arrays: tuple[mx.array, ...]


@dataclass(slots=True)
class Emission:
    """An emitted token; `logits` [L, V] and `row` give its logits without computing anything more.

    `draft` is the position in the draft, from 0, of a token that was drafted; None for the target's own choice.
    """

    token: int
    draft: int | None
    logits: mx.array
    row: int

    @property
    def from_draft(self) -> bool:
        return self.draft is not None

    @property
    def logprobs(self) -> mx.array:
        """Log-probabilities [V], before filters and temperature, in the model's dtype."""
        logits = self.logits[self.row]
        return logits - mx.logsumexp(logits)


@dataclass(slots=True)
class Emit:
    """Hands out the tokens of a cycle. The next one is queued by then, where it is a device that computes it."""

    tokens: list[Emission]


Steps = Generator[Block | Read | Emit, Any, Any]
"""What a cycle asks for: the logits [wanted, V] of a block, or values; and what it hands out."""


@dataclass(slots=True)
class _Run:
    """One-token steps that the policy wants before it is asked again, `left` of them not begun.

    Attributes:
        taken: how many were taken.
        certainties: of the tokens of the last of them, where the device computed them.
        unsure: (token, logits [1, V]) of the last of them, where the host is to compute it.
    """

    step: Step
    situation: Situation
    left: int
    taken: int = 0
    certainties: list[float] = field(default_factory=list)
    unsure: list[tuple[int, mx.array]] = field(default_factory=list)


@dataclass(slots=True)
class _Queued:
    """A step of `run` on its way: token [1] and logits [1, V].

    Attributes:
        look: whether the policy is to know how certain the token was.
        certainty: its probability [1], where the device computes that.
    """

    run: _Run
    token: mx.array
    logits: mx.array
    look: bool
    certainty: mx.array | None


@dataclass(slots=True)
class _Work:
    """A cycle that has begun: a draft to verify behind `pending` [1]."""

    step: Step
    situation: Situation
    pending: mx.array
    drafted: Drafted | None


class Decoder:
    """One generation over one cache.

    Args:
        model, cache: both views and the cache they share; the cache may hold earlier text.
        sampling: rule A's settings; drafts are chosen with them too.
        stepwise: set where user code takes part in choosing; every token then passes through it.
        constraint: set where a grammar limits the tokens.
        policy: what each cycle does.
        ngrams: where drafts may be looked up in the text so far.
        exactness: the most rows of a target pass.
        block_size: K, the most rows of a draft pass.
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
        policy: Policy,
        exactness: Exactness,
        block_size: int,
        stop_tokens: Collection[int],
        limit: int,
        stats: DecodeStats,
        stepwise: StepwiseChoice | None = None,
        constraint: Constraint | None = None,
        ngrams: NGrams | None = None,
    ):
        self.cache, self.stats = cache, stats
        self.sampling, self.stepwise, self.constraint = sampling, stepwise, constraint
        self.policy, self.block_size = policy, block_size
        self.most_rows = exactness.most(block_size)
        self.stop_tokens, self.limit = frozenset(stop_tokens), limit
        self.text: list[int] = []
        self._first: int | None = None
        self._given: mx.array | None = None
        self.chosen = 0
        self._by_hand = stepwise is not None or constraint is not None
        self._choice_kernel = model.choice_kernel
        self._on_cpu = mx.default_device() == mx.cpu
        self._masks = mx.full((block_size,), model.args.mask_token_id or 0, dtype=mx.int32)
        self._ngrams, self._indexed = ngrams, 0
        self._run: _Run | None = None
        self._clock = _Clock()

    def begin(self, prompt: Sequence[int], logits: mx.array | None = None) -> None:
        """The cache holds all of `prompt` but its last token; `text` goes on behind it.

        Args:
            logits: behind the last token [1, V], if they are known; the cache then has its row staged.
        """
        self.text = list(prompt)
        self._first = None
        self._given = logits

    def cycles(self) -> Steps:
        """The whole generation, after `begin`."""
        self._run = None
        self._clock = _Clock()
        work = yield from self._begin(mx.array(self.text[-1:], dtype=mx.int32))
        while work is not None:
            if isinstance(work, _Queued):
                cycle, pending, ahead = yield from self._finish_step(work)
            else:
                cycle, pending, ahead = yield from self._verify(work)
            goes_on = ahead is None and not self.stop_tokens.intersection(e.token for e in cycle)
            # On the CPU nothing runs beside the consumer, who would only have the tokens later.
            if goes_on and not self._on_cpu:
                ahead = yield from self._begin(pending)
            with self._clock.paused():
                yield Emit(cycle)
            if goes_on and self._on_cpu:
                ahead = yield from self._begin(pending)
            work = ahead

    # Beginning a cycle ------------------------------------------------------------------------------

    def _begin(self, pending: mx.array, unread: int = 0) -> Generator[Block, Any, _Work | _Queued | None]:
        """Ask the policy and queue what it wants behind `pending`; None at the limit.

        `unread` tokens were chosen on the device and have not been read.
        """
        room = self.limit - self.chosen - unread
        if room <= 0:
            return None
        run = self._run
        if run is None or run.left == 0:
            situation = self._situation(room)
            step = self._within(self.policy.step(situation), room)
            if step.kind != AR:
                # What is drafted is verified in one pass with the pending token.
                self._given = None
            if step.kind != AR or self._by_hand:
                self._run = None
                drafted = (yield from self._draft(pending, step)) if step.draft_rows > 1 else None
                return _Work(step, situation, pending, drafted)
            run = self._run = _Run(step, situation, step.steps)
        run.left -= 1
        return (yield from self._queue_step(pending, run))

    def _situation(self, room: int) -> Situation:
        tokens, order = self._match(min(room, self.most_rows) - 1)
        return Situation(self.cache.offset, room, len(tokens), order, tokens, self._first, self._given is not None)

    def _match(self, most: int) -> tuple[Sequence[int], int]:
        """What `NGrams.find` finds in the whole text."""
        if self._ngrams is None:
            return (), 0
        self._ngrams.extend(self.text[self._indexed :])
        self._indexed = len(self.text)
        return self._ngrams.find(most)

    def _within(self, step: Step, room: int) -> Step:
        """`step` with no more rows than there are; one that can draft nothing is a one-token step."""
        if step.kind == AR:
            return step
        verify_rows = min(step.verify_rows, self.most_rows, room)
        draft_rows = min(step.draft_rows, self.block_size)
        if verify_rows < 2 or (step.kind in (CHAIN, TREE) and draft_rows < 2):
            return Step(AR)
        return replace(step, draft_rows=draft_rows, verify_rows=verify_rows)

    def _draft(self, pending: mx.array, step: Step) -> Generator[Block, Any, Drafted]:
        """Queue a diffusion pass over [pending, MASK ...]."""
        rows = step.draft_rows
        # A fixed step drafts the same rows near the end of the text: it is what the view was trained on.
        wanted = rows - 1 if step.look or step.kind == TREE else min(rows, step.verify_rows) - 1
        block = self._joined(pending, self._first_ids(self._masks, rows - 1))
        logits = yield Block(self.cache, block, DIFFUSION, wanted=wanted)
        position = self.cache.offset + 1
        if step.kind == TREE:
            tokens = candidates(logits, self.sampling, position, CANDIDATES)
        else:
            tokens = self._choose(logits, position)
        sure = confidences(logits, tokens, self.sampling.temperature) if self.policy.learns else None
        mx.async_eval([tokens] if sure is None else [tokens, sure])
        self.stats.count_draft(rows)
        return Drafted(tokens, sure)

    def _queue_step(self, pending: mx.array, run: _Run) -> Generator[Block, Any, _Queued]:
        """Queue a step of `run`, whose number of steps left is set, and commit its row."""
        logits = yield from self._target(pending)
        token = self._choose(logits, self.cache.offset + 1)
        self.cache.commit(1)
        look = run.left < CERTAINTIES and self.policy.learns
        certainty = None
        # On the CPU nothing runs beside the host, and it computes several at once for less.
        if look and not self._on_cpu:
            certainty = confidences(logits, token, self.sampling.temperature)
        mx.async_eval(token, certainty)
        return _Queued(run, token, logits, look, certainty)

    # Finishing it -----------------------------------------------------------------------------------

    def _finish_step(self, queued: _Queued) -> Steps:
        """Read a queued step, with the next cycle queued before the host waits for it: (emissions, the next pending
        token [1], that cycle).

        On the CPU nothing runs beside the host: there the step is over when the next cycle begins, so that its time is
        its own, what it tells is known, and nothing is begun behind the text's end.
        """
        run = queued.run
        ahead = None if self._on_cpu else (yield from self._begin(queued.token, unread=1))
        (chosen,), *certainty = yield from self._read(*(a for a in (queued.token, queued.certainty) if a is not None))
        self._know([chosen])
        self.stats.count_cycle(run.step.kind, [0])
        run.taken += 1
        if certainty:
            run.certainties += certainty[0]
        elif queued.look:
            run.unsure.append((chosen, queued.logits))
        # What a run that the text's end cut short would teach is not worth the time that it takes.
        if run.taken == run.step.steps:
            self._observe(self._run_outcome(run))
        return [Emission(chosen, None, queued.logits, 0)], queued.token, ahead

    def _run_outcome(self, run: _Run) -> Outcome:
        known = run.certainties + certainties(run.unsure, self.sampling.temperature)
        counts = (0, 1, run.taken, 0, (), 0)
        return Outcome(run.step, run.situation.context, *counts, self._clock.lap(), certainties=known)

    def _verify(self, work: _Work) -> Steps:
        """Verify what was drafted and commit what is confirmed: (emissions, the next pending token [1], None)."""
        draft, drafts = yield from self._drafts(work)
        masks = None
        if self.constraint is not None:
            fitting, masks = self.constraint.allowed(drafts.tokens)
            drafts = Candidates(drafts.tokens[:fitting], drafts.parents[:fitting])
        known = isinstance(drafts, Candidates)
        tokens = mx.array(drafts.tokens, dtype=mx.int32) if known else drafts
        parents = (-1, *(p + 1 for p in drafts.parents)) if known else tuple(range(-1, drafts.size))
        tree = None if is_chain(parents) else parents
        logits = yield from self._target(self._joined(work.pending, tokens), tree)

        first = self.cache.offset + 1
        if self.stepwise is not None:
            chosen, logits = self._choose_stepwise(self.stepwise, logits, drafts.tokens, first, masks)
            drafted = drafts.tokens
        else:
            positions = first if tree is None else first + mx.array(depths(tree))
            choices = self._choose(logits if masks is None else masked(logits, masks), positions)
            if not known and work.drafted is not None and work.drafted.confidences is not None:
                drafted, chosen, sure = yield from self._read(tokens, choices, work.drafted.confidences)
                draft = read(drafted, sure)
            else:
                drafted, chosen = yield from self._read(tokens, choices)
        nodes = [0, *drafted]
        path = accepted_rows(nodes, parents, chosen)
        emitted = self._until_stop([chosen[row] for row in path if row < len(chosen)])
        accepted = min(len(path) - 1, len(emitted))
        self.cache.commit(accepted + 1, None if tree is None else path[: accepted + 1])
        self._know(emitted)
        self.stats.count_cycle(work.step.kind, depths(parents))
        self._observe(self._outcome(work, nodes, parents, path, accepted, len(emitted), draft))
        cycle = [
            Emission(token, depth if depth < accepted else None, logits, path[depth])
            for depth, token in enumerate(emitted)
        ]
        return cycle, mx.array(emitted[-1:], dtype=mx.int32), None

    def _target(self, ids: mx.array, parents: tuple[int, ...] | None = None) -> Generator[Block, Any, mx.array]:
        """Logits [L, V] of the autoregressive view behind the pending token and drafts: ids [L]."""
        if self._given is None:
            return (yield Block(self.cache, ids, parents=parents))
        logits, self._given = self._given, None
        self.stats.count_pass(AR_VIEW)
        self.stats.given += 1
        return logits

    def _drafts(self, work: _Work) -> Generator[Read, Any, tuple[Draft | None, Any]]:
        """What to verify: `Candidates` where the host knows them, else a chain int32 [n] on the device."""
        step = work.step
        if step.kind == NGRAM:
            # Looked up again: behind a one-token step the text has grown since the policy was asked.
            tokens, _ = self._match(step.verify_rows - 1)
            return None, Candidates(tuple(tokens), tuple(range(-1, len(tokens) - 1)))
        if work.drafted is None:
            return None, Candidates((), ())
        if not (step.look or step.kind == TREE or self._by_hand):
            return None, self._first_ids(work.drafted.chain, step.verify_rows - 1)
        arrays = [a for a in (work.drafted.tokens, work.drafted.confidences) if a is not None]
        tokens, *sure = yield from self._read(*arrays)
        draft = self._to_stop(read(tokens, sure[0] if sure else None))
        if self._by_hand or not sure:
            # User code and grammars walk a chain.
            chain = tuple(row[0] for row in draft.tokens[: step.verify_rows - 1])
            return draft, Candidates(chain, tuple(range(-1, len(chain) - 1)))
        # Behind a one-token step the text has grown since the policy was asked.
        return draft, self.policy.shape(step, draft, self._situation(work.situation.room))

    def _choose_stepwise(
        self, choice: StepwiseChoice, logits: mx.array, drafted: Sequence[int], position: int, masks: Any
    ) -> tuple[list[int], mx.array]:
        """(choices, processed logits [L, V]) row by row, for as long as the drafts agree with them."""
        chosen: list[int] = []
        processed: list[mx.array] = []
        for row in range(len(drafted) + 1):
            own = logits[row] if masks is None else masked(logits[row : row + 1], masks[row : row + 1])[0]
            token, row_logits = choice.choose(self.text + chosen, own, position + row)
            self.stats.host_syncs += 1
            chosen.append(token)
            processed.append(row_logits)
            if token in self.stop_tokens or row == len(drafted) or drafted[row] != token:
                break
        return chosen, mx.stack(processed)

    def _outcome(
        self,
        work: _Work,
        rows: Sequence[int],
        parents: Sequence[int],
        path: Sequence[int],
        accepted: int,
        emitted: int,
        draft: Draft | None,
    ) -> Outcome:
        followed = list(path[1 : accepted + 1])
        # The first draft that the target contradicted, where there was one and the text did not end before it.
        refused = [i for i in range(path[-1] + 1, len(rows)) if parents[i] == path[-1]]
        if refused and emitted == len(path):
            followed.append(refused[0])
        sure: list[float] = []
        if draft is not None:
            level = depths(tuple(parents))
            for i in followed:
                place = level[i] - 1
                offered = list(draft.tokens[place]) if place < len(draft.tokens) else []
                sure.append(draft.confidences[place][offered.index(rows[i])] if rows[i] in offered else 0.0)
        return Outcome(
            step=work.step,
            context=work.situation.context,
            draft_rows=work.step.draft_rows if work.drafted is not None else 0,
            rows=len(rows),
            tokens=emitted,
            drafts=len(followed),
            confidences=sure,
            accepted=accepted,
            seconds=self._clock.lap(),
            path=[rows[i] for i in followed],
        )

    # Small parts ------------------------------------------------------------------------------------

    def _know(self, tokens: list[int]) -> None:
        """`tokens` are part of the text now."""
        if self._first is None and tokens:
            self._first = tokens[0]
        self.text.extend(tokens)
        self.chosen += len(tokens)
        if self.constraint is not None:
            self.constraint.advance(tokens)

    def _observe(self, outcome: Outcome) -> None:
        self.policy.observe(outcome)
        self.stats.count_outcome(outcome, self.policy.prediction)

    def _to_stop(self, draft: Draft) -> Draft:
        """`draft` without what it has behind the text's end."""
        end = len(self._until_stop([row[0] for row in draft.tokens]))
        return Draft(draft.tokens[:end], draft.confidences[:end])

    def _until_stop(self, tokens: list[int]) -> list[int]:
        for i, token in enumerate(tokens):
            if token in self.stop_tokens:
                return tokens[: i + 1]
        return tokens

    def _first_ids(self, ids: mx.array, count: int) -> mx.array:
        """The first `count` of ids [n]; on the CPU computed already, as MLX would have another thread do it: with
        `_joined`, 0.3 ms of a cycle of 10 with the demo model."""
        return mx.array(np.array(ids, copy=False)[:count]) if self._on_cpu else ids[:count]

    def _joined(self, *ids: mx.array) -> mx.array:
        """Ids one behind the other; on the CPU computed already."""
        return (
            mx.array(np.concatenate([np.array(a, copy=False) for a in ids]))
            if self._on_cpu
            else mx.concatenate(list(ids))
        )

    def _choose(self, logits: mx.array, position: Positions) -> mx.array:
        """Rule A for logits [L, V]: tokens int32 [L], on the kernel where there is one."""
        if self._choice_kernel is None or self.sampling.filtered:
            return self.sampling.choose(logits, position).astype(mx.int32)
        keys = None if self.sampling.greedy else position_keys(self.sampling.seed, position, logits.shape[0])
        return self._choice_kernel(logits, self.sampling.temperature, keys).astype(mx.int32)

    def _read(self, *arrays: mx.array) -> Generator[Read, Any, list[list]]:
        self.stats.host_syncs += 1
        return (yield Read(arrays))


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
