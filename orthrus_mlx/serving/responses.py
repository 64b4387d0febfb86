"""POST /v1/responses."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any

from .answer import Piece
from .connection import Events, keepalive, sse
from .engine import CONTEXT, LENGTH
from .errors import HttpError
from .grammar import GrammarText, json_schema
from .openai_chat import choose_tools, grammar_of, template_call
from .responses_bodies import (
    ChosenTool,
    FunctionCallItem,
    FunctionOutputItem,
    InputMessage,
    ReasoningItem,
    ResponsesBody,
    ResponsesSchemaFormat,
)
from .run import Run
from .service import Plan, Service, Tools
from .split import REASONING, TOOL

_LOGPROBS = "message.output_text.logprobs"


def plan(service: Service, body: ResponsesBody) -> Plan:
    """Raises RequestError or HttpError where the request cannot be honoured."""
    if body.top_logprobs and _LOGPROBS not in (body.include or ()):
        raise HttpError(400, f"top_logprobs: needs include: [{_LOGPROBS!r}]", param="top_logprobs")
    tools = _tools(body)
    prompt = service.chat_prompt(_messages(body), body.chat_template_kwargs, tools)
    return service.plan(
        [prompt],
        max_tokens=body.max_output_tokens,
        sampling=body.model_dump(include={"temperature", "top_p", "top_k", "min_p"}),
        seed=body.seed,
        grammar=_grammar(body),
        tools=tools,
        stream=bool(body.stream),
        logprobs=max(1, body.top_logprobs or 0) if _LOGPROBS in (body.include or ()) else 0,
        mode=body.mode,
        block_size=body.block_size,
    )


def _grammar(body: ResponsesBody) -> GrammarText | None:
    wanted = body.text.format if body.text else None
    return json_schema(wanted.schema_) if isinstance(wanted, ResponsesSchemaFormat) else grammar_of(wanted)


def _tools(body: ResponsesBody) -> Tools:
    if not body.tools:
        if body.tool_choice not in (None, "none", "auto"):
            raise HttpError(400, "tool_choice: needs tools", param="tool_choice")
        return Tools()
    definitions = [
        {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)} for tool in body.tools
    ]
    wanted = body.tool_choice
    name = wanted.name if isinstance(wanted, ChosenTool) else None
    one = body.parallel_tool_calls is False
    return choose_tools(definitions, [tool.name for tool in body.tools], wanted, name=name, one=one)


def _messages(body: ResponsesBody) -> list[dict[str, Any]]:
    """The input as the template's messages: calls and thoughts join the assistant's turn that they are part of."""
    messages = [{"role": "system", "content": body.instructions}] if body.instructions else []
    if isinstance(body.input, str):
        return [*messages, {"role": "user", "content": body.input}]
    turn: dict[str, Any] | None = None
    for item in body.input:
        own = not isinstance(item, FunctionOutputItem) and (
            not isinstance(item, InputMessage) or item.role == "assistant"
        )
        if not own:
            turn = None
        elif turn is None or (isinstance(item, ReasoningItem) and turn["content"]):
            turn = {"role": "assistant", "content": ""}
            messages.append(turn)
        match item:
            case InputMessage() if turn is not None:
                turn["content"] += _text(item.content)
            case InputMessage():
                role = "system" if item.role == "developer" else item.role
                messages.append({"role": role, "content": _text(item.content)})
            case FunctionCallItem() if turn is not None:
                call = template_call(item.call_id, item.name, item.arguments)
                turn.setdefault("tool_calls", []).append(call)
            case ReasoningItem() if turn is not None:
                turn["reasoning_content"] = "".join(part.text for part in item.content or ())
            case FunctionOutputItem():
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
    return messages


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


# The reply ------------------------------------------------------------------------------------------


class ResponsesReply:
    """One reply's words in OpenAI's shape: a list of items, each told of as it grows."""

    def __init__(self, service: Service, body: ResponsesBody, name: str, run: Run):
        self._vocabulary, self._run, self._body, self._name = service.vocabulary, run, body, name
        self._id, self._created = f"resp_{secrets.token_hex(12)}", int(time.time())
        self._with_logprobs = _LOGPROBS in (body.include or ())
        self._sent = 0

    async def whole(self) -> dict[str, Any]:
        """The reply in one piece."""
        async for told in self._told():
            if told and told[-1]["type"] in ("response.completed", "response.incomplete"):
                return told[-1]["response"]
        raise AssertionError("a response ends")

    async def events(self) -> Events:
        """The reply as server-sent events."""
        async for told in self._told():
            yield b"".join(map(self._numbered, told)) if told else keepalive(self._run)

    def _numbered(self, event: dict[str, Any]) -> bytes:
        self._sent += 1
        return sse({**event, "sequence_number": self._sent - 1}, event["type"])

    async def _told(self) -> AsyncGenerator[list[dict[str, Any]]]:
        """Events that are told together; none of them after a silence."""
        output: list[dict[str, Any]] = []
        running = self._response("in_progress", output)
        yield [{"type": "response.created", "response": running}, {"type": "response.in_progress", "response": running}]
        kind: str | None = None
        async for batch in self._run.batches():
            told: list[dict[str, Any]] = []
            for _, piece in batch.pieces if batch else ():
                if piece.kind != kind or piece.call is not None:
                    told += _closed(output) if output else ()
                    kind = piece.kind
                    output.append(_opened_item(piece))
                    told += _opened(output)
                told.append(self._grown(output, piece))
            if told or batch is None:
                yield told
        cut = self._run.choices[0].answer.finish_reason in (LENGTH, CONTEXT)
        status = "incomplete" if cut else "completed"
        ended = {"type": f"response.{status}", "response": self._response(status, output)}
        yield [*(_closed(output) if output else ()), ended]

    def _grown(self, output: list[dict[str, Any]], piece: Piece) -> dict[str, Any]:
        place = {**_place(output), "delta": piece.text}
        if piece.kind == TOOL:
            output[-1]["arguments"] += piece.text
            return {"type": "response.function_call_arguments.delta", **place}
        part = output[-1]["content"][0]
        part["text"] += piece.text
        if piece.kind == REASONING:
            return {"type": "response.reasoning_text.delta", **place, "content_index": 0}
        top = self._body.top_logprobs or 0
        listed = [self._vocabulary.entry(event, top) for event in piece.events] if self._with_logprobs else []
        part["logprobs"] += listed
        return {"type": "response.output_text.delta", **place, "content_index": 0, "logprobs": listed}

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        body, running = self._body, status == "in_progress"
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "model": self._name,
            "output": list(output),
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": body.temperature,
            "text": {"format": {"type": "text"}} if body.text is None else body.text.model_dump(by_alias=True),
            "tool_choice": body.tool_choice.model_dump()
            if isinstance(body.tool_choice, ChosenTool)
            else body.tool_choice or "auto",
            "tools": [tool.model_dump() for tool in body.tools or ()],
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None if running else usage(self._run),
        }


def _opened_item(piece: Piece) -> dict[str, Any]:
    if piece.call is not None:
        call = piece.call
        item = {"type": "function_call", "id": f"fc_{secrets.token_hex(12)}", "call_id": call.id, "name": call.name}
        return {**item, "arguments": "", "status": "in_progress"}
    if piece.kind == REASONING:
        content = [{"type": "reasoning_text", "text": ""}]
        return {"type": "reasoning", "id": f"rs_{secrets.token_hex(12)}", "summary": [], "content": content}
    said = [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]
    item = {"type": "message", "id": f"msg_{secrets.token_hex(12)}", "role": "assistant"}
    return {**item, "content": said, "status": "in_progress"}


def _place(output: list[dict[str, Any]]) -> dict[str, Any]:
    return {"item_id": output[-1]["id"], "output_index": len(output) - 1}


def _opened(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    item = output[-1]
    if "content" not in item:
        return [{"type": "response.output_item.added", "output_index": len(output) - 1, "item": dict(item)}]
    added = {"type": "response.output_item.added", "output_index": len(output) - 1, "item": {**item, "content": []}}
    part = dict(item["content"][0])
    return [added, {"type": "response.content_part.added", **_place(output), "content_index": 0, "part": part}]


def _closed(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    item, place = output[-1], _place(output)
    if item["type"] == "function_call":
        item["status"] = "completed"
        called = {"name": item["name"], "arguments": item["arguments"]}
        events = [{"type": "response.function_call_arguments.done", **place, **called}]
    else:
        part = dict(item["content"][0])
        place["content_index"] = 0
        kind, listed = "reasoning_text", {}
        if item["type"] == "message":
            item["status"] = "completed"
            kind, listed = "output_text", {"logprobs": part["logprobs"]}
        events = [
            {"type": f"response.{kind}.done", **place, "text": part["text"], **listed},
            {"type": "response.content_part.done", **place, "part": part},
        ]
    return [*events, {"type": "response.output_item.done", "output_index": len(output) - 1, "item": dict(item)}]


def usage(run: Run) -> dict[str, Any]:
    """OpenAI's counts in the names of this API, and what block decoding did."""
    return {
        "input_tokens": run.prompt_tokens,
        "input_tokens_details": {"cached_tokens": run.cached_tokens},
        "output_tokens": run.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": run.reasoning_tokens},
        "total_tokens": run.prompt_tokens + run.completion_tokens,
        "decoding": run.decoding(),
    }
