"""OpenAI's protocol: chat completions and completions, whole and streamed, and every parameter honoured or refused."""

from __future__ import annotations

import json
import threading

import pytest

from orthrus_mlx import mlx_generate
from orthrus_mlx.serving.service import Defaults

pytest_plugins = ["serving_fixtures"]

QUESTION = "If a rectangle has length 12 and width 7, what is its area?"
ANSWER = "The area is length x width.\n12 x 7 = 84\nThe answer is 84."
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def chunks_of(events):
    return [data for name, data in events if name is None and data != "[DONE]"]


def content_of(events) -> str:
    return "".join(c["delta"].get("content") or "" for data in chunks_of(events) for c in data["choices"])


# The demo model -------------------------------------------------------------------------------------


def test_a_chat_is_answered_whole(demo):
    body = demo.chat(QUESTION, model="demo", mode="ar").json()
    assert body["object"] == "chat.completion" and body["model"] == "demo"
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": ANSWER}
    assert choice["finish_reason"] == "stop"
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["decoding"]["mode"] == "ar" and usage["decoding"]["cycles"] == usage["completion_tokens"]


def test_a_streamed_chat_marks_drafted_tokens_and_ends_with_its_usage(demo):
    body = {"messages": [{"role": "user", "content": QUESTION}], "mode": "diffusion", "block_size": 16}
    events = demo.events(CHAT, {**body, "stream_options": {"include_usage": True}})
    assert events[-1] == (None, "[DONE]")
    *chunks, last = chunks_of(events)
    assert content_of(events) == ANSWER
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    drafted = sum(c["choices"][0]["drafted"] for c in chunks[1:-1])
    assert sum(c["choices"][0]["tokens"] for c in chunks[1:-1]) == last["usage"]["completion_tokens"] - 1
    decoding = last["usage"]["decoding"]
    # The end of the text is a token, too, and no chunk of text.
    assert 0 < drafted <= decoding["accepted"] <= drafted + 1
    assert sum(decoding["accepted_at"]) == decoding["accepted"] <= decoding["drafted"] == sum(decoding["drafted_at"])
    assert last["choices"] == [] and all("usage" not in c for c in chunks)


def test_the_tokens_are_those_of_mlx_generate_with_the_same_seed(demo, demo_model):
    model, tokenizer = demo_model
    prompt = tokenizer.encode("Once upon a time")
    wanted = list(mlx_generate(model, prompt, tokenizer.eos_token_ids, 24, 0.9, seed=11, top_p=0.95, mode="ar"))
    sampling = {"max_tokens": 24, "temperature": 0.9, "top_p": 0.95, "seed": 11}
    replies = {
        mode: demo.client.post(TEXT, json={"prompt": prompt, "mode": mode, **sampling}).json()
        for mode in ("ar", "diffusion")
    }
    assert {r["choices"][0]["text"] for r in replies.values()} == {tokenizer.decode(wanted)}
    assert replies["ar"]["usage"]["decoding"]["seed"] == 11


def test_log_probabilities_are_those_of_the_model(demo, demo_model):
    reply = demo.chat(QUESTION, mode="ar", max_tokens=3, logprobs=True, top_logprobs=4).json()
    entries = reply["choices"][0]["logprobs"]["content"]
    assert "".join(e["token"] for e in entries) == "The area is"
    for entry in entries:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        tops = [top["logprob"] for top in entry["top_logprobs"]]
        # Greedy: the chosen token is the likeliest.
        assert len(tops) == 4 and tops == sorted(tops, reverse=True) and tops[0] == entry["logprob"] <= 0
    plain = demo.chat(QUESTION, mode="ar", max_tokens=3, logprobs=True).json()
    assert [e["top_logprobs"] for e in plain["choices"][0]["logprobs"]["content"]] == [[]] * 3


def test_choices_count_on_from_the_seed(demo):
    sampling = {"max_tokens": 12, "temperature": 1.0, "mode": "ar"}
    both = demo.client.post(TEXT, json={"prompt": "Long ago", "n": 2, "seed": 2**32 - 1, **sampling}).json()
    alone = [
        demo.client.post(TEXT, json={"prompt": "Long ago", "seed": seed, **sampling}).json() for seed in (2**32 - 1, 0)
    ]
    texts = [choice["text"] for choice in both["choices"]]
    assert texts == [reply["choices"][0]["text"] for reply in alone] and texts[0] != texts[1]
    assert both["usage"]["prompt_tokens"] == alone[0]["usage"]["prompt_tokens"]
    assert both["usage"]["completion_tokens"] == sum(reply["usage"]["completion_tokens"] for reply in alone)


