"""POST /v1/chat/completions."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from ..errors import RequestError
from .answer import Piece
from .connection import Events, keepalive, sse
from .engine import CONTEXT, LENGTH
from .errors import HttpError
from .grammar import ANY_JSON_OBJECT, GrammarText, choice, json_schema, regex
from .openai_bodies import (
    ChatBody,
    ChatMessage,
    ChoiceFormat,
    ChosenTool,
    JsonObjectFormat,
    JsonSchemaFormat,
    RegexFormat,
    ResponseFormat,
    SamplingBody,
)
from .run import Run
from .service import Plan, Service, Tools
from .split import CONTENT, REASONING, TOOL


def plan(service: Service, body: ChatBody) -> Plan:
    """Raises RequestError or HttpError where the request cannot be honoured."""
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise RequestError("max_tokens: differs from max_completion_tokens; give one of them")
    tools = _tools(body)
    prompt = service.chat_prompt([template_message(m) for m in body.messages], body.chat_template_kwargs, tools)
    return service.plan(
        [prompt],
        max_tokens=body.max_completion_tokens or body.max_tokens,
        tools=tools,
        stream=bool(body.stream),
        logprobs=max(1, body.top_logprobs or 0) if body.logprobs else 0,
        **shared_options(service, body),
    )


def shared_options(service: Service, body: SamplingBody) -> dict[str, Any]:
    """What both of OpenAI's bodies say, as keywords of `Service.plan`."""
    sampling = body.model_dump(include={"temperature", "top_p", "top_k", "min_p", "xtc_probability", "xtc_threshold"})
    if body.xtc_probability:
        sampling["xtc_special_tokens"] = service.xtc_special_tokens()
    penalties = ("repetition", "presence", "frequency")
    names = {"logit_bias", *(f"{p}_{what}" for p in penalties for what in ("penalty", "context_size"))}
    stop = body.stop
    return {
        "sampling": sampling,
        "seed": body.seed,
        "processors": body.model_dump(include=names),
        "choices": body.n or 1,
        "stops": [stop] if isinstance(stop, str) else stop or (),
        "grammar": grammar_of(body.response_format),
        "mode": body.mode,
        "block_size": body.block_size,
    }


def grammar_of(wanted: ResponseFormat | None) -> GrammarText | None:
    """The grammar of a `response_format`; None for text."""
    match wanted:
        case JsonObjectFormat():
            return json_schema(ANY_JSON_OBJECT)
        case JsonSchemaFormat():
            return json_schema(wanted.json_schema.schema_)
        case RegexFormat():
            return regex(wanted.regex)
        case ChoiceFormat():
            return choice(wanted.choices)
    return None


def template_message(message: ChatMessage) -> dict[str, Any]:
    """A message as chat templates expect it: text content, arguments as an object."""
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    role = "system" if message.role == "developer" else message.role
    known: dict[str, Any] = {"role": role, "content": content or ""}
    known |= message.model_dump(include={"name", "tool_call_id", "reasoning_content"}, exclude_none=True)
    if message.tool_calls:
        known["tool_calls"] = [template_call(c.id, c.function.name, c.function.arguments) for c in message.tool_calls]
    return known


def template_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """A tool call of an earlier turn for the template."""
    try:
        parsed: Any = json.loads(arguments or "{}")
    except ValueError:
        parsed = arguments
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": parsed}}


def _tools(body: ChatBody) -> Tools:
    if not body.tools:
        if body.tool_choice not in (None, "none", "auto"):
            raise HttpError(400, "tool_choice: needs tools", param="tool_choice")
        return Tools()
    definitions = [tool.model_dump(exclude_none=True) for tool in body.tools]
    names = [tool.function.name for tool in body.tools]
    wanted = body.tool_choice
    name = wanted.function.name if isinstance(wanted, ChosenTool) else None
    return choose_tools(definitions, names, wanted, name=name, one=body.parallel_tool_calls is False)


def choose_tools(
    definitions: list[dict[str, Any]], names: list[str], wanted: Any, *, name: str | None, one: bool
) -> Tools:
    """`Tools` for OpenAI's word about them: "none", "auto", "required", or the function called `name`."""
    if len(set(names)) < len(names):
        raise HttpError(400, "tools: two functions have the same name", param="tools")
    if wanted == "none":
        return Tools()
    if name is not None:
        if name not in names:
            raise HttpError(400, f"tool_choice: there is no tool {name!r}", param="tool_choice")
        return Tools(definitions, (name,), one=True)
    return Tools(definitions, names if wanted == "required" else (), one=one)


