"""Structured output: always in the grammar, and the tokens of one-token decoding under the same grammar."""

from __future__ import annotations

import json
import re

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthrus_mlx import DecodeStats, mlx_generate
from orthrus_mlx.errors import RequestError
from orthrus_mlx.serving import grammar as g
from orthrus_mlx.serving.grammar import GrammarCompiler, GrammarText, Markers

pytest_plugins = ["serving_fixtures"]

CHAT = "/v1/chat/completions"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
    "required": ["name", "age", "city"],
    "additionalProperties": False,
}
THINK = Markers("<think>", "</think>", (3, 4))
"""Special tokens of the tiny model's tokenizer; in the demo model's they are text."""


@pytest.fixture(scope="module")
def compiler(thinking_model) -> GrammarCompiler:
    return GrammarCompiler(thinking_model[1], 320)


def accepts(compiler, tokenizer, grammar: GrammarText, text: str) -> bool:
    """Whether the text and its end are allowed."""
    tokens = [*tokenizer.encode(text, add_special_tokens=False), min(tokenizer.eos_token_ids)]
    return compiler.compile(grammar)().allowed(tokens)[0] == len(tokens)


@pytest.mark.parametrize(
    "grammar, inside, outside",
    [
        (g.regex(r"\d{2}/[a-c]+"), ["12/abc", "00/a"], ["1/a", "12/", "12/d", "12/a "]),
        (g.choice(["yes", "no way", 'a "b"\n']), ["yes", "no way", 'a "b"\n'], ["no", "yes!", ""]),
        (g.choice([f"word {i} of many" for i in range(3000)]), ["word 2999 of many"], ["word 3000 of many", "word 29"]),
        (g.json_schema({"type": "object"}), ["{}", '{\n  "a": [1, null]\n}'], ["[]", "{", "{}{}", " {}"]),
        (g.json_schema(PERSON), ['{"name": "A", "age": 3, "city": "é"}'], ['{"name": "A", "age": 3}']),
        (
            g.behind_thought(g.choice(["yes"]), THINK, open_already=False),
            ["yes", "<think>\nwhat is\n\nthis</think>\n\nyes", "<think></think>yes"],
            ["<think>yes", "<think></think>no", "<think></think>\n\n\nyes", "x</think>yes"],
        ),
        (
            g.behind_thought(g.regex("[0-9]"), THINK, open_already=True),
            ["\nwho</think>\n\n7", "</think>7"],
            ["7", "who</think>who"],
        ),
    ],
    ids=["regex", "choice", "many choices", "any object", "schema", "thought or none", "open thought"],
)
def test_a_grammar_allows_what_it_says_and_nothing_else(compiler, thinking_model, grammar, inside, outside):
    tokenizer = thinking_model[1]
    for text in inside:
        assert accepts(compiler, tokenizer, grammar, text), f"refused {text!r}"
    for text in outside:
        assert not accepts(compiler, tokenizer, grammar, text), f"let through {text!r}"


def test_thoughts_whose_markers_are_text_are_allowed_too(demo_model):
    tokenizer = demo_model[1]
    compiler = GrammarCompiler(tokenizer, 4096)
    markers = compiler.markers("<think>", "</think>")
    assert markers.special is None
    grammar = g.behind_thought(g.choice(["yes"]), markers, open_already=False)
    assert accepts(compiler, tokenizer, grammar, "<think>\nwell </x\n</think>\n\nyes")
    assert not accepts(compiler, tokenizer, grammar, "<think>\nwell\n</think>\n\nno")


def test_tool_calls_have_the_form_that_the_parser_reads(compiler, thinking_model):
    tokenizer = thinking_model[1]
    tools = [("add", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}), ("x.y", {})]
    call = '<tool_call>\n{{"name": "{}", "arguments": {}}}\n</tool_call>'
    one, two = call.format("add", '{"a": 1}'), call.format("x.y", "{}")
    several = g.tool_calls("<tool_call>", "</tool_call>", tools, several=True)
    single = g.tool_calls("<tool_call>", "</tool_call>", tools, several=False)
    assert accepts(compiler, tokenizer, several, f"{one}\n{two}") and accepts(compiler, tokenizer, single, two)
    assert not accepts(compiler, tokenizer, single, f"{one}\n{two}")
    assert not accepts(compiler, tokenizer, several, call.format("add", "{}"))
    assert not accepts(compiler, tokenizer, several, call.format("other", "{}"))
    assert tokenizer.tool_parser(one.split(">", 1)[1].rsplit("<", 1)[0], []) == {"name": "add", "arguments": {"a": 1}}


BAD = {
    "regex": lambda: g.regex("["),
    "look-ahead": lambda: g.regex("(?=a)b"),
    "type": lambda: g.json_schema({"type": "thing"}),
    "not": lambda: g.json_schema({"not": {}}),
    "file": lambda: g.json_schema({"$ref": "file:///etc/passwd"}),
    "network": lambda: g.json_schema({"$ref": "https://example.com/x.json"}),
    "multiple": lambda: g.json_schema({"items": [{"multipleOf": 999983}]}),
    "small multiple": lambda: g.json_schema({"multipleOf": 0.9999831}),
    "depth": lambda: g.json_schema(nested(15)),
}