def test_streamed_choices_end_each_with_its_reason(demo):
    body = {
        "prompt": ["The answer is", "Long ago"],
        "n": 2,
        "seed": 4,
        "temperature": 1.0,
        "max_tokens": 5,
        "mode": "ar",
    }
    whole = demo.client.post(TEXT, json=body).json()
    choices = [c for d in chunks_of(demo.events(TEXT, body)) for c in d["choices"]]
    for wanted in whole["choices"]:
        parts = [c for c in choices if c["index"] == wanted["index"]]
        assert "".join(c["text"] for c in parts) == wanted["text"]
        assert [c["finish_reason"] for c in parts] == [None] * (len(parts) - 1) + [wanted["finish_reason"]]


def test_several_prompts_are_answered_in_order(demo):
    prompts = ["Once upon", "def add(a, b):", "The answer is"]
    reply = demo.client.post(TEXT, json={"prompt": prompts, "max_tokens": 6, "mode": "ar"}).json()
    alone = [demo.client.post(TEXT, json={"prompt": p, "max_tokens": 6, "mode": "ar"}).json() for p in prompts]
    assert [c["index"] for c in reply["choices"]] == [0, 1, 2]
    assert [c["text"] for c in reply["choices"]] == [a["choices"][0]["text"] for a in alone]


def test_penalties_and_bias_reach_the_model(demo):
    plain = demo.chat(QUESTION, mode="ar", max_tokens=6).json()["choices"][0]["message"]["content"]
    first = demo.service.tokenizer.encode("The", add_special_tokens=False)[0]
    biased = demo.chat(QUESTION, mode="ar", max_tokens=6, logit_bias={str(first): -100}).json()
    assert not biased["choices"][0]["message"]["content"].startswith("The") and plain.startswith("The")
    repeated = {"prompt": "ha ha ha ha ha ha ha ha", "max_tokens": 8, "mode": "ar"}
    free = demo.client.post(TEXT, json=repeated).json()["choices"][0]["text"]
    held = demo.client.post(TEXT, json={**repeated, "repetition_penalty": 3.0, "presence_penalty": 2.0}).json()
    assert held["choices"][0]["text"] != free


# A scripted engine: what the server makes of an answer ------------------------------------------------


def test_a_stop_string_ends_the_answer_and_the_engines_work(scripted):
    gate = threading.Event()
    server = scripted("hello world STOP hello", gate=gate)
    gate.set()
    body = server.chat(stop=["STOP", "never"]).json()
    assert body["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "hello world "},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert server.service.engine.tickets[0].cancelled


def test_a_thought_is_no_content(scripted):
    server = scripted("<think>\nwho are you\n</think>\n\nhello world")
    (choice,) = server.chat().json()["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "reasoning_content": "who are you\n",
        "content": "hello world",
    }
    events = server.events(CHAT, {"messages": [{"role": "user", "content": "hi"}], "stop": "who"})
    deltas = [c["choices"][0]["delta"] for c in chunks_of(events)]
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "who are you\n"
    assert content_of(events) == "hello world"


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": [2]}}\n</tool_call>'
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def test_a_tool_call_is_parsed_and_ends_with_its_own_reason(scripted):
    server = scripted(f"I add.\n{CALL}")
    (choice,) = server.chat(tools=[ADD]).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": '{"a": 1, "b": [2]}'} and call["id"].startswith("call_")
    assert choice["message"]["content"] == "I add.\n"
    assert "<tools>" in server.service.tokenizer.decode(server.service.engine.requests[0].prompt)


def test_streamed_tool_calls_have_indices_and_ids(scripted):
    server = scripted(f"{CALL}\n{CALL}")
    events = server.events(CHAT, {"messages": [{"role": "user", "content": "hi"}], "tools": [ADD]})
    parts = [c for d in chunks_of(events) for c in d["choices"][0]["delta"].get("tool_calls", [])]
    heads = [part for part in parts if "id" in part]
    assert [head["index"] for head in heads] == [0, 1] and len({head["id"] for head in heads}) == 2
    assert {head["function"]["name"] for head in heads} == {"add"}
    for index in (0, 1):
        arguments = [part["function"]["arguments"] for part in parts if part["index"] == index]
        # They come while they are written.
        assert json.loads("".join(arguments)) == {"a": 1, "b": [2]} and len(arguments) > 5
    assert chunks_of(events)[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_without_parallel_calls_the_first_one_ends_the_answer(scripted):
    server = scripted(f"{CALL}\n{CALL}")
    (choice,) = server.chat(tools=[ADD], parallel_tool_calls=False).json()["choices"]
    assert len(choice["message"]["tool_calls"]) == 1 and choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\nnot json\n</tool_call> hello",
        '<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "add", "arg',
    ],
    ids=["no JSON", "not offered", "cut off"],
)
def test_a_broken_tool_call_is_shown_as_it_stands(scripted, text):
    (choice,) = scripted(text).chat(tools=[ADD]).json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": text} and choice["finish_reason"] == "stop"


