"""What the HTTP side asks of decoding, and an engine that answers one request after the other.

The engine runs in a thread of its own; a `Ticket` carries its events into the event loop that submitted the request.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import mlx.core as mx
import numpy as np

from ..decoding.constraint import Constraint
from ..decoding.stats import DecodeStats
from ..errors import OrthrusError, RequestError
from ..exactness import exactness_of
from ..generation import MODES, GenerationResponse, stream_generate
from ..sampling import LogitsProcessor, Sampling

log = logging.getLogger(__name__)

STOP, LENGTH, CONTEXT, CANCELLED, ERROR = "stop", "length", "context", "cancelled", "error"
NO_TOKEN = -1


class Busy(OrthrusError):
    """The engine takes no more requests now; `retry_after` is the number of seconds after which to try again."""

    def __init__(self, message: str, retry_after: int = 1):
        super().__init__(message)
        self.retry_after = retry_after


class TooLarge(RequestError):
    """A request that could never run here, however long it waited."""


@dataclass(frozen=True)
class EngineRequest:
    """One answer to compute.

    Attributes:
        prompt: token ids, at least one.
        max_tokens: most tokens to emit, at least 1.
        sampling: rule A's settings, the seed included.
        stop_tokens: ids that end the answer; the one met is the last event's token.
        logits_processors: mlx-lm's; shown the prompt and the tokens before each row.
        constraint: makes the state of a grammar that every token must keep to.
        logprobs: how many likeliest tokens each event lists; with 0 events carry no log-probability.
        mode, block_size: as in `stream_generate`.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    stop_tokens: frozenset[int]
    logits_processors: tuple[LogitsProcessor, ...] = ()
    constraint: Callable[[], Constraint] | None = None
    logprobs: int = 0
    mode: str = "auto"
    block_size: int | None = None


@dataclass(frozen=True)
class Event:
    """A token, or the end.

    Attributes:
        token: `NO_TOKEN` where the answer ends without one (cancelled, error).
        from_draft: whether the diffusion view drafted it.
        logprob: its log-probability before filters and temperature, where asked for.
        top_logprobs: the likeliest tokens of its position and theirs, in falling order.
        finish_reason: on the last event alone: "stop", "length", "context", "cancelled" or "error".
    """

    token: int
    from_draft: bool = False
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    finish_reason: str | None = None


@dataclass
class Usage:
    """Counts of one request, complete once its last event is out; `seconds` is the time spent decoding."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cycles: int = 0
    drafted: int = 0
    accepted: int = 0
    seconds: float = 0.0
    drafted_at: tuple[int, ...] = ()
    accepted_at: tuple[int, ...] = ()
    exactness: str = ""


class Ticket:
    """A submitted request: iterate over its events in the event loop that submitted it.

    Attributes:
        request: what was asked.
        progress: (prompt tokens read, prompt tokens).
        usage: see `Usage`.
        error: what went wrong, once an event's finish reason is "error".
    """

    def __init__(self, request: EngineRequest):
        self.request = request
        self.progress = (0, len(request.prompt))
        self.usage = Usage(prompt_tokens=len(request.prompt))
        self.error: BaseException | None = None
        self._cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._ended = False

    def __aiter__(self) -> Ticket:
        return self

    async def __anext__(self) -> Event:
        if self._ended:
            raise StopAsyncIteration
        event = await self._events.get()
        self._ended = event.finish_reason is not None
        return event

    def cancel(self) -> None:
        """Give the request up: the engine drops it at the next cycle. Harmless once it has ended."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def put(self, event: Event) -> None:
        """The engine's side: hand an event over, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:
            # The loop is closed: nobody can be waiting any more.
            self.cancel()

    def fail(self, error: Exception) -> None:
        """The engine's side: end with an error."""
        self.error = error
        self.put(Event(NO_TOKEN, finish_reason=ERROR))


