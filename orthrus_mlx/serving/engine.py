"""The engine: a thread that owns the model and everything MLX, and answers the requests that are submitted to it.

MLX's streams belong to threads, so all arrays are made and used in the engine's thread alone. Requests come in
through a queue; a `Ticket` carries its events into the event loop that submitted it. What runs together is decided
by memory (`admission`), what shares passes by the `scheduler`, what need not be computed again by the `prefix_cache`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx_lm.generate import wired_limit

from ..decoding.model_policy import make_policy
from ..errors import RequestError
from ..exactness import exactness_of
from ..generation import block_rows, check_ids, checked_prompt
from ..model import Model
from .admission import Admission, Footprint, memory_limit
from .prefix_cache import PrefixCache
from .scheduler import Scheduler
from .spill import Spill, free_position, identity_of
from .tickets import (
    CANCELLED,
    CONTEXT,
    ERROR,
    LENGTH,
    NO_TOKEN,
    STOP,
    Busy,
    EngineRequest,
    Event,
    Ticket,
    TooLarge,
    Totals,
    Usage,
)

__all__ = [
    "CANCELLED",
    "CONTEXT",
    "ERROR",
    "LENGTH",
    "NO_TOKEN",
    "STOP",
    "Busy",
    "Capacity",
    "Engine",
    "EngineRequest",
    "Event",
    "Ticket",
    "TooLarge",
    "Usage",
    "submit_all",
]

log = logging.getLogger(__name__)

PREFIX_SHARE = 0.5
"""Share of the memory beside weights and scratch that cached prefixes may take, while no request needs it."""


@dataclass(frozen=True)
class Capacity:
    """What the engine may use.

    Attributes:
        requests: most requests in the house, running and queued.
        running: most requests that share passes.
        prefill_step_size: prompt tokens per pass. Between two of them all others take a step, and where passes are
            not row-exact at every length, prefixes are reused in multiples of it.
        memory: bytes for weights, scratch, caches and prefixes; None takes what the machine recommends.
        prefixes: bytes of cached prefixes in memory; None takes a share of what weights and scratch leave, 0 none.
        spill: folder for evicted prefixes; None drops them.
        spill_bytes: most bytes in that folder.
    """

    requests: int = 64
    running: int = 32
    prefill_step_size: int = 512
    memory: int | None = None
    prefixes: int | None = None
    spill: Path | None = None
    spill_bytes: int = 16 * 2**30


class Engine:
    """Answers requests, many at a time.

    Args:
        model: from `load`.
        capacity: limits.

    Raises:
        RequestError: the memory limit does not hold the model.
    """

    def __init__(self, model: Model, capacity: Capacity | None = None):
        self.model, self._capacity = model, capacity or Capacity()
        # In the caller's thread: what the model has not evaluated yet belongs to the thread that loaded it.
        self._exactness = exactness_of(model)
        # Here and not when the first request waits for it: passes may have to be timed.
        make_policy(model, "auto", block_rows(model, "auto", None), self._exactness, prompt=(), sampled=False)
        step = self._capacity.prefill_step_size
        limit = self._capacity.memory or memory_limit()
        self._admission = Admission(Footprint.of(model, step), limit)
        self._promises: dict[Ticket, int] = {}
        self._queue: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._totals = Totals()
        self._typical_seconds = 1.0
        self._running: dict[Ticket, float] = {}
        self._prefix_budget = int(PREFIX_SHARE * self._admission.room)
        if self._capacity.prefixes is not None:
            self._prefix_budget = self._capacity.prefixes
        if model.divided:
            if self._capacity.prefixes or self._capacity.spill is not None:
                raise RequestError("over several ranks prefixes are not kept: what they hold is on every rank")
            self._prefix_budget = 0
        self._prefixes = self._make_prefixes() if self._prefix_budget else None
        self._scheduler = Scheduler(
            model,
            self._exactness,
            step_size=step,
            prefixes=self._prefixes,
            reuse_answers=free_position(model, self._exactness),
            ended=self._ended,
        )
        self._thread = threading.Thread(target=self._work, name="orthrus-engine", daemon=True)
        self._thread.start()

    @property
    def exactness(self) -> str:
        """What the probe showed of the model's target passes."""
        return str(self._exactness)

    @property
    def max_requests(self) -> int:
        """Most requests in the house."""
        return self._capacity.requests

    def submit(self, request: EngineRequest) -> Ticket:
        """Queue a request. Call in a running event loop.

        Raises:
            Busy: too many requests are waiting, or the engine is closing.
            RequestError: the request asks for something impossible.
            TooLarge: it can never fit.
        """
        need = self._check(request)
        with self._changed:
            if self._closing:
                raise Busy("the server is shutting down", retry_after=5)
            if len(self._queue) + len(self._running) >= self._capacity.requests:
                raise Busy(
                    f"{self._capacity.requests} requests are running or waiting already; try again later",
                    retry_after=self._patience(),
                )
            ticket = Ticket(request)
            self._promises[ticket] = need
            self._queue.append(ticket)
            self._changed.notify_all()
            return ticket

    def close(self, drain: bool) -> None:
        """Take no more requests; finish those in the house (`drain`) or cancel them; blocks until they are done."""
        with self._changed:
            self._closing = True
            if not drain:
                for ticket in (*self._queue, *self._running):
                    ticket.cancel()
            self._changed.notify_all()
        self._thread.join()

    def metrics(self) -> dict[str, Any]:
        """A snapshot: requests running and queued, sums over all finished requests, memory in bytes, passes."""
        prefixes = self._prefixes
        with self._changed:
            return {
                "running": len(self._running),
                "queued": len(self._queue),
                **asdict(self._totals),
                "passes": self._scheduler.passes,
                "pass_rows": self._scheduler.rows,
                "memory_bytes": mx.get_active_memory(),
                "peak_memory_bytes": mx.get_peak_memory(),
                "memory_limit_bytes": self._admission.limit,
                "promised_bytes": self._admission.promised,
                "prefix_bytes": prefixes.nbytes if prefixes else 0,
                "prefix_disk_bytes": prefixes.disk_bytes if prefixes else 0,
            }

    def _make_prefixes(self) -> PrefixCache:
        capacity, spill = self._capacity, None
        if capacity.spill is not None:
            identity = identity_of(self.model, self._exactness, capacity.prefill_step_size)
            spill = Spill(capacity.spill, capacity.spill_bytes, identity)
        return PrefixCache(
            len(self.model.layers),
            self._prefix_budget,
            step_size=capacity.prefill_step_size,
            any_position=free_position(self.model, self._exactness),
            spill=spill,
        )

    def _check(self, request: EngineRequest) -> int:
        """Bytes that the request may need. Raises RequestError, TooLarge."""
        args = self.model.args
        checked_prompt(request.prompt, args.vocab_size)
        check_ids("xtc_special_tokens", request.sampling.xtc_special_tokens, args.vocab_size)
        block_rows(self.model, request.mode, request.block_size)
        if request.max_tokens < 1:
            raise RequestError(f"max_tokens must be at least 1, not {request.max_tokens}")
        room = args.context_length - len(request.prompt)
        if room < 1:
            raise TooLarge(
                f"the prompt has {len(request.prompt)} tokens, but the model's context is {args.context_length}"
            )
        return self._admission.need(len(request.prompt) + min(request.max_tokens, room))

    def _patience(self) -> int:
        """Seconds after which one more request may find a place."""
        turns = max(len(self._queue), 1) / max(len(self._running), 1)
        return min(max(math.ceil(turns * self._typical_seconds), 1), 60)

    # The engine's thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        with wired_limit(self.model):
            while self._take():
                try:
                    self._scheduler.tick()
                except BaseException as error:
                    log.exception("the engine failed")
                    self._scheduler.fail_all(error)
            if self._prefixes is not None:
                self._prefixes.close()

    def _take(self) -> bool:
        """Start the requests that there is room for, first come first served; False when all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._running or self._closing)
            dropped = [ticket for ticket in self._queue if ticket.cancelled]
            for ticket in dropped:
                self._queue.remove(ticket)
            started = []
            while self._queue and len(self._running) < self._capacity.running:
                ticket = self._queue[0]
                if not self._admission.promise(self._promises[ticket]):
                    break
                started.append(self._queue.popleft())
                self._running[ticket] = time.monotonic()
            going = bool(self._queue or self._running or not self._closing)
        for ticket in dropped:
            self._forget(ticket, Event(NO_TOKEN, finish_reason=CANCELLED))
        if started and self._prefixes is not None:
            self._fit_prefixes()
        for ticket in started:
            self._scheduler.start(ticket)
        return going

    def _ended(self, ticket: Ticket, last: Event) -> None:
        self._admission.give_back(self._promises[ticket])
        if self._prefixes is not None:
            self._fit_prefixes()
        self._forget(ticket, last)

    def _fit_prefixes(self) -> None:
        """Prefixes live in what no running request is promised."""
        assert self._prefixes is not None
        self._prefixes.limit = min(self._prefix_budget, self._admission.free)
        self._prefixes.shrink(self._prefixes.limit)

    def _forget(self, ticket: Ticket, last: Event) -> None:
        with self._changed:
            del self._promises[ticket]
            started = self._running.pop(ticket, None)
            if started is not None:
                self._typical_seconds += 0.1 * (time.monotonic() - started - self._typical_seconds)
            self._totals.add(ticket.usage, cast(str, last.finish_reason))
        ticket.put(last)


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
