"""What reaches the terminal: printable text, colours only where they are wanted, marked drafts, dim thoughts."""

from __future__ import annotations

import io
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthrus_mlx.cli import progress
from orthrus_mlx.cli.answer_printer import AnswerPrinter
from orthrus_mlx.cli.interrupt import StopKey
from orthrus_mlx.cli.terminal import has_colour, one_line, printable, report, styled, well_formed

STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with\ttab\nand line", "plain, with\ttab\nand line"),
        ("naïve 日本語 🦜", "naïve 日本語 🦜"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hcleared", "cleared"),
        ("\x9b31mred in eight bits", "red in eight bits"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1$r\x1b\\device", "device"),
        ("\x1b]52;c;no end of it\nnext line", "52;c;no end of it\nnext line"),
        ("\x1bcreset", "reset"),
        ("over\rwrite", "overwrite"),
        ("line\r\nline", "line\nline"),
        ("bell\x07 back\x08 delete\x7f null\x00 next\x85", "bell back delete null next"),
        ("\u202eevil\u202c \u2066isolated\u2069", "evil isolated"),
        ("\x1b\x1b[31mdoubled", "doubled"),
    ],
)
def test_steering_characters_are_left_out(text: str, shown: str):
    assert printable(text) == shown


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\x1b\x9b[]m;\x07\x9c\\\u202e"))))
def test_printable_text_never_steers_a_terminal_and_keeps_ordinary_text(text: str):
    shown = printable(text)
    assert not STEERING.search(shown)
    assert printable(shown) == shown
    if not STEERING.search(text):
        assert shown == text


def test_a_split_escape_sequence_is_harmless():
    assert printable("\x1b") + printable("[31mred") == "[31mred"


def test_a_message_is_one_printable_line():
    assert one_line("tensor \x1b[31mevil\n\n  name") == "tensor evil name"


def test_bytes_that_are_no_text_are_replaced():
    assert well_formed("caf\udce9") == "caf?"


@pytest.mark.parametrize(
    ("stream", "no_color", "term", "colour"),
    [
        (Screen(), None, "xterm", True),
        (Screen(), "", "xterm", True),
        (Screen(), "1", "xterm", False),
        (Screen(), None, "dumb", False),
        (io.StringIO(), None, "xterm", False),
    ],
)
def test_colour_needs_a_terminal_that_wants_it(monkeypatch, stream, no_color, term, colour):
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    assert has_colour(stream) is colour


def test_a_closed_stream_has_no_colour():
    stream = io.StringIO()
    stream.close()
    assert not has_colour(stream)


def test_styles_only_where_colour_is_on():
    assert styled("text", "2", True) == "\x1b[2mtext\x1b[0m"
    assert styled("text", "2", False) == "text"


def test_an_error_is_one_line_and_its_trace_comes_on_request(capsys):
    error = ValueError("bad\nvalue")
    report(str(error))
    assert capsys.readouterr().err == "orthrus-mlx: error: bad value\n"
    report(str(error), error)
    told = capsys.readouterr().err
    assert told.startswith("ValueError") and told.endswith("\northrus-mlx: error: bad value\n")


# Answers ----------------------------------------------------------------------------------------------


def shown(segments: list[tuple[str, bool]], **settings) -> str:
    out = io.StringIO()
    printer = AnswerPrinter(out, **settings)
    for text, from_draft in segments:
        printer.feed(text, from_draft)
    printer.close()
    return out.getvalue()


SEGMENTS = [("one", False), (" two", True), (" three", True), (" four", False), (" five", True)]


def test_drafts_are_not_marked_unless_asked():
    assert shown(SEGMENTS, colour=False) == "one two three four five\n"
    assert shown(SEGMENTS, colour=True) == "one two three four five\n"


def test_runs_of_drafted_tokens_stand_in_guillemets_without_colour():
    assert shown(SEGMENTS, colour=False, show_drafts=True) == "one« two three» four« five»\n"


def test_drafted_tokens_are_green_with_colour():
    text = shown(SEGMENTS, colour=True, show_drafts=True)
    assert text == "one\x1b[0m\x1b[32m two three\x1b[0m four\x1b[0m\x1b[32m five\x1b[0m\n"


THOUGHT = [("<think>", False), ("\nhm", False), ("\n</think>", False), ("\n\nanswer", False)]
MARKERS = ("<think>", "</think>")


def test_thoughts_are_dim_with_colour():
    text = shown(THOUGHT, colour=True, think_markers=MARKERS)
    assert text == "\x1b[0m\x1b[2m<think>\nhm\n</think>\x1b[0m\n\nanswer\n"


def test_thoughts_look_like_the_rest_without_colour():
    assert shown(THOUGHT, colour=False, think_markers=MARKERS) == "<think>\nhm\n</think>\n\nanswer\n"


def test_a_thought_that_the_template_opened_is_dim_from_the_start():
    text = shown([("hm</think>yes", False)], colour=True, think_markers=MARKERS, thinking=True)
    assert text == "\x1b[0m\x1b[2mhm</think>\x1b[0myes\n"


def test_markers_within_a_segment_and_drafted_thoughts():
    segments = [("a<think>b</think>c<think>d", False), ("e", True)]
    text = shown(segments, colour=True, think_markers=MARKERS, show_drafts=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", text) == "a<think>b</think>c<think>de\n"
    assert "\x1b[0m\x1b[2;32me\x1b[0m\n" in text


def test_an_unfinished_thought_leaves_no_colour_behind():
    assert shown([("<think>hm", False)], colour=True, think_markers=MARKERS).endswith("hm\x1b[0m\n")


def test_model_text_cannot_colour_the_terminal():
    assert shown([("\x1b[31m", False), ("red\x07", True)], colour=False) == "red\n"


def test_an_answer_ends_its_line_once():
    assert shown([("text\n", False)], colour=False) == "text\n"
    assert shown([], colour=False) == ""


# Waiting ----------------------------------------------------------------------------------------------


def test_a_long_prompt_shows_a_bar_that_goes_away(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    bar = progress.PrefillBar()
    bar.update(0, 4000)
    bar.update(2048, 4000)
    assert "reading the prompt" in screen.getvalue()
    bar.update(3999, 4000)
    ended = screen.getvalue()
    assert ended.endswith("\x1b[2K")
    bar.update(4000, 4000)
    bar.stop()
    assert screen.getvalue() == ended


@pytest.mark.parametrize(("stream", "total"), [(Screen(), 20), (io.StringIO(), 4000)])
def test_no_bar_for_short_prompts_or_without_a_terminal(monkeypatch, stream, total):
    monkeypatch.setattr(sys, "stderr", stream)
    bar = progress.PrefillBar()
    bar.update(0, total)
    bar.update(total - 1, total)
    assert stream.getvalue() == ""


def test_a_spinner_shows_only_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for stream, visible in ((Screen(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress.spinner("Loading [red]\x1b[31mmodel"):
            pass
        assert ("Loading [red]model" in stream.getvalue()) is visible


def test_the_first_interrupt_is_a_wish_and_the_second_one_strikes():
    import signal

    before = signal.getsignal(signal.SIGINT)
    with StopKey() as key:
        assert not key.pressed
        signal.raise_signal(signal.SIGINT)
        assert key.pressed
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