def nested(depth: int) -> dict:
    schema: dict = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema, "b": schema}}
    return schema


def test_an_answer_in_a_format_may_be_a_call_instead_where_tools_are_offered(compiler, thinking_model, thinking):
    tokenizer = thinking_model[1]
    calls = g.tool_calls("<tool_call>", "</tool_call>", [("add", {"type": "object"})], several=True)
    grammar = g.behind_thought(g.either(g.json_schema(PERSON), calls), THINK, open_already=False)
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    person = '{"name": "A", "age": 3, "city": "B"}'
    for text in (call, f"{call}\n{call}", person, f"<think>x</think>\n\n{call}", f"<think>x</think>{person}"):
        assert accepts(compiler, tokenizer, grammar, text), text
    for text in (f"{person}{call}", call.replace("add", "sub"), "{}"):
        assert not accepts(compiler, tokenizer, grammar, text), text
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": ADD["function"]["parameters"]}}
    options = {"tools": [NAP], "max_tokens": 300, "chat_template_kwargs": {"enable_thinking": False}}
    ends = set()
    for seed in range(6):
        reply = thinking.chat(response_format=wanted, temperature=1.0, seed=seed, **options).json()
        (answer,) = reply["choices"]
        ends.add(answer["finish_reason"])
        if answer["finish_reason"] == "stop":
            jsonschema.validate(json.loads(answer["message"]["content"]), ADD["function"]["parameters"])
        elif answer["finish_reason"] == "tool_calls":
            assert {call["function"]["name"] for call in answer["message"]["tool_calls"]} == {"nap"}
    assert ends & {"stop", "tool_calls"}


@pytest.mark.parametrize("bad", BAD)
def test_a_grammar_that_cannot_be_kept_is_refused_at_once(compiler, bad):
    with pytest.raises(RequestError, match=r"^response_format: "):
        compiler.compile(BAD[bad]())


@settings(max_examples=60)
@given(data=st.data())
def test_the_masks_of_a_block_are_those_of_one_token_after_the_other(compiler, data):
    """Drafts mostly follow the grammar, as a model's do, and stray at any place."""
    make = compiler.compile(data.draw(st.sampled_from([g.json_schema(PERSON), g.regex("[a-z]{1,9}( [a-z]+)*")])))
    follow, drafts = make(), []
    for _ in range(data.draw(st.integers(0, 12))):
        allowed = np.flatnonzero(bits(follow.allowed(())[1][0]))
        token = int(data.draw(st.sampled_from(list(allowed)))) if data.draw(st.integers(0, 9)) else 3
        drafts.append(token)
        if token not in allowed:
            break
        follow.advance([token])
        if token == 2:
            break
    state = make()
    n, masks = state.allowed(drafts)
    assert state.allowed(drafts)[0] == n and masks.shape == (n + 1, 10)
    stepwise = make()
    for row in range(n + 1):
        assert np.array_equal(stepwise.allowed(())[1][0], masks[row])
        if row < n:
            assert bits(masks[row])[drafts[row]]
            stepwise.advance([drafts[row]])
        elif row < len(drafts):
            assert not bits(masks[row])[drafts[row]]


def bits(words: np.ndarray) -> np.ndarray:
    return np.unpackbits(words.view(np.uint8), bitorder="little")


