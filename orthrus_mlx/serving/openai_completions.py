"""POST /v1/completions: a prompt's continuation, without chat template, thoughts or tools."""

from __future__ import annotations

import secrets
import time
from typing import Any

from .answer import Piece
from .connection import Events, keepalive, sse
from .engine import Event
from .errors import HttpError
from .openai_bodies import CompletionBody
from .openai_chat import finish_reason, shared_options, usage
from .run import Run
from .service import Plan, Prompt, Service
from .vocabulary import possible

MAX_PROMPTS = 64


def plan(service: Service, body: CompletionBody) -> Plan:
    """Raises RequestError or HttpError where the request cannot be honoured."""
    return service.plan(
        _prompts(service, body),
        max_tokens=body.max_tokens,
        chat=False,
        logprobs=0 if body.logprobs is None else max(1, body.logprobs),
        **shared_options(service, body),
    )


def _prompts(service: Service, body: CompletionBody) -> list[Prompt]:
    given: Any = body.prompt
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        given = [given]
    if not given or len(given) > MAX_PROMPTS:
        raise HttpError(400, f"prompt: expected 1 to {MAX_PROMPTS} prompts, not {len(given)}", param="prompt")
    return [Prompt(_tokens(service, one)) for one in given]


def _tokens(service: Service, prompt: str | list[int]) -> tuple[int, ...]:
    encoded = service.encode(prompt, special=True) if isinstance(prompt, str) else tuple(prompt)
    tokens = service.check_length(encoded)
    if not tokens:
        raise HttpError(400, "prompt: empty", param="prompt")
    beyond = [token for token in tokens if token >= service.args.vocab_size]
    if beyond:
        raise HttpError(400, f"prompt: token {beyond[0]} is not in the vocabulary", param="prompt")
    return tokens


class CompletionReply:
    """One reply's words in OpenAI's shape."""

    def __init__(self, service: Service, body: CompletionBody, name: str, run: Run):
        self._vocabulary, self._run, self._body = service.vocabulary, run, body
        self._id, self._created, self._name = f"cmpl-{secrets.token_hex(12)}", int(time.time()), name
        self._shown = [0] * len(run.choices)

    async def whole(self) -> dict[str, Any]:
        """The reply in one piece."""
        texts = [""] * len(self._run.choices)
        listed: list[list[Piece]] = [[] for _ in texts]
        async for index, piece in self._run.pieces():
            texts[index] += piece.text
            listed[index].append(piece)
        choices = [self._choice(i, text, listed[i], self._finish_reason(i)) for i, text in enumerate(texts)]
        return {**self._head(), "choices": choices, "usage": usage(self._run)}

    async def events(self) -> Events:
        """The reply as server-sent events."""
        async for batch in self._run.batches():
            if batch is None:
                yield keepalive(self._run)
                continue
            told = [self._chunk(index, piece) for index, piece in batch.pieces]
            ends = [self._choice(i, "", [], self._finish_reason(i)) for i in batch.ended]
            yield b"".join([*told, *(sse({**self._head(), "choices": [end]}) for end in ends)])
        if self._body.stream_options is not None and self._body.stream_options.include_usage:
            yield sse({**self._head(), "choices": [], "usage": usage(self._run)})
        yield b"data: [DONE]\n\n"

    def _chunk(self, index: int, piece: Piece) -> bytes:
        choice = self._choice(index, piece.text, [piece], None)
        return sse({**self._head(), "choices": [{**choice, "tokens": len(piece.events), "drafted": piece.drafted}]})

    def _finish_reason(self, index: int) -> str | None:
        return finish_reason(self._run.choices[index].answer.finish_reason)

    def _head(self) -> dict[str, Any]:
        return {"id": self._id, "object": "text_completion", "created": self._created, "model": self._name}

    def _choice(self, index: int, text: str, pieces: list[Piece], reason: str | None) -> dict[str, Any]:
        logprobs = None if self._body.logprobs is None else self._listed(index, pieces)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _listed(self, index: int, pieces: list[Piece]) -> dict[str, Any]:
        offsets: list[int] = []
        events: list[Event] = []
        for piece in pieces:
            # A piece's tokens share its place: text held back has no narrower one.
            offsets += [self._shown[index]] * len(piece.events)
            events += piece.events
            self._shown[index] += len(piece.text)
        name, most = self._vocabulary.text, self._body.logprobs or 0
        return {
            "tokens": [name(event.token) for event in events],
            "token_logprobs": [event.logprob for event in events],
            "top_logprobs": [{name(token): value for token, value in possible(event)[:most]} for event in events],
            "text_offset": offsets,
        }