def test_a_streamed_call_that_is_cut_short_ends_with_its_length(scripted):
    server = scripted('<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": [2, 3, 4')
    body = {"messages": [{"role": "user", "content": "hi"}], "tools": [ADD], "max_tokens": 55}
    events = server.events(CHAT, body)
    parts = [c for d in chunks_of(events) for c in d["choices"][0]["delta"].get("tool_calls", [])]
    assert '{"a": 1, "b": [2, 3, 4'.startswith("".join(part["function"]["arguments"] for part in parts)) and parts
    assert chunks_of(events)[-1]["choices"][0]["finish_reason"] == "length" and content_of(events) == ""


def test_without_tools_their_markers_are_text(scripted):
    assert scripted(CALL).chat().json()["choices"][0]["message"]["content"] == CALL


def test_earlier_calls_and_their_results_reach_the_template(scripted):
    server = scripted("hello")
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "add "}, {"type": "text", "text": "them"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "x", "content": "3"},
    ]
    assert server.client.post(CHAT, json={"messages": messages}).status_code == 200
    prompt = server.service.tokenizer.decode(server.service.engine.requests[0].prompt)
    assert "system\nbe brief" in prompt and "add them" in prompt
    assert '<tool_call>add{"a": 1}</tool_call>' in prompt and "tool\n3" in prompt


def test_template_options_reach_the_template(scripted):
    server = scripted("hello")
    server.chat(chat_template_kwargs={"enable_thinking": False})
    server.chat()
    prompts = [server.service.tokenizer.decode(r.prompt) for r in server.service.engine.requests]
    assert prompts[0].endswith("<think>\n\n</think>\n\n") and prompts[1].endswith("assistant\n")


def test_text_comes_whole_whatever_tokens_cut(scripted):
    text = "naïve 日本 é🙂 </think <tool <thin"
    server = scripted(text)
    assert server.chat(tools=[ADD]).json()["choices"][0]["message"]["content"] == text
    events = server.events(CHAT, {"messages": [{"role": "user", "content": "hi"}], "tools": [ADD]})
    assert content_of(events) == text
    completion = server.events(TEXT, {"prompt": "x"})
    assert "".join(d["choices"][0]["text"] for d in chunks_of(completion)) == text


def test_a_silent_stream_sends_comments(scripted):
    gate = threading.Event()
    server = scripted("hello world", gate=gate)
    seen = []
    with server.client.stream("POST", CHAT, json={"stream": True, "messages": [{"role": "user", "content": "x"}]}) as r:
        for line in r.iter_lines():
            if line.startswith(": keepalive"):
                gate.set()
            seen.append(line)
    assert any(line.startswith(": keepalive 0/") for line in seen) and seen[-2] == "data: [DONE]"


def test_an_engines_failure_is_a_500_that_tells_nothing(scripted):
    server = scripted(lambda request: "!fail" if request.max_tokens == 1 else "hello")
    reply = server.chat(max_tokens=1)
    assert reply.status_code == 500 and reply.json()["error"]["type"] == "server_error"
    assert "secret" not in reply.text
    events = server.events(CHAT, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1})
    assert events[-1][1]["error"]["code"] == "internal_error"
    assert server.chat().json()["choices"][0]["message"]["content"] == "hello"


def test_a_full_engine_is_a_429_that_says_when_to_return(scripted):
    reply = scripted("!busy").chat()
    assert reply.status_code == 429 and reply.headers["retry-after"] == "7"
    assert reply.json()["error"]["type"] == "rate_limit_error"


def test_what_the_engine_finds_impossible_is_a_400_that_names_the_parameter(scripted):
    reply = scripted("!impossible").chat()
    assert reply.status_code == 400 and reply.json()["error"]["param"] == "temperature"