# Block decoding under a grammar ------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 5}], ids=["greedy", "sampled"])
def test_blocks_under_a_grammar_give_the_tokens_of_single_steps_in_fewer_cycles(demo_model, sampling):
    model, tokenizer = demo_model
    messages = [{"role": "user", "content": "Write as JSON: name: Anna, age: 31, city: Oslo"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    make = GrammarCompiler(tokenizer, model.args.vocab_size).compile(g.json_schema(PERSON))
    tokens, stats = {}, {mode: DecodeStats() for mode in ("ar", "diffusion")}
    for mode, counts in stats.items():
        options = {"mode": mode, "stats": counts, "constraint": make(), "block_size": 16, **sampling}
        tokens[mode] = list(mlx_generate(model, prompt, tokenizer.eos_token_ids, 80, **options))
    assert tokens["ar"] == tokens["diffusion"]
    assert json.loads(tokenizer.decode(tokens["ar"])).keys() == PERSON["properties"].keys()
    if not sampling:
        assert json.loads(tokenizer.decode(tokens["ar"])) == {"name": "Anna", "age": 31, "city": "Oslo"}
    assert stats["ar"].cycles >= len(tokens["ar"]) > 4 * stats["diffusion"].cycles


# Through the server -------------------------------------------------------------------------------------

# Bounded everywhere: a random model says anything that is allowed, for as long as it is.
LEAVES = st.sampled_from(
    [
        {"type": "boolean"},
        {"type": "null"},
        {"type": "integer", "minimum": -99, "maximum": 99},
        {"type": "string", "maxLength": 5},
        {"enum": ["hello", "é", 1, None]},
    ]
)


def objects(children):
    return st.dictionaries(st.sampled_from(["a", "name", "日本", 'quo"te']), children, min_size=1, max_size=3).map(
        lambda properties: {
            "type": "object",
            "properties": properties,
            "required": sorted(properties),
            "additionalProperties": False,
        }
    )


def arrays(children):
    return children.map(lambda items: {"type": "array", "items": items, "maxItems": 2})


SCHEMAS = objects(st.recursive(LEAVES, lambda children: objects(children) | arrays(children), max_leaves=3))


@settings(max_examples=5)
@given(schema=SCHEMAS, seed=st.integers(0, 99))
def test_answers_are_valid_json_of_any_schema(thinking, schema, seed):
    answers_fit(thinking, schema, seed)


@pytest.mark.slow
@settings(max_examples=15)
@given(schema=SCHEMAS, seed=st.integers(0, 99))
def test_answers_are_valid_json_of_many_schemas(thinking, schema, seed):
    answers_fit(thinking, schema, seed)


def answers_fit(thinking, schema, seed):
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    options = {"temperature": 1.0, "max_tokens": 800, "chat_template_kwargs": {"enable_thinking": False}}
    replies = [
        thinking.chat("hi", response_format=wanted, seed=seed, mode=mode, **options).json()
        for mode in ("ar", "diffusion")
    ]
    contents = {reply["choices"][0]["message"]["content"] for reply in replies}
    assert len(contents) == 1, contents
    assert replies[0]["choices"][0]["finish_reason"] == "stop"
    jsonschema.validate(json.loads(contents.pop()), schema)


@pytest.mark.parametrize("mode", ["ar", "diffusion"])
def test_json_object_regex_and_choice_are_kept_to(thinking, mode):
    options = {"temperature": 1.3, "seed": 3, "mode": mode, "chat_template_kwargs": {"enable_thinking": False}}

    def said(form: dict, max_tokens: int = 60) -> str:
        return thinking.chat(response_format=form, max_tokens=max_tokens, **options).json()["choices"][0]["message"][
            "content"
        ]

    assert re.fullmatch(r"[0-9]{3}-[a-f]{2,4}", said({"type": "regex", "regex": "[0-9]{3}-[a-f]{2,4}"}))
    assert said({"type": "choice", "choices": ["hello", "who are you"]}) in ("hello", "who are you")
    assert said({"type": "json_object"}).startswith("{")


def test_log_probabilities_under_a_grammar_are_the_models_own(thinking):
    form = {"type": "choice", "choices": ["hello", "who are you"]}
    options = {"max_tokens": 30, "chat_template_kwargs": {"enable_thinking": False}}
    reply = thinking.chat(response_format=form, logprobs=True, top_logprobs=20, **options)
    entries = reply.json()["choices"][0]["logprobs"]["content"]
    # What the grammar forbids is listed, too, and may be likelier than what it made the model say.
    assert all(len(entry["top_logprobs"]) == 20 for entry in entries)
    assert any(entry["logprob"] < entry["top_logprobs"][-1]["logprob"] for entry in entries)


ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}, "up": {"type": "boolean"}},
            "required": ["a", "up"],
            "additionalProperties": False,
        },
    },
}
NAP = {"type": "function", "function": {"name": "nap", "parameters": {"type": "object", "additionalProperties": False}}}


@pytest.mark.parametrize(
    "choice, names",
    [("required", {"add", "nap"}), ({"type": "function", "function": {"name": "add"}}, {"add"})],
    ids=["required", "named"],
)
@pytest.mark.parametrize("mode", ["ar", "diffusion"])
def test_a_demanded_call_is_made_and_its_arguments_fit(thinking, choice, names, mode):
    reply = thinking.chat(
        tools=[ADD, NAP],
        tool_choice=choice,
        parallel_tool_calls=False,
        temperature=1.0,
        seed=1,
        mode=mode,
        max_tokens=500,
        chat_template_kwargs={"enable_thinking": False},
    ).json()
    (answer,) = reply["choices"]
    (call,) = answer["message"]["tool_calls"]
    assert answer["finish_reason"] == "tool_calls" and call["function"]["name"] in names
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in (ADD, NAP)}
    jsonschema.validate(json.loads(call["function"]["arguments"]), schemas[call["function"]["name"]])


def test_streamed_structured_output_is_the_whole_ones(thinking):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": ADD["function"]["parameters"]}}
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "response_format": form,
        "max_tokens": 500,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    whole = thinking.client.post(CHAT, json=body).json()["choices"][0]["message"]["content"]
    events = thinking.events(CHAT, body)
    deltas = [d["choices"][0]["delta"].get("content") or "" for _, d in events if isinstance(d, dict)]
    assert "".join(deltas) == whole and json.loads(whole)
