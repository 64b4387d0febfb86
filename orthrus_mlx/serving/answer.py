"""From an engine's events to what a client is told: content, thoughts, tool calls, and why it ended."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from ..stop_strings import StopStrings
from .call_stream import CallStream
from .engine import STOP, Event
from .split import CONTENT, REASONING, TOOL, Exits, Splitter

TOOL_CALLS = "tool_calls"


@dataclass(frozen=True)
class Call:
    """A tool call, without its arguments."""

    id: str
    name: str


@dataclass(frozen=True)
class Piece:
    """Something to show.

    Attributes:
        kind: "content", "reasoning" or "tool".
        text: of a tool call, a part of its arguments, which are JSON.
        call: on the first piece of a tool call.
        events: the tokens whose text ends here.
    """

    kind: str
    text: str
    call: Call | None = None
    events: tuple[Event, ...] = ()

    @property
    def drafted(self) -> int:
        """How many of the tokens the diffusion view drafted."""
        return sum(event.from_draft for event in self.events)


ParseCall = Callable[[str], Any]
"""mlx-lm's tool parser: text between the markers -> {"name", "arguments"}, or a list of them."""


class Answer:
    """Reads one answer's events.

    Args:
        tokenizer: an mlx-lm `TokenizerWrapper`.
        stop_tokens: ids that are no text.
        stops: strings that end the content; looked for in the content alone.
        markers: what separates thoughts and tool calls from the content.
        in_thought: whether the answer begins inside a thought.
        tool_markers, parse_call: the markers of a tool call and their parser, where tools were offered.
        one_call: end behind the first tool call.
        follow_calls: makes what follows the arguments of a call while they are written; without it a call comes whole,
            and one that cannot be parsed as text.

    Attributes:
        finish_reason: None until the answer has ended, then "stop", "length", "context" or "tool_calls".
        stop_string: the stop string that ended it, if one did.
        tokens, reasoning_tokens: tokens read, and those of them inside a thought.
        calls: tool calls so far.
    """

    def __init__(
        self,
        tokenizer: Any,
        stop_tokens: Collection[int],
        *,
        stops: tuple[str, ...] = (),
        markers: Exits,
        in_thought: bool = False,
        tool_markers: tuple[str, str] | None = None,
        parse_call: ParseCall | None = None,
        one_call: bool = False,
        follow_calls: Callable[[], CallStream] | None = None,
    ):
        self._detokenizer = tokenizer.detokenizer
        self._stop_tokens = frozenset(stop_tokens)
        self._stops = StopStrings(stops)
        self._splitter = Splitter(markers, REASONING if in_thought else CONTENT)
        self._tool_markers, self._parse_call, self._one_call = tool_markers, parse_call, one_call
        self._follow_calls = follow_calls or (lambda: CallStream(()))
        self._call: CallStream | None = None
        self._pending: list[Event] = []
        self._fresh = {CONTENT: True, REASONING: True}
        self.finish_reason: str | None = None
        self.tokens = self.reasoning_tokens = 0
        self.calls: list[Call] = []

    @property
    def stop_string(self) -> str | None:
        return self._stops.found

    def feed(self, event: Event) -> list[Piece]:
        """What the event completes. Nothing more may be fed once `finish_reason` is set."""
        if event.token >= 0:
            self.tokens += 1
            self.reasoning_tokens += self._splitter.kind == REASONING
            if event.token not in self._stop_tokens:
                self._detokenizer.add_token(event.token)
                self._pending.append(event)
        ended = event.finish_reason is not None
        if ended:
            self._detokenizer.finalize()
        found = self._splitter.feed(self._detokenizer.last_segment)
        if ended:
            found += self._splitter.flush()
        pieces: list[Piece] = []
        for kind, text in found:
            pieces += self._piece(kind, text)
            if self.finish_reason:
                return pieces
        if ended:
            pieces += self._rest()
            self.finish_reason = event.finish_reason
            if self.finish_reason == STOP and self.calls:
                self.finish_reason = TOOL_CALLS
        return pieces

    def _piece(self, kind: str, text: str) -> list[Piece]:
        # No stop string goes on behind something else: what is held back for one comes before that.
        pieces = [] if kind == CONTENT else self._shown(self._stops.flush())
        if kind == TOOL:
            return pieces + self._call_grown(text)
        if self._call is not None:
            pieces += self._closed_call()
        if self.finish_reason or not text:
            return pieces
        # Templates put line breaks around thoughts and calls: they are no part of what is said there.
        if self._fresh[kind] and (kind == REASONING or not self._fresh[REASONING] or self.calls):
            text = text.lstrip("\n")
        if not text:
            return pieces
        self._fresh[kind] = False
        if kind == REASONING:
            return [*pieces, Piece(REASONING, text, events=self._taken())]
        return pieces + self._content(text)

    def _content(self, text: str) -> list[Piece]:
        shown = self._stops.feed(text)
        if self._stops.found is not None:
            self.finish_reason = STOP
        return self._shown(shown)

    def _shown(self, text: str) -> list[Piece]:
        return [Piece(CONTENT, text, events=self._taken())] if text else []

    def _taken(self) -> tuple[Event, ...]:
        events, self._pending = tuple(self._pending), []
        return events

    def _call_grown(self, text: str) -> list[Piece]:
        if self._call is None:
            self._call = self._follow_calls()
        known = self._call.name
        arguments = self._call.feed(text)
        if self._call.name is None or (known and not arguments):
            return []
        call = None if known else self._new_call(self._call.name)
        return [Piece(TOOL, arguments, call, self._taken())]

    def _new_call(self, name: str) -> Call:
        call = Call(f"call_{secrets.token_hex(12)}", name)
        self.calls.append(call)
        return call

    def _closed_call(self) -> list[Piece]:
        assert self._call is not None
        call, self._call = self._call, None
        pieces: list[Piece] = []
        if call.name is None:
            found = self._parsed(call.text)
            if found is None:
                # The model's mistake is shown as it stands, not swallowed.
                opening, closing = self._tool_markers or ("", "")
                return self._content(f"{opening}{call.text}{closing}")
            for name, arguments in found[:1] if self._one_call else found:
                pieces.append(Piece(TOOL, arguments, self._new_call(name), self._taken()))
        self._fresh[CONTENT] = True
        if self._one_call:
            self.finish_reason = TOOL_CALLS
        return pieces

    def _rest(self) -> list[Piece]:
        """What an answer that ended in the middle of something leaves."""
        pieces: list[Piece] = []
        if self._call is not None and self._call.name is None:
            opening = (self._tool_markers or ("", ""))[0]
            pieces = self._content(f"{opening}{self._call.text}")
        return pieces if self._stops.found is not None else pieces + self._shown(self._stops.flush())

    def _parsed(self, text: str) -> list[tuple[str, str]] | None:
        """(name, arguments as JSON) of each call in the text; None where there is something else."""
        try:
            parsed: Any = self._parse_call(text) if self._parse_call else None
            return [_checked(item) for item in (parsed if isinstance(parsed, list) else [parsed])]
        except Exception:
            # Parsers are mlx-lm's, one per model family, and raise whatever a malformed call makes them meet.
            return None


def _checked(parsed: dict[str, Any]) -> tuple[str, str]:
    name, arguments = parsed["name"], parsed.get("arguments", {})
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ValueError("not a call")
    return name, json.dumps(arguments, ensure_ascii=False)
