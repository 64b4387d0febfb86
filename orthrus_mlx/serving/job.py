"""One request under way: its cache, its decode cycle, and what that asks for next."""

from __future__ import annotations

import time
from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from ..cache import KVCache
from ..config import MAX_BLOCK_SIZE
from ..decoding.choice import StepwiseChoice
from ..decoding.loop import Decoder, Emission, Emit, Read, Steps
from ..decoding.model_policy import make_policy
from ..decoding.ngram import NGramIndex
from ..decoding.stats import DecodeStats
from ..exactness import Exactness
from ..generation import block_rows
from ..model import Model
from ..passes import Block
from .shared_rows import Load, SharedRows
from .tickets import CONTEXT, LENGTH, STOP, Event, Ticket


class Job:
    """A ticket's request, from the first token of its prompt to its last event.

    Args:
        ticket: where events go.
        cache: holds as much of the prompt as was known; never all of it.
        load: of the scheduler that runs the job.

    Attributes:
        wants: the pass or the values that the cycle waits for; None while the prompt is read, and at the end.
        last: the last event, once there is one; it is not handed out yet.
    """

    def __init__(self, model: Model, ticket: Ticket, cache: KVCache, exactness: Exactness, load: Load):
        request = ticket.request
        self.ticket, self.cache = ticket, cache
        self.prompt = request.prompt
        room = model.args.context_length - len(request.prompt)
        self._limit = min(request.max_tokens, room)
        self._at_limit = CONTEXT if room < request.max_tokens else LENGTH
        self.stats = DecodeStats(mode=request.mode, exactness=str(exactness))
        rows = block_rows(model, request.mode, request.block_size)
        processors = request.logits_processors
        sampled = not request.sampling.greedy
        policy = make_policy(model, request.mode, rows, exactness, prompt=request.prompt, sampled=sampled)
        self._decoder = Decoder(
            model,
            cache,
            sampling=request.sampling,
            policy=SharedRows(policy, load, exactness.most(MAX_BLOCK_SIZE)),
            ngrams=NGramIndex() if policy.learns else None,
            exactness=exactness,
            block_size=rows,
            stop_tokens=request.stop_tokens,
            limit=self._limit,
            stats=self.stats,
            stepwise=StepwiseChoice(request.sampling, processors) if processors else None,
            constraint=request.constraint() if request.constraint else None,
        )
        self._steps: Steps | None = None
        self._started = 0.0
        self._emitted = 0
        self.wants: Block | Read | None = None
        self.last: Event | None = None
        ticket.usage.cached_tokens = cache.offset
        ticket.usage.exactness = str(exactness)
        self.report_progress()

    @property
    def unread(self) -> int:
        """Prompt tokens that have to be read before the first cycle; the last one is the cycle's own."""
        return 0 if self._steps else len(self.prompt) - 1 - self.cache.offset

    @property
    def decoding(self) -> bool:
        return self._steps is not None

    def report_progress(self) -> None:
        """Tell the ticket how much of the prompt is in the cache."""
        self.ticket.progress = min(self.cache.offset, len(self.prompt) - 1), len(self.prompt)

    def begin(self, logits: mx.array | None) -> None:
        """The prompt is read: the first cycle. `logits` are those behind its last token (see `Decoder.begin`)."""
        self._started = time.perf_counter()
        self._decoder.begin(self.prompt, logits)
        self._steps = self._decoder.cycles()
        self.advance(None)

    def advance(self, answer: Sequence | mx.array | None) -> None:
        """Go on with the answer to `wants`, up to the next thing that is wanted, or the end."""
        assert self._steps is not None
        self.wants = None
        while self.last is None:
            step = self._steps.send(answer)
            answer = None
            if isinstance(step, Emit):
                self._hand_out(step.tokens)
            else:
                self.wants = step
                return
        self.close()

    def close(self) -> None:
        """End the cycle, wherever it is. What is in the cache stays."""
        self.wants = None
        if self._steps is not None:
            self._steps.close()

    def known(self) -> list[int]:
        """The tokens whose keys and values are in the cache for good: of the prompt, and of the answer."""
        text = self._decoder.text if self._steps is not None else self.prompt
        return list(text[: self.cache.offset])

    def count(self) -> None:
        """Bring the ticket's usage up to date."""
        usage, stats = self.ticket.usage, self.stats
        usage.completion_tokens, usage.cycles = stats.tokens, stats.cycles
        usage.drafted, usage.accepted = stats.drafted, stats.accepted
        usage.drafted_at, usage.accepted_at = tuple(stats.drafted_at), tuple(stats.accepted_at)
        usage.seconds = time.perf_counter() - self._started if self._steps is not None else 0.0

    def _hand_out(self, emissions: Sequence[Emission]) -> None:
        if self._emitted == 0:
            self.ticket.progress = len(self.prompt), len(self.prompt)
        events = []
        listed = _logprobs(emissions, self.ticket.request.logprobs)
        for emission, (logprob, top) in zip(emissions, listed, strict=True):
            self._emitted += 1
            self.stats.count_token(emission.draft)
            reason = None
            if emission.token in self._decoder.stop_tokens:
                reason = STOP
            elif self._emitted == self._limit:
                reason = self._at_limit
            events.append(Event(emission.token, emission.from_draft, logprob, top, reason))
            if reason is not None:
                self.last = events.pop()
                break
        self.count()
        if events:
            self.ticket.put(*events)


_Listed = tuple[float | None, tuple[tuple[int, float], ...]]


def _logprobs(emissions: Sequence[Emission], top: int) -> list[_Listed]:
    """(log-probability, the `top` likeliest tokens and theirs) of each emission; nothing where `top` is 0."""
    if not top:
        return [(None, ())] * len(emissions)
    rows = np.array(mx.stack([emission.logprobs for emission in emissions]).astype(mx.float32))
    listed: list[_Listed] = []
    for emission, logprobs in zip(emissions, rows, strict=True):
        best = np.argsort(-logprobs, kind="stable")[:top]
        listed.append((float(logprobs[emission.token]), tuple((int(t), float(logprobs[t])) for t in best)))
    return listed