# The reply ------------------------------------------------------------------------------------------


class ChatReply:
    """One reply's words in OpenAI's shape."""

    def __init__(self, service: Service, body: ChatBody, name: str, run: Run):
        self._vocabulary, self._run, self._body = service.vocabulary, run, body
        self._id, self._created, self._name = f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), name
        self._called = [-1] * len(run.choices)

    async def whole(self) -> dict[str, Any]:
        """The reply in one piece."""
        messages: list[dict[str, Any]] = [{"role": "assistant", "content": None} for _ in self._run.choices]
        listed: list[list[Any]] = [[] for _ in self._run.choices]
        async for index, piece in self._run.pieces():
            message = messages[index]
            if piece.call is not None:
                message.setdefault("tool_calls", []).append(_call(piece))
            elif piece.kind == TOOL:
                message["tool_calls"][-1]["function"]["arguments"] += piece.text
            else:
                field = "content" if piece.kind == CONTENT else "reasoning_content"
                message[field] = (message.get(field) or "") + piece.text
            listed[index] += self._listed(piece)
        for message in messages:
            if message["content"] is None and "tool_calls" not in message:
                message["content"] = ""
        choices = [
            {
                "index": i,
                "message": message,
                "logprobs": {"content": listed[i], "refusal": None} if self._body.logprobs else None,
                "finish_reason": self._finish_reason(i),
            }
            for i, message in enumerate(messages)
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": usage(self._run)}

    async def events(self) -> Events:
        """The reply as server-sent events."""
        with_usage = self._body.stream_options is not None and self._body.stream_options.include_usage
        for i in range(len(self._run.choices)):
            yield self._chunk(i, {"role": "assistant", "content": ""})
        async for batch in self._run.batches():
            if batch is None:
                yield keepalive(self._run)
                continue
            told = [self._chunk(index, self._delta(index, piece), piece) for index, piece in batch.pieces]
            told += [self._chunk(i, {}, reason=self._finish_reason(i)) for i in batch.ended]
            yield b"".join(told)
        if with_usage:
            yield sse({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(self._run)})
        yield b"data: [DONE]\n\n"

    def _finish_reason(self, index: int) -> str | None:
        return finish_reason(self._run.choices[index].answer.finish_reason)

    def _delta(self, index: int, piece: Piece) -> dict[str, Any]:
        if piece.call is not None:
            self._called[index] += 1
            return {"tool_calls": [{"index": self._called[index], **_call(piece)}]}
        if piece.kind == TOOL:
            return {"tool_calls": [{"index": self._called[index], "function": {"arguments": piece.text}}]}
        return {"reasoning_content" if piece.kind == REASONING else "content": piece.text}

    def _chunk(self, index: int, delta: dict[str, Any], piece: Piece | None = None, reason: str | None = None) -> bytes:
        choice: dict[str, Any] = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        if piece is not None:
            choice |= {"tokens": len(piece.events), "drafted": piece.drafted}
            if listed := self._listed(piece):
                choice["logprobs"] = {"content": listed, "refusal": None}
        return sse({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._name}

    def _listed(self, piece: Piece) -> list[dict[str, Any]]:
        if not self._body.logprobs or piece.kind != CONTENT:
            return []
        return [self._vocabulary.entry(event, self._body.top_logprobs or 0) for event in piece.events]


def _call(piece: Piece) -> dict[str, Any]:
    call = piece.call
    assert call is not None
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": piece.text}}


def finish_reason(reason: str | None) -> str | None:
    """OpenAI knows no end of the context: it is a length, too."""
    return LENGTH if reason == CONTEXT else reason


def usage(run: Run) -> dict[str, Any]:
    """OpenAI's counts, and under `decoding` what block decoding did."""
    return {
        "prompt_tokens": run.prompt_tokens,
        "completion_tokens": run.completion_tokens,
        "total_tokens": run.prompt_tokens + run.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": run.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": run.reasoning_tokens},
        "decoding": run.decoding(),
    }
