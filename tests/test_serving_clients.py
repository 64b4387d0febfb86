"""Real clients, unmodified: the openai and anthropic SDKs, curl, and an agent framework with tool calls."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess

import anthropic
import openai
import pytest
from pydantic import BaseModel

pytest_plugins = ["serving_fixtures"]

QUESTION = "If a rectangle has length 12 and width 7, what is its area?"
ANSWER = "The area is length x width.\n12 x 7 = 84\nThe answer is 84."
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
THOUGHT = "<think>\nwho\n</think>\n\n"
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
USER = [{"role": "user", "content": "hi"}]


def openai_client(server, **options) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, **options)


def anthropic_client(server, **options) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="unused", max_retries=0, **options)


# openai -----------------------------------------------------------------------------------------------


def test_openai_chats_completes_and_lists_models(demo):
    client = openai_client(demo)
    assert [model.id for model in client.models.list()] == ["demo", "default_model"]
    messages = [{"role": "user", "content": QUESTION}]
    whole = client.chat.completions.create(model="demo", messages=messages, extra_body={"mode": "ar"})
    assert whole.choices[0].message.content == ANSWER
    streamed = client.chat.completions.create(
        model="demo", messages=messages, stream=True, stream_options={"include_usage": True}, extra_body={"mode": "ar"}
    )
    chunks = list(streamed)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    completion = client.completions.create(model="demo", prompt="Once upon a time", max_tokens=5, logprobs=2)
    assert completion.choices[0].finish_reason == "length" and len(completion.choices[0].logprobs.tokens) == 5


def test_openai_parses_structured_output_into_a_class(thinking):
    class Reply(BaseModel):
        up: bool
        word: str

    parsed = openai_client(thinking).chat.completions.parse(
        model="tiny",
        messages=USER,
        response_format=Reply,
        max_tokens=800,
        extra_body={"chat_template_kwargs": {"enable_thinking": False}},
    )
    # A random model may fill the string up to the limit; what it has closed, it has closed rightly.
    assert parsed.choices[0].finish_reason in ("stop", "length")
    if parsed.choices[0].finish_reason == "stop":
        assert isinstance(parsed.choices[0].message.parsed, Reply)


def test_openai_reads_streamed_tool_calls(scripted):
    client = openai_client(scripted(f"{THOUGHT}I add.\n{CALL}"))
    tools = [{"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}]
    with client.chat.completions.stream(model="tiny", messages=USER, tools=tools) as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls
    assert call.function.name == "add" and json.loads(call.function.arguments) == {"a": 1, "b": 2}
    assert final.choices[0].message.content == "I add.\n" and final.choices[0].finish_reason == "tool_calls"


def test_openai_responses_whole_and_streamed(scripted):
    client = openai_client(scripted(f"{THOUGHT}hello world\n{CALL}"))
    tools = [{"type": "function", "name": "add", "parameters": PARAMETERS}]
    whole = client.responses.create(model="tiny", input="hi", instructions="be brief", tools=tools)
    assert whole.status == "completed" and whole.output_text == "hello world\n"
    assert [item.type for item in whole.output] == ["reasoning", "message", "function_call"]
    assert whole.output[0].content[0].text == "who\n"
    assert json.loads(whole.output[2].arguments) == {"a": 1, "b": 2}
    with client.responses.stream(model="tiny", input="hi", tools=tools) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "hello world\n"
    assert final.output_text == whole.output_text and final.output[2].arguments == whole.output[2].arguments
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_openai_responses_take_back_what_they_gave(scripted):
    server = scripted(f"{THOUGHT}{CALL}")
    client = openai_client(server)
    tools = [{"type": "function", "name": "add", "parameters": PARAMETERS}]
    first = client.responses.create(model="tiny", input=USER, tools=tools)
    given = [item.model_dump(exclude_none=True) for item in first.output]
    result = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "3"}
    client.responses.create(model="tiny", input=[*USER, *given, result], tools=tools)
    prompt = server.service.tokenizer.decode(server.service.engine.requests[-1].prompt)
    assert '<|im_start|>assistant\n<tool_call>add{"a": 1, "b": 2}</tool_call><|im_end|>' in prompt
    assert "<|im_start|>tool\n3<|im_end|>" in prompt


def test_an_answer_cut_short_is_an_incomplete_response(demo):
    reply = openai_client(demo).responses.create(
        model="demo", input=QUESTION, max_output_tokens=4, include=["message.output_text.logprobs"], top_logprobs=2
    )
    assert reply.status == "incomplete" and reply.incomplete_details.reason == "max_output_tokens"
    assert len(reply.output[0].content[0].logprobs) >= 3


def test_openai_raises_its_own_errors(demo):
    client = openai_client(demo)
    with pytest.raises(openai.BadRequestError, match="temperature") as error:
        client.chat.completions.create(model="demo", messages=USER, temperature=-1)
    assert error.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-9", messages=USER)
    with pytest.raises(openai.BadRequestError, match="previous_response_id: not supported"):
        client.responses.create(model="demo", input="hi", previous_response_id="resp_1")


# anthropic --------------------------------------------------------------------------------------------


def test_anthropic_answers_whole_and_streamed(demo):
    client = anthropic_client(demo)
    request = {"model": "demo", "max_tokens": 60, "messages": [{"role": "user", "content": QUESTION}]}
    whole = client.messages.create(**request)
    assert whole.content[0].text == ANSWER and whole.stop_reason == "end_turn"
    with client.messages.stream(**request) as stream:
        assert "".join(stream.text_stream) == ANSWER
        final = stream.get_final_message()
    assert final.usage.output_tokens == whole.usage.output_tokens and final.stop_reason == "end_turn"
    cut = client.messages.create(**{**request, "max_tokens": 3})
    assert cut.stop_reason == "max_tokens" and cut.usage.output_tokens == 3
    stopped = client.messages.create(**request, stop_sequences=["12 x"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "12 x")
    assert stopped.content[0].text == ANSWER.split("12 x")[0]


def test_anthropic_counts_tokens_and_lists_models(demo):
    client = anthropic_client(demo)
    assert [model.display_name for model in client.models.list()] == ["demo", "default_model"]
    counted = client.messages.count_tokens(model="demo", messages=[{"role": "user", "content": QUESTION}])
    whole = client.messages.create(model="demo", max_tokens=1, messages=[{"role": "user", "content": QUESTION}])
    assert counted.input_tokens == whole.usage.input_tokens + whole.usage.cache_read_input_tokens


def test_anthropic_thinks_and_uses_tools(scripted):
    server = scripted(f"{THOUGHT}I add.\n{CALL}")
    client = anthropic_client(server)
    tools = [{"name": "add", "description": "adds", "input_schema": PARAMETERS}]
    request = {"model": "tiny", "max_tokens": 200, "tools": tools, "system": [{"type": "text", "text": "be brief"}]}
    whole = client.messages.create(**request, messages=USER)
    with client.messages.stream(**request, messages=USER) as stream:
        final = stream.get_final_message()
    for message in (whole, final):
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
        thought, text, use = message.content
        assert thought.thinking == "who\n" and text.text == "I add.\n" and use.input == {"a": 1, "b": 2}
        assert message.stop_reason == "tool_use"
    back = {"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in whole.content]}
    result = {"type": "tool_result", "tool_use_id": whole.content[2].id, "content": "3"}
    client.messages.create(**request, messages=[*USER, back, {"role": "user", "content": [result]}])
    prompt = server.service.tokenizer.decode(server.service.engine.requests[-1].prompt)
    assert "system\nbe brief" in prompt and 'I add.\n<tool_call>add{"a": 1, "b": 2}</tool_call>' in prompt
    assert prompt.endswith("<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\n")


def test_text_held_back_for_a_stop_string_comes_before_the_call_behind_it(scripted):
    client = anthropic_client(scripted(f"I add ST{CALL}OP and go on"))
    tools = [{"name": "add", "input_schema": PARAMETERS}]
    whole = client.messages.create(model="tiny", max_tokens=200, tools=tools, messages=USER, stop_sequences=["STOP"])
    assert [block.type for block in whole.content] == ["text", "tool_use", "text"]
    assert [whole.content[0].text, whole.content[2].text] == ["I add ST", "OP and go on"]


def test_anthropic_raises_its_own_errors(demo):
    client = anthropic_client(demo)
    with pytest.raises(anthropic.BadRequestError, match="service_tier: not supported"):
        client.messages.create(model="demo", max_tokens=3, messages=USER, service_tier="auto")
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="claude", max_tokens=3, messages=USER)


# curl and an agent framework ---------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_streams(demo):
    body = {"messages": [{"role": "user", "content": QUESTION}], "stream": True, "mode": "ar"}
    told = subprocess.run(
        [
            "curl",
            "-sSN",
            f"{demo.url}/v1/chat/completions",
            "-H",
            "Content-Type: application/json",
            "-d",
            json.dumps(body),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    data = [line.removeprefix("data: ") for line in told.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    assert "".join(json.loads(d)["choices"][0]["delta"].get("content") or "" for d in data[:-1]) == ANSWER


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_an_agent_calls_its_tool_and_answers_with_the_result(scripted, api):
    agents = pytest.importorskip("agents", reason="openai-agents is not installed")
    agents.set_tracing_disabled(True)
    called = []

    @agents.function_tool
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        called.append((a, b))
        return a + b

    server = scripted(lambda request: CALL if not called else "the sum is 3")
    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)
    kind = agents.OpenAIChatCompletionsModel if api == "chat" else agents.OpenAIResponsesModel
    agent = agents.Agent(name="a", instructions="add", tools=[add], model=kind(model="tiny", openai_client=client))
    result = asyncio.run(agents.Runner.run(agent, "what is 1 + 2?", max_turns=4))
    assert called == [(1, 2)] and result.final_output == "the sum is 3"
    prompt = server.service.tokenizer.decode(server.service.engine.requests[-1].prompt)
    assert "<|im_start|>tool\n3<|im_end|>" in prompt
