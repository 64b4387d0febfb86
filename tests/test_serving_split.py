"""Text taken apart in a stream is what it would be in one piece, wherever it is cut."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from orthrus_mlx.serving.call_stream import CallStream
from orthrus_mlx.serving.split import CONTENT, REASONING, Splitter, exits

MARKERS = exits(("<think>", "</think>"), ("<tool_call>", "</tool_call>"))
WORDS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<", "<t", "think>", "</", "a", "b c", "日", "\n"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map("".join)


def split(parts, kind=CONTENT):
    """[kind, text] with neighbours of one kind joined."""
    splitter, joined = Splitter(MARKERS, kind), []
    for piece_kind, text in [p for part in parts for p in splitter.feed(part)] + splitter.flush():
        if joined and joined[-1][0] == piece_kind:
            joined[-1][1] += text
        else:
            joined.append([piece_kind, text])
    return joined


@given(text=TEXTS, data=st.data(), kind=st.sampled_from([CONTENT, REASONING]))
def test_cuts_do_not_matter(text, data, kind):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(parts, kind) == split([text], kind) == split(list(text), kind)


@given(text=TEXTS)
def test_only_markers_go_and_only_where_they_mean_something(text):
    kind, rest, joined = CONTENT, text, [[CONTENT, ""]]
    while found := re.search("|".join(map(re.escape, MARKERS[kind])), rest):
        joined[-1][1] += rest[: found.start()]
        kind, rest = MARKERS[kind][found[0]], rest[found.end() :]
        joined.append([kind, ""])
    joined[-1][1] += rest
    assert [piece for piece in split(list(text)) if piece[1]] == [piece for piece in joined if piece[1]]


def test_kinds_follow_the_markers():
    text = "a<think>b</think>c<tool_call>d</tool_call><tool_call>e<think></tool_call></think>f"
    wanted = [
        ["content", "a"],
        ["reasoning", "b"],
        ["content", "c"],
        ["tool", "d"],
        ["content", ""],
        ["tool", "e<think>"],
    ]
    assert split([text]) == [*wanted, ["content", "</think>f"]]


def test_what_cannot_become_a_marker_is_not_held_back():
    splitter = Splitter(MARKERS)
    assert splitter.feed("a <") == [(CONTENT, "a ")]
    assert splitter.feed("b") == [(CONTENT, "<b")]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    arguments=st.dictionaries(st.text(max_size=4), VALUES, max_size=3),
    space=st.sampled_from(["", " ", "\n"]),
    data=st.data(),
)
def test_a_calls_arguments_are_followed_to_their_end_and_no_further(arguments, space, data):
    told = json.dumps(arguments, ensure_ascii=data.draw(st.booleans()))
    text = f'{space}{{"name":{space}"add",{space}"arguments":{space}{told}{space}}}{space}'
    stream, size = CallStream({"add"}), data.draw(st.integers(1, len(text)))
    parts = [stream.feed(text[i : i + size]) for i in range(0, len(text), size)]
    assert "".join(parts) == told and stream.name == "add"


def test_a_call_of_another_form_or_function_is_not_taken_up():
    for text in (
        '{"name": "nap", "arguments": {}}',
        '{"arguments": {}, "name": "add"}',
        '{"name": "add", "arguments": 3}',
    ):
        stream = CallStream({"add"})
        assert "".join(map(stream.feed, text)) == "" and stream.name is None and stream.text == text
