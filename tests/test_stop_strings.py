"""Stop strings end the text where they begin, wherever tokens cut them, and are never half shown."""

from __future__ import annotations

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from orthrus_mlx.cache import KVCache
from orthrus_mlx.errors import RequestError
from orthrus_mlx.generation import stream_generate
from orthrus_mlx.stop_strings import StopStrings

LETTERS = st.text("abc", max_size=12)


def first_stop(text: str, stops: list[str]) -> int | None:
    starts = [text.find(stop) for stop in stops if stop in text]
    return min(starts) if starts else None


@given(segments=st.lists(LETTERS, max_size=12), stops=st.lists(st.text("abc", min_size=1, max_size=5), max_size=3))
def test_the_shown_text_ends_before_the_first_stop_string_however_it_is_cut(segments, stops):
    watcher, shown, fed = StopStrings(stops), "", ""
    for segment in segments:
        fed += segment
        shown += watcher.feed(segment)
        start = first_stop(fed, stops)
        assert (watcher.found is not None) == (start is not None)
        if start is not None:
            assert shown == fed[:start]
            assert watcher.found in stops
            assert fed[start:].startswith(watcher.found)
            return
        # What is held back begins a stop string, and is no more than needed.
        held = fed[len(shown) :]
        assert fed.startswith(shown)
        assert held == "" or any(stop.startswith(held) for stop in stops)
        assert not any(stop.startswith(fed[i:]) for stop in stops for i in range(len(shown)))
    assert shown + watcher.flush() == fed


@pytest.mark.parametrize("stops", [[""], ["a", ""], [None], [3]])
def test_an_empty_stop_string_is_refused(stops):
    with pytest.raises(RequestError, match="stop must hold non-empty strings"):
        StopStrings(stops)


MODES = {
    "ar": {"mode": "ar"},
    "diffusion 3": {"mode": "diffusion", "block_size": 3},
    "diffusion": {"mode": "diffusion"},
}


def streamed(prompt, seed, **options):
    shared = KVCache(2)
    options = {"temperature": 0.8, "seed": seed, "prompt_cache": shared, **options}
    responses = list(stream_generate(tiny.text_model(2), tiny.text_tokenizer(), prompt, 24, **options))
    assert shared.offset == len(prompt) + len(responses)
    return responses


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_stop_string_ends_the_stream_at_the_token_that_completes_it(mode):
    inside_blocks = straddling = 0
    for seed in range(6):
        prompt = tiny.prompt(seed, 7, 250)
        whole = streamed(prompt, seed, mode="ar")
        text = "".join(r.text for r in whole)
        for start, length in ((1, 1), (4, 3), (6, 9)):
            stop = text[start : start + length]
            responses = streamed(prompt, seed, stop=stop, **mode)
            shown = "".join(r.text for r in responses)
            assert shown == text[: text.index(stop)]
            assert [r.finish_reason for r in responses[:-1]] == [None] * (len(responses) - 1)
            assert responses[-1].finish_reason == "stop"
            assert [r.token for r in responses] == [r.token for r in whole[: len(responses)]]
            # The last token was needed: without it the text lacks the stop string.
            assert stop not in "".join(r.text for r in whole[: len(responses) - 1])
            inside_blocks += responses[-1].from_draft
            straddling += len(stop) > len(whole[len(responses) - 1].text)
    assert straddling
    assert inside_blocks or mode["mode"] == "ar"


def test_text_held_back_for_a_stop_string_that_never_comes_is_shown_at_the_end():
    prompt = tiny.prompt(0, 7, 250)
    text = "".join(r.text for r in streamed(prompt, 0, mode="ar"))
    for mode in MODES.values():
        responses = streamed(prompt, 0, stop=[text[-2:] + "never"], **mode)
        assert "".join(r.text for r in responses) == text
        assert responses[-1].finish_reason == "length"


def test_several_stop_strings_and_one_given_alone():
    prompt = tiny.prompt(0, 7, 250)
    text = "".join(r.text for r in streamed(prompt, 0, mode="ar"))
    early, late = text[2:4], text[8:11]
    for stop in ([late, early], (early, late), early):
        assert "".join(r.text for r in streamed(prompt, 0, stop=stop)) == text[: text.index(early)]