def test_where_a_request_says_nothing_the_servers_defaults_hold(scripted):
    own = Defaults(max_tokens=3, temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, mode="ar")
    server = scripted("hello hello hello hello", defaults=own)
    assert server.chat().json()["choices"][0]["finish_reason"] == "length"
    server.chat(max_tokens=5, temperature=0, top_p=1, top_k=0, min_p=0, mode="diffusion")
    first, second = server.service.engine.requests
    assert (first.max_tokens, first.mode, second.max_tokens, second.mode) == (3, "ar", 5, "diffusion")
    said = [(r.sampling.temperature, r.sampling.top_p, r.sampling.top_k, r.sampling.min_p) for r in (first, second)]
    assert said == [(0.5, 0.9, 7, 0.1), (0, 1, 0, 0)]


# Refusals ---------------------------------------------------------------------------------------------

USER = [{"role": "user", "content": "hi"}]
REFUSED = [
    ({}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages.0"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages.0.content.0.image_url",
    ),
    ({"messages": USER, "best_of": 2}, "best_of"),
    ({"messages": USER, "draft_model": "x"}, "draft_model"),
    ({"messages": USER, "adapters": "/etc"}, "adapters"),
    ({"messages": USER, "temperature": -1}, "temperature"),
    ({"messages": USER, "temperature": 1e-9}, "temperature"),
    ({"messages": USER, "temperature": "0.5"}, "temperature"),
    ({"messages": USER, "top_p": 1.5}, "top_p"),
    ({"messages": USER, "n": 0}, "n"),
    ({"messages": USER, "n": 1000}, "n"),
    ({"messages": USER, "max_tokens": 0}, "max_tokens"),
    ({"messages": USER, "max_tokens": True}, "max_tokens"),
    ({"messages": USER, "max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
    ({"messages": USER, "stop": ""}, "stop"),
    ({"messages": USER, "logit_bias": {"99999": 1}}, "logit_bias"),
    ({"messages": USER, "logit_bias": {"x": 1}}, "logit_bias.x"),
    ({"messages": USER, "top_logprobs": 2}, None),
    ({"messages": USER, "stream_options": {"include_usage": True}}, None),
    ({"messages": USER, "mode": "fast"}, "mode"),
    ({"messages": USER, "store": True}, "store"),
    ({"messages": USER, "tool_choice": "required"}, "tool_choice"),
    ({"messages": USER, "tools": [ADD], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
    ({"messages": USER, "tools": [ADD, ADD]}, "tools"),
    ({"messages": USER, "response_format": {"type": "xml"}}, "response_format"),
    ({"messages": USER, "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"messages": USER, "response_format": {"type": "regex", "regex": "["}}, "response_format"),
    ({"messages": USER, "chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
]


@pytest.mark.parametrize("body, param", REFUSED, ids=[f"{i}-{p}" for i, (_, p) in enumerate(REFUSED)])
def test_what_cannot_be_honoured_is_a_400_that_names_it(thinking, body, param):
    reply = thinking.client.post(CHAT, json=body)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error" and error["param"] == param, error
    assert (param or "needs") in error["message"]


def test_an_unknown_model_is_a_404_and_opens_nothing(thinking):
    reply = thinking.chat(model="/etc/passwd")
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "model_not_found"
    assert thinking.client.get("/v1/models/..%2F..%2Fetc%2Fpasswd").status_code == 404


def test_tools_for_a_template_without_them_are_refused(demo):
    reply = demo.chat(tools=[ADD])
    assert reply.status_code == 400 and reply.json()["error"]["param"] == "tools"


def test_a_prompt_beyond_the_context_is_a_400(demo):
    reply = demo.client.post(TEXT, json={"prompt": "word " * 4000})
    assert reply.status_code == 400 and "2047" in reply.json()["error"]["message"]


def test_models_are_listed_and_described(thinking):
    listed = thinking.client.get("/v1/models").json()
    assert [m["id"] for m in listed["data"]] == ["tiny"] and listed["object"] == "list"
    one = thinking.client.get("/v1/models/tiny").json()
    assert one["context_length"] == 4096 and one["block_size"] == 8


def test_metrics_count_requests_and_tokens(thinking):
    def value(name: str) -> float:
        lines = thinking.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    before = value("orthrus_completion_tokens_total")
    reply = thinking.chat(max_tokens=5).json()
    assert value("orthrus_completion_tokens_total") - before == reply["usage"]["completion_tokens"]
    assert value('orthrus_http_requests_total{route="/v1/chat/completions",status="200"}') >= 1
    assert value("orthrus_first_token_seconds_count") >= 1
