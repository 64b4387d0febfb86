"""Many requests, one model: what each of them asks for is put together into passes and reads.

Each tick reads a piece of a prompt, then runs every pass that is wanted, the rows of several requests together, then
waits once for every value that is wanted. Nothing is padded to a common size, and requests come and go between any
two ticks. By rule B a request's rows have the bits they have alone, so what shares its passes never shows in its
tokens.

A fault stays where it arises: in a request's own code it ends that request, in a pass the requests of that pass. A
panic in a Rust library (the grammar's) is no `Exception`, and must not end the engine's thread either.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mlx.core as mx

from ..cache import KVCache
from ..config import MAX_BLOCK_SIZE
from ..decoding.alone import CLEAR_CACHE_EVERY
from ..decoding.loop import Read
from ..decoding.prefill import read_chunk, read_last_chunk
from ..exactness import Exactness
from ..model import Model
from ..passes import Block, run_pass
from ..weights import AR
from .job import Job
from .prefix_cache import PrefixCache
from .shared_rows import Load
from .tickets import CANCELLED, ERROR, NO_TOKEN, Event, Ticket

log = logging.getLogger(__name__)


class Scheduler:
    """Runs jobs. Belongs to the engine's thread.

    Args:
        exactness: what the probe showed: how target passes are padded.
        step_size: prompt tokens per pass and per tick; passes end at multiples of it, whatever was cached before.
        prefixes: keys and values of earlier texts; None keeps none.
        reuse_answers: whether rows computed while decoding may stand for rows of a prompt (see `PrefixCache`).
        ended: told of each ticket that has come to its last event, before the event is handed out.

    Attributes:
        jobs: under way, the oldest first.
        passes, rows: passes run and rows that they carried, prompts not counted.
    """

    def __init__(
        self,
        model: Model,
        exactness: Exactness,
        *,
        step_size: int,
        prefixes: PrefixCache | None,
        reuse_answers: bool,
        ended: Callable[[Ticket, Event], None],
    ):
        self._model, self._exactness = model, exactness
        self._step, self._prefixes, self._reuse_answers = step_size, prefixes, reuse_answers
        self._ended = ended
        self._load = Load()
        self._ticks = 0
        self._fresh: deque[Ticket] = deque()
        self.jobs: list[Job] = []
        self.passes = self.rows = 0

    @property
    def running(self) -> int:
        """Requests taken up and not ended."""
        return len(self._fresh) + len(self.jobs)

    def start(self, ticket: Ticket) -> None:
        """Take a request up, from the next tick on."""
        self._fresh.append(ticket)

    def tick(self) -> None:
        """Bring every job forward."""
        self._drop_cancelled()
        self._load.requests = self.running
        self._read_prompts()
        self._run_passes()
        self._read_values()
        self._ticks += 1
        if self._ticks % CLEAR_CACHE_EVERY == 0:
            mx.clear_cache()

    def fail_all(self, error: BaseException) -> None:
        """End every request with an error."""
        for ticket in [*self._fresh, *(job.ticket for job in self.jobs)]:
            self._fail(ticket, error)

    # Parts of a tick --------------------------------------------------------------------------------

    def _drop_cancelled(self) -> None:
        for job in list(self.jobs):
            if job.ticket.cancelled:
                self._finish(job, Event(NO_TOKEN, finish_reason=CANCELLED))
        for ticket in [ticket for ticket in self._fresh if ticket.cancelled]:
            self._fresh.remove(ticket)
            self._ended(ticket, Event(NO_TOKEN, finish_reason=CANCELLED))

    def _read_prompts(self) -> None:
        """Read about `step_size` tokens of prompts, the oldest request's first."""
        left = self._step
        reading = [job for job in self.jobs if not job.decoding]
        while left > 0 and (reading or self._fresh):
            ticket = reading[0].ticket if reading else self._fresh.popleft()
            try:
                job = reading.pop(0) if reading else self._open(ticket)
                left -= self._read_some(job, left)
            except BaseException as error:
                self._fail(ticket, error)

    def _open(self, ticket: Ticket) -> Job:
        prompt = ticket.request.prompt
        if self._prefixes is None:
            cache = KVCache(len(self._model.layers))
        else:
            cache = self._prefixes.open(prompt, len(prompt) - 1)
        job = Job(self._model, ticket, cache, self._exactness, self._load)
        self.jobs.append(job)
        return job

    def _read_some(self, job: Job, most: int) -> int:
        """Read a chunk of the job's prompt, and more while they have at most `most` tokens; returns how many.

        A chunk is read whole: how much else there is to read must not show in its length.
        """
        read, logits = 0, None
        while job.unread:
            start = job.cache.offset
            stop = min((start // self._step + 1) * self._step, start + job.unread)
            if read and read + stop - start > most:
                return read
            ids = mx.array(job.prompt[start : stop + 1], dtype=mx.int32)
            if stop < start + job.unread:
                read_chunk(self._model, ids[:-1], job.cache)
            else:
                logits = read_last_chunk(self._model, ids, job.cache, self._exactness)
            job.report_progress()
            self._load.interruptions += 1
            read += stop - start
        if self._prefixes is not None:
            self._prefixes.insert(job.known(), job.cache)
        self._go_on(job, job.begin, logits)
        return read

    def _run_passes(self) -> None:
        packs = packed([job for job in self.jobs if isinstance(job.wants, Block)], self._exactness)
        if len(packs) > 1 or any(len(pack) > 1 for pack in packs):
            self._load.interruptions += 1
        for pack in packs:
            blocks = [_block(job) for job in pack]
            try:
                logits = run_pass(self._model, blocks, self._exactness.rows)
            except BaseException as error:
                for job in pack:
                    self._fail(job.ticket, error)
                continue
            self.passes += 1
            self.rows += sum(block.tokens.size for block in blocks)
            for job, block, rows in zip(pack, blocks, logits, strict=True):
                job.stats.count_pass(block.view)
                self._go_on(job, job.advance, rows)

    def _read_values(self) -> None:
        waiting = [(job, job.wants.arrays) for job in self.jobs if isinstance(job.wants, Read)]
        try:
            mx.eval([arrays for _, arrays in waiting])
        except BaseException:
            # Whose it was shows below, one by one.
            log.exception("values could not be computed")
        for job, arrays in waiting:
            try:
                mx.eval(arrays)
                values = [array.tolist() for array in arrays]
            except BaseException as error:
                self._fail(job.ticket, error)
                continue
            self._go_on(job, job.advance, values)

    # Ends -------------------------------------------------------------------------------------------

    def _go_on(self, job: Job, step: Callable[..., None], *answer: Any) -> None:
        """Let the job take a step, and see to its end."""
        try:
            step(*answer)
        except BaseException as error:
            self._fail(job.ticket, error)
            return
        if job.last is not None:
            self._finish(job, job.last)

    def _finish(self, job: Job, last: Event) -> None:
        self.jobs.remove(job)
        job.close()
        if self._prefixes is not None and self._reuse_answers:
            try:
                self._prefixes.insert(job.known(), job.cache)
            except BaseException:
                log.exception("a prefix could not be kept")
        job.cache.release()
        self._ended(job.ticket, last)

    def _fail(self, ticket: Ticket, error: BaseException) -> None:
        """End a request with an error; what its cache holds is not trusted any more."""
        log.error("a request failed", exc_info=error)
        # The ticket may outlive the request for long, and a traceback holds every array in sight of it.
        error.__traceback__ = None
        for job in [job for job in self.jobs if job.ticket is ticket]:
            self.jobs.remove(job)
            job.close()
            job.cache.release()
        if ticket in self._fresh:
            self._fresh.remove(ticket)
        ticket.error = error
        self._ended(ticket, Event(NO_TOKEN, finish_reason=ERROR))


def packed(jobs: Iterable[Job], exactness: Exactness) -> list[list[Job]]:
    """The jobs' passes put together: each into the first pass that has room for its rows.

    A pass has at most `MAX_BLOCK_SIZE` rows, and with target rows in it no more than rule B allows.
    """
    packs: list[list[Job]] = []
    for job in jobs:
        for pack in packs:
            if _fits([_block(member) for member in (*pack, job)], exactness):
                pack.append(job)
                break
        else:
            packs.append([job])
    return packs


def _fits(blocks: Sequence[Block], exactness: Exactness) -> bool:
    most = exactness.most(MAX_BLOCK_SIZE) if any(block.view == AR for block in blocks) else MAX_BLOCK_SIZE
    return sum(block.tokens.size for block in blocks) <= most


def _block(job: Job) -> Block:
    assert isinstance(job.wants, Block)
    return job.wants
