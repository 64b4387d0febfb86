"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import json
import secrets
from typing import Any

from .answer import TOOL_CALLS, Answer, Piece
from .anthropic_bodies import CountBody, MessagesBody, TextBlock, ThinkingBlock, ToolResultBlock, ToolUseBlock
from .connection import Events, sse
from .engine import CONTEXT, LENGTH
from .errors import HttpError
from .run import Run
from .service import Plan, Prompt, Service, Tools
from .split import CONTENT, REASONING, TOOL


def plan(service: Service, body: MessagesBody) -> Plan:
    """Raises RequestError or HttpError where the request cannot be honoured."""
    return service.plan(
        [prompt(service, body)],
        max_tokens=body.max_tokens,
        sampling=body.model_dump(include={"temperature", "top_p", "top_k"}),
        seed=body.seed,
        stops=body.stop_sequences or (),
        tools=_tools(body),
        thinking_budget=body.thinking.budget_tokens if body.thinking else None,
        stream=bool(body.stream),
        mode=body.mode,
        block_size=body.block_size,
    )


def prompt(service: Service, body: CountBody) -> Prompt:
    """The chat as the model's template writes it."""
    messages = [{"role": "system", "content": _text(body.system)}] if body.system else []
    for message in body.messages:
        messages += _template_messages(message.role, message.content)
    options = {} if body.thinking is None else {"enable_thinking": body.thinking.type != "disabled"}
    return service.chat_prompt(messages, options, _tools(body))


def _template_messages(role: str, content: Any) -> list[dict[str, Any]]:
    """One message of the client as those of the template: results of tools stand for themselves there."""
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    results: list[dict[str, Any]] = []
    said: dict[str, Any] = {"role": role, "content": ""}
    for block in content:
        match block:
            case TextBlock():
                said["content"] += block.text
            case ThinkingBlock():
                said["reasoning_content"] = said.get("reasoning_content", "") + block.thinking
            case ToolUseBlock():
                function = {"name": block.name, "arguments": block.input}
                said.setdefault("tool_calls", []).append({"id": block.id, "type": "function", "function": function})
            case ToolResultBlock():
                results.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": _text(block.content)})
    return [*results, said] if len(said) > 2 or said["content"] or not results else results


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block.text for block in content or ())


def _tools(body: CountBody) -> Tools:
    choice = body.tool_choice
    kind = choice.type if choice else "auto"
    if not body.tools:
        if kind not in ("auto", "none"):
            raise HttpError(400, "tool_choice: needs tools")
        return Tools()
    names = [tool.name for tool in body.tools]
    if len(set(names)) < len(names):
        raise HttpError(400, "tools: two tools have the same name")
    if kind == "none":
        return Tools()
    definitions = [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description or "", "parameters": t.input_schema},
        }
        for t in body.tools
    ]
    one = bool(choice and choice.disable_parallel_tool_use)
    if choice is not None and kind == "tool":
        if choice.name not in names:
            raise HttpError(400, f"tool_choice.name: there is no tool {choice.name!r}")
        return Tools(definitions, (choice.name,), one=True)
    return Tools(definitions, names if kind == "any" else (), one=one)


# The reply ------------------------------------------------------------------------------------------

_BLOCKS = {CONTENT: "text", REASONING: "thinking", TOOL: "tool_use"}


class MessagesReply:
    """One reply's words in Anthropic's shape."""

    def __init__(self, service: Service, body: MessagesBody, name: str, run: Run):
        self._run, self._name, self._id = run, name, f"msg_{secrets.token_hex(12)}"

    async def whole(self) -> dict[str, Any]:
        """The reply in one piece."""
        blocks: list[dict[str, Any]] = []
        async for _, piece in self._run.pieces():
            if piece.call is not None:
                blocks.append({**_empty_block(piece), "input": json.loads(piece.text)})
                continue
            kind = _BLOCKS[piece.kind]
            if not blocks or blocks[-1]["type"] != kind:
                blocks.append(_empty_block(piece))
            blocks[-1][kind] += piece.text
        answer = self._run.choices[0].answer
        return {
            **self._head(),
            "content": blocks,
            "stop_reason": stop_reason(answer),
            "stop_sequence": answer.stop_string,
            "usage": usage(self._run),
        }

    async def events(self) -> Events:
        """The reply as server-sent events, in Anthropic's order."""
        head = {**self._head(), "content": [], "stop_reason": None, "stop_sequence": None}
        yield _event("message_start", message={**head, "usage": {**usage(self._run), "output_tokens": 0}})
        index, open_kind = -1, None
        async for batch in self._run.batches():
            if batch is None:
                yield _event("ping")
                continue
            told = []
            for _, piece in batch.pieces:
                if piece.kind != open_kind or piece.call is not None:
                    if open_kind is not None:
                        told.append(_event("content_block_stop", index=index))
                    index, open_kind = index + 1, piece.kind
                    told.append(_event("content_block_start", index=index, content_block=_empty_block(piece)))
                told.append(_event("content_block_delta", index=index, delta=_delta(piece)))
            yield b"".join(told)
        if open_kind is not None:
            yield _event("content_block_stop", index=index)
        answer = self._run.choices[0].answer
        delta = {"stop_reason": stop_reason(answer), "stop_sequence": answer.stop_string}
        yield _event("message_delta", delta=delta, usage=usage(self._run))
        yield _event("message_stop")

    def _head(self) -> dict[str, Any]:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._name}


def _event(kind: str, **fields: Any) -> bytes:
    return sse({"type": kind, **fields}, kind)


def _empty_block(piece: Piece) -> dict[str, Any]:
    if piece.call is not None:
        return {"type": "tool_use", "id": piece.call.id, "name": piece.call.name, "input": {}}
    # A signature proves where a thought came from; there is none here.
    return (
        {"type": "text", "text": ""} if piece.kind == CONTENT else {"type": "thinking", "thinking": "", "signature": ""}
    )


def _delta(piece: Piece) -> dict[str, Any]:
    if piece.kind == TOOL:
        return {"type": "input_json_delta", "partial_json": piece.text}
    kind = _BLOCKS[piece.kind]
    return {"type": f"{kind}_delta", kind: piece.text}


def stop_reason(answer: Answer) -> str:
    """Anthropic's word for why an answer ended."""
    if answer.finish_reason in (LENGTH, CONTEXT):
        return "max_tokens"
    if answer.finish_reason == TOOL_CALLS:
        return "tool_use"
    return "stop_sequence" if answer.stop_string is not None else "end_turn"


def usage(run: Run) -> dict[str, Any]:
    """Anthropic's counts, where tokens found in the cache are no input tokens; and what block decoding did."""
    return {
        "input_tokens": run.prompt_tokens - run.cached_tokens,
        "cache_read_input_tokens": run.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": run.completion_tokens,
        "decoding": run.decoding(),
    }
