"""A server in this process for tests: a real socket on 127.0.0.1, a scripted engine, a model that thinks and calls."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cli_models
import httpx
import uvicorn

from orthrus_mlx.errors import RequestError
from orthrus_mlx.serving.app import build_app
from orthrus_mlx.serving.engine import EngineRequest, Event, Ticket
from orthrus_mlx.serving.service import Service

PATIENCE = 60.0
"""Seconds after which a test gives up waiting: generous, as the machine may be busy."""


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Returns once `true()`; fails the test after `PATIENCE` seconds."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not true():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain for: {what}"
        pause.wait(0.005)


class Running:
    """A server that accepts connections."""

    def __init__(self, url: str, service: Service):
        self.url, self.service = url, service
        self.client = httpx.Client(base_url=url, timeout=PATIENCE)

    def chat(self, content: str = "hi", **body: Any) -> httpx.Response:
        messages = [{"role": "user", "content": content}]
        return self.client.post("/v1/chat/completions", json={"messages": messages, **body})

    def events(self, path: str, body: dict[str, Any], **options: Any) -> list[tuple[str | None, Any]]:
        """(event name, data) of a stream, read to its end."""
        with self.client.stream("POST", path, json={"stream": True, **body}, **options) as response:
            assert response.status_code == 200, response.read()
            return list(parse_events(response.iter_lines()))


def parse_events(lines: Iterator[str]) -> Iterator[tuple[str | None, Any]]:
    """Server-sent events; "[DONE]" and comments stay text."""
    name = None
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield name, data if data == "[DONE]" else json.loads(data)
            name = None
        elif line.startswith(":"):
            yield "comment", line


@contextmanager
def running(service: Service, **options: Any) -> Iterator[Running]:
    """Serve until the end of the block; the engine is closed with the server."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = build_app(service, **options)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=asyncio.run, args=[server.serve(sockets=[listener])], daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the server's start")
    server_name = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield Running(server_name, service)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server does not stop"


class ScriptedEngine:
    """An engine that says what it is told.

    Args:
        tokenizer: encodes the script.
        script: the answer's text for a request.
        stop_token: emitted behind it.
        gate: waited for behind the first token, where given.
    """

    exactness = "scripted"
    max_requests = 64

    def __init__(
        self,
        tokenizer: Any,
        script: Callable[[EngineRequest], str],
        *,
        gate: threading.Event | None = None,
        context=4096,
    ):
        self.model = SimpleNamespace(args=SimpleNamespace(context_length=context, vocab_size=320, block_size=8))
        self.requests: list[EngineRequest] = []
        self.tickets: list[Ticket] = []
        self.closed = threading.Event()
        self._tokenizer, self._script, self._gate = tokenizer, script, gate

    def submit(self, request: EngineRequest) -> Ticket:
        self.requests.append(request)
        text = self._script(request)
        if text == "!busy":
            from orthrus_mlx.serving.engine import Busy

            raise Busy("full", retry_after=7)
        if text == "!impossible":
            raise RequestError("temperature must be colder")
        ticket = Ticket(request)
        self.tickets.append(ticket)
        threading.Thread(target=self._speak, args=[ticket, text], daemon=True).start()
        return ticket

    def close(self, drain: bool) -> None:
        self.closed.set()
        if self._gate is not None:
            self._gate.set()

    def metrics(self) -> dict[str, Any]:
        return {"running": 0, "queued": 0, "finished": {"stop": 2}, "accepted": 5}

    def _speak(self, ticket: Ticket, text: str) -> None:
        if text == "!fail":
            ticket.fail(RuntimeError("secret detail"))
            return
        tokens = self._tokenizer.encode(text, add_special_tokens=False)
        cut = tokens[: ticket.request.max_tokens]
        for i, token in enumerate(cut):
            if self._gate is not None and i == 1:
                assert self._gate.wait(PATIENCE)
            ticket.usage.completion_tokens, ticket.usage.cycles = i + 1, i + 1
            reason = "length" if len(cut) < len(tokens) and i == len(cut) - 1 else None
            ticket.put(Event(token, i % 2 == 0, -0.5, ((token, -0.5), (5, -2.0)), finish_reason=reason))
        if len(cut) == len(tokens):
            ticket.put(Event(min(ticket.request.stop_tokens), finish_reason="stop"))


TOOL_TEMPLATE = (
    "{%- if tools %}<|im_start|>system\n<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>"
    "<tool_call>NAME</tool_call><|im_end|>\n{%- endif %}"
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content }}"
    "{%- for tool_call in m.tool_calls or [] %}{%- set tool_call = tool_call.function %}"
    "{{- '<tool_call>' + tool_call.name + (tool_call.arguments | tojson) + '</tool_call>' }}{%- endfor %}"
    "{{- '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)
"""Qwen3's shape as far as thoughts and calls go."""


def write_thinking_checkpoint(folder: Path) -> Path:
    """Random weights behind a tokenizer with thoughts and a template with tools."""
    cli_models.write_checkpoint(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": TOOL_TEMPLATE}))
    return folder