@dataclass
class Totals:
    """Sums over all requests, for `Engine.metrics`."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cycles: int = 0
    drafted: int = 0
    accepted: int = 0
    finished: dict[str, int] = field(default_factory=dict)

    def add(self, usage: Usage, finish_reason: str) -> None:
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "cycles", "drafted", "accepted"):
            setattr(self, name, getattr(self, name) + getattr(usage, name))
        self.finished[finish_reason] = self.finished.get(finish_reason, 0) + 1


class Engine:
    """Runs requests one at a time, first come first served.

    Args:
        model, tokenizer: from `load`.
        max_requests: most requests in the house, running and queued.
        prefill_step_size: prompt tokens per pass; between two passes a request can be cancelled.
    """

    def __init__(self, model: Any, tokenizer: Any, *, max_requests: int = 64, prefill_step_size: int = 2048):
        self.model, self._tokenizer = model, tokenizer
        self.max_requests, self._step_size = max_requests, prefill_step_size
        self._queue: deque[Ticket] = deque()
        self._running: Ticket | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._totals = Totals()
        self._thread = threading.Thread(target=self._work, name="orthrus-engine", daemon=True)
        self._thread.start()

    @property
    def exactness(self) -> str:
        """What the probe showed of the model's target passes."""
        return str(exactness_of(self.model))

    def submit(self, request: EngineRequest) -> Ticket:
        """Queue a request. Call in a running event loop.

        Raises:
            Busy: too many requests are waiting, or the engine is closing.
            RequestError: the request asks for something impossible.
            TooLarge: its prompt can never fit.
        """
        self._check(request)
        with self._changed:
            if self._closing:
                raise Busy("the server is shutting down", retry_after=5)
            if len(self._queue) + (self._running is not None) >= self.max_requests:
                raise Busy(f"{self.max_requests} requests are running or waiting already; try again later")
            ticket = Ticket(request)
            self._queue.append(ticket)
            self._changed.notify_all()
            return ticket

    def close(self, drain: bool) -> None:
        """Take no more requests; finish those in the house (`drain`) or cancel them; blocks until they are done."""
        with self._changed:
            self._closing = True
            if not drain:
                for ticket in (*self._queue, self._running):
                    if ticket is not None:
                        ticket.cancel()
            self._changed.notify_all()
        self._thread.join()

    def metrics(self) -> dict[str, Any]:
        """A snapshot: requests running and queued, sums over all finished requests, memory in bytes."""
        with self._changed:
            return {
                "running": int(self._running is not None),
                "queued": len(self._queue),
                **asdict(self._totals),
                "memory_bytes": mx.get_active_memory(),
                "peak_memory_bytes": mx.get_peak_memory(),
            }

    def _check(self, request: EngineRequest) -> None:
        context = self.model.args.context_length
        if not request.prompt:
            raise RequestError("the prompt is empty")
        if len(request.prompt) >= context:
            raise TooLarge(f"the prompt has {len(request.prompt)} tokens, but the model's context is {context}")
        if request.mode not in MODES:
            raise RequestError(f"mode must be one of {', '.join(MODES)}, not {request.mode!r}")
        if request.mode == "diffusion" and self.model.args.block_size is None:
            raise RequestError("mode: this model has no diffusion view; use 'ar' or 'auto'")

    # The engine's thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                ticket = self._running = self._queue.popleft()
            self._run(ticket)

    def _run(self, ticket: Ticket) -> None:
        last = Event(NO_TOKEN, finish_reason=CANCELLED)
        try:
            last = self._answer(ticket)
        except _Cancelled:
            pass
        except BaseException as error:
            # A panic in a Rust library (the grammar's) is no Exception, and must not end this thread either.
            log.exception("a request failed")
            ticket.error = error
            last = Event(NO_TOKEN, finish_reason=ERROR)
        finally:
            with self._changed:
                self._totals.add(ticket.usage, cast(str, last.finish_reason))
                self._running = None
                self._changed.notify_all()
            ticket.put(last)

    def _answer(self, ticket: Ticket) -> Event:
        """Emit all events but the last, which is returned."""
        request, stats = ticket.request, DecodeStats()
        ends = copy.copy(self._tokenizer)
        ends.eos_token_ids = request.stop_tokens

        def progress(read: int, total: int) -> None:
            ticket.progress = read, total
            if ticket.cancelled:
                raise _Cancelled

        progress(0, len(request.prompt))
        responses = stream_generate(
            self.model,
            ends,
            list(request.prompt),
            request.max_tokens,
            mode=request.mode,
            block_size=request.block_size,
            logits_processors=request.logits_processors,
            constraint=request.constraint() if request.constraint else None,
            prefill_step_size=self._step_size,
            prompt_progress_callback=progress,
            stats=stats,
            **asdict(request.sampling),
        )
        with closing(responses):
            for response in responses:
                _count(ticket.usage, stats, stats.tokens / response.generation_tps)
                event = _event(response, request.logprobs)
                if event.finish_reason is not None:
                    return event
                if ticket.cancelled:
                    raise _Cancelled
                ticket.put(event)
        raise AssertionError("a generation ends with a finish reason")


class _Cancelled(Exception):
    pass


def _count(usage: Usage, stats: DecodeStats, seconds: float) -> None:
    usage.completion_tokens, usage.cycles, usage.seconds = stats.tokens, stats.cycles, seconds
    usage.drafted, usage.accepted = stats.drafted, stats.accepted
    usage.drafted_at, usage.accepted_at = tuple(stats.drafted_at), tuple(stats.accepted_at)
    usage.exactness = stats.exactness


def _event(response: GenerationResponse, top: int) -> Event:
    event = Event(response.token, response.from_draft, finish_reason=response.finish_reason)
    if not top:
        return event
    logprobs = np.array(response.logprobs.astype(mx.float32))
    best = np.argsort(-logprobs, kind="stable")[:top]
    listed = tuple((int(token), float(logprobs[token])) for token in best)
    return Event(event.token, event.from_draft, float(logprobs[event.token]), listed, event.finish_reason)


def submit_all(engine: Engine, requests: Sequence[EngineRequest]) -> list[Ticket]:
    """Submit all or none. Raises as `Engine.submit`, and TooLarge where they could never be taken together."""
    if len(requests) > engine.max_requests:
        raise TooLarge(f"n: {len(requests)} answers at once are more than the {engine.max_requests} that fit here")
    tickets: list[Ticket] = []
    try:
        for request in requests:
            tickets.append(engine.submit(request))
    except BaseException:
        for ticket in tickets:
            ticket.cancel()
        raise
    return tickets
