"""Running a plan: its tickets' events, merged, as pieces; cancelled on the way out whatever happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from .answer import Answer, Piece
from .engine import CANCELLED, ERROR, Event, Ticket, submit_all
from .errors import HttpError, as_http_error
from .service import Plan, Service


@dataclass
class Choice:
    """One answer under way."""

    ticket: Ticket
    answer: Answer


@dataclass
class Batch:
    """(choice, piece) in order, and the choices that ended behind their pieces."""

    pieces: list[tuple[int, Piece]]
    ended: list[int]


class Run:
    """The choices of one request.

    Args:
        service: the model and its limits.
        plan: what to run.
        deadline: when its time is up, of `time.monotonic`.

    Raises:
        Busy, RequestError: as `Engine.submit`.
    """

    def __init__(self, service: Service, plan: Plan, deadline: float):
        self._limits, self.deadline = service.limits, deadline
        self.started = time.monotonic()
        self.first_token: float | None = None
        self.seed, self._per_prompt = plan.seed, plan.choices
        tickets = submit_all(service.engine, plan.requests)
        self.choices = [Choice(ticket, plan.make_answer()) for ticket in tickets]

    @property
    def progress(self) -> tuple[int, int]:
        """Prompt tokens read, of all, over all choices."""
        read, total = zip(*(choice.ticket.progress for choice in self.choices), strict=True)
        return sum(read), sum(total)

    async def batches(self) -> AsyncGenerator[Batch | None]:
        """What comes together, together; None after every `Limits.keepalive` seconds of silence.

        Raises:
            HttpError: the engine failed on it or is closing, or its time is up.
        """
        waiting = {asyncio.ensure_future(anext(c.ticket)): i for i, c in enumerate(self.choices)}
        # A tool call is held back until it is complete: events alone are no sign of life to the client.
        last = time.monotonic()
        try:
            while waiting:
                left = max(0, self.deadline - time.monotonic())
                patience = min(left, self._limits.keepalive)
                done, _ = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not left:
                    raise HttpError(504, f"the request took more than {self._limits.seconds:g} seconds")
                batch = Batch([], [])
                for future in done:
                    index = waiting.pop(future)
                    choice = self.choices[index]
                    for event in (future.result(), *choice.ticket.ready()):
                        if choice.answer.finish_reason is None:
                            fed = choice.answer.feed(self._checked(choice.ticket, event))
                            batch.pieces.extend((index, piece) for piece in fed)
                    if choice.answer.finish_reason is None:
                        waiting[asyncio.ensure_future(anext(choice.ticket))] = index
                    else:
                        choice.ticket.cancel()
                        batch.ended.append(index)
                if batch.pieces or batch.ended:
                    last = time.monotonic()
                    yield batch
                elif time.monotonic() - last >= self._limits.keepalive:
                    last = time.monotonic()
                    yield None
        finally:
            for future in waiting:
                future.cancel()
            self.close()

    async def pieces(self) -> AsyncGenerator[tuple[int, Piece]]:
        """(choice, piece), one after the other. Raises as `batches`."""
        async with aclosing(self.batches()) as batches:
            async for batch in batches:
                for step in batch.pieces if batch else ():
                    yield step

    def close(self) -> None:
        """Give up what is not finished."""
        for choice in self.choices:
            choice.ticket.cancel()

    def _checked(self, ticket: Ticket, event: Event) -> Event:
        if event.finish_reason == ERROR:
            raise as_http_error(ticket.error or RuntimeError("unknown"))
        if event.finish_reason == CANCELLED:
            raise HttpError(503, "the server is shutting down", headers={"Retry-After": "5"})
        if self.first_token is None:
            self.first_token = time.monotonic()
        return event

    def decoding(self) -> dict[str, Any]:
        """How the answers were decoded: for the `usage` of every protocol."""
        usages = [choice.ticket.usage for choice in self.choices]
        tokens, cycles = sum(c.answer.tokens for c in self.choices), sum(u.cycles for u in usages)
        return {
            "mode": self.choices[0].ticket.request.mode,
            "exactness": usages[0].exactness,
            "seed": self.seed,
            "cycles": cycles,
            "drafted": sum(u.drafted for u in usages),
            "accepted": sum(u.accepted for u in usages),
            "tokens_per_cycle": round(tokens / cycles, 3) if cycles else 0.0,
            "seconds": round(sum(u.seconds for u in usages), 6),
            "drafted_at": _sums([u.drafted_at for u in usages]),
            "accepted_at": _sums([u.accepted_at for u in usages]),
        }

    @property
    def prompt_tokens(self) -> int:
        """Each prompt counts once, however many choices answer it."""
        return sum(choice.ticket.usage.prompt_tokens for choice in self.choices[:: self._per_prompt])

    @property
    def cached_tokens(self) -> int:
        return sum(choice.ticket.usage.cached_tokens for choice in self.choices[:: self._per_prompt])

    @property
    def completion_tokens(self) -> int:
        return sum(choice.answer.tokens for choice in self.choices)

    @property
    def reasoning_tokens(self) -> int:
        return sum(choice.answer.reasoning_tokens for choice in self.choices)


def _sums(lists: list[tuple[int, ...]]) -> list[int]:
    longest = max(map(len, lists))
    return [sum(counts[i] for counts in lists if i < len(counts)) for i in range(longest)]
