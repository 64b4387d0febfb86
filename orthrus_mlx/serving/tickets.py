"""What the HTTP side and the engine say to each other: requests, tickets that carry their events, and counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..decoding.constraint import Constraint
from ..errors import OrthrusError, RequestError
from ..sampling import LogitsProcessor, Sampling

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

    def ready(self) -> list[Event]:
        """The events that have come already."""
        events = []
        while not self._ended and not self._events.empty():
            events.append(self._events.get_nowait())
            self._ended = events[-1].finish_reason is not None
        return events

    def cancel(self) -> None:
        """Give the request up: the engine drops it at the next cycle. Harmless once it has ended."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def put(self, *events: Event) -> None:
        """The engine's side: hand events over, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._deliver, events)
        except RuntimeError:
            # The loop is closed: nobody can be waiting any more.
            self.cancel()

    def fail(self, error: BaseException) -> None:
        """The engine's side: end with an error."""
        self.error = error
        self.put(Event(NO_TOKEN, finish_reason=ERROR))

    def _deliver(self, events: Sequence[Event]) -> None:
        for event in events:
            self._events.put_nowait(event)


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
