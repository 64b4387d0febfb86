"""`orthrus-mlx chat`: at a terminal (a pseudo-terminal here) and in a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_models import COMMAND, run_process, token_id, write_checkpoint

from orthrus_mlx import load
from orthrus_mlx.cli import start
from orthrus_mlx.cli.chat import Chat as Dialogue
from orthrus_mlx.cli.conversation import Conversation
from orthrus_mlx.cli.line_input import _history, history_file
from orthrus_mlx.cli.main import main
from orthrus_mlx.cli.progress import PrefillBar

pytest_plugins = ["cli_fixtures"]

STATISTICS = re.compile(
    r"\[\d+ tokens, [\d.]+ tok/s \| [\d.]+ tokens per cycle \| \d+/\d+ drafts accepted \| row-exact\]"
)
SGR = re.compile(r"\x1b\[[1-9;][0-9;]*m")
"""A colour or a style; `\\x1b[0m` alone changes nothing."""


class Terminal:
    """A child whose stdin, stdout and stderr are one pseudo-terminal."""

    PATIENCE = 30

    def __init__(self, *arguments: str, environment: dict[str, str]):
        self._master, slave = pty.openpty()
        self.child = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            # Ctrl-C is a key of the controlling terminal.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = ""
        self._taken = 0

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def expect(self, text: str) -> str:
        """Wait for `text`; returns everything from the last expected text up to it."""
        while (found := self.seen.find(text, self._taken)) < 0:
            self._read(waiting_for=text)
        start, self._taken = self._taken, found + len(text)
        return self.seen[start : self._taken]

    def expect_prompt(self) -> None:
        """Wait until the line editor takes keys: before that the terminal itself would act on them."""
        self.expect("\x1b[?2004h")

    def leave(self) -> int:
        """Ctrl-D, and the exit code; what came in between is in `seen`."""
        self.type("\x04")
        with contextlib.suppress(OSError):
            while True:
                self._read(waiting_for="the end")
        return self.child.wait(self.PATIENCE)

    def _read(self, waiting_for: str) -> str:
        if not select.select([self._master], [], [], self.PATIENCE)[0]:
            raise AssertionError(f"{waiting_for!r} did not come; the terminal shows {self.seen!r}")
        data = os.read(self._master, 1 << 16)
        if not data:
            raise OSError("closed")
        text = data.decode(errors="replace")
        self.seen += text
        return text

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        os.close(self._master)


@contextlib.contextmanager
def terminal(*arguments: str, environment: dict[str, str]) -> Iterator[Terminal]:
    opened = Terminal(*arguments, environment=environment)
    try:
        yield opened
    finally:
        opened.close()


def test_a_chat_at_a_terminal(parrot, environment, tmp_path):
    environment = environment | {"XDG_STATE_HOME": str(tmp_path)}
    arguments = ("chat", "--model", str(parrot), "--max-tokens", "-1", "--mode", "diffusion", "--show-drafts")
    with terminal(*arguments, environment=environment) as t:
        assert f"Model {parrot}: block size 8, mode diffusion, row-exact." in t.expect("Ctrl-C stops an answer")
        t.expect_prompt()
        t.type("hello\r")
        assert "\x1b[32mhello" in t.expect("hellohellohello"), "drafts are green"
        t.type("\x03")
        assert STATISTICS.search(t.expect("(stopped; the answer so far stays in the chat)"))
        t.expect_prompt()
        t.type("/stats\r")
        assert "1 answer: " in t.expect("exactness: row-exact")
        t.expect_prompt()
        t.type("/sing\r")
        assert "orthrus-mlx: error: /sing: no such command" in t.expect("a space before its /)\r\n")
        t.expect_prompt()
        t.type("\x03")
        t.expect("(Ctrl-D or /quit leaves)")
        t.expect_prompt()
        t.type("/help\r")
        t.expect("/system [TEXT]")
        t.expect_prompt()
        assert t.leave() == 0
    history = tmp_path / "orthrus-mlx" / "chat_history"
    assert "+hello" in history.read_text() and history.stat().st_mode & 0o077 == 0


def test_no_color_means_no_styles_at_a_terminal(parrot, environment):
    arguments = ("chat", "--model", str(parrot), "-m", "20", "--mode", "diffusion", "--show-drafts", "--no-history")
    with terminal(*arguments, environment=environment | {"NO_COLOR": "1"}) as t:
        t.expect_prompt()
        t.type("hello\r")
        assert "«hello" in t.expect("cut off at --max-tokens")
        t.expect_prompt()
        assert t.leave() == 0
        assert not SGR.search(t.seen)
    assert not (Path(environment["XDG_STATE_HOME"]) / "orthrus-mlx").exists(), "--no-history leaves no file"


# Pipes ------------------------------------------------------------------------------------------------


def test_a_piped_chat_prints_answers_to_stdout_and_the_rest_to_stderr(parrot, environment):
    piped = run_process(
        "chat", "--model", str(parrot), "-m", "3", environment=environment, stdin="hello\n\nwho are you\n/stats\n"
    )
    assert piped.returncode == 0
    assert piped.stdout == "hellohellohello\n" * 2
    assert len(STATISTICS.findall(piped.stderr)) == 2 and "2 answers: 6 tokens" in piped.stderr
    assert "\x1b" not in piped.stdout + piped.stderr
    assert "Torch" not in piped.stderr and "model of type" not in piped.stderr


def test_ctrl_c_ends_a_piped_chat_without_a_trace(parrot, environment):
    child = subprocess.Popen(
        [*COMMAND, "chat", "--model", str(parrot), "-m", "-1"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    child.stdin.write(b"hello\n")
    child.stdin.flush()
    child.stdout.read(100)
    child.send_signal(2)
    _, told = child.communicate(timeout=30)
    assert child.returncode == 130
    assert b"Traceback" not in told


class Chat:
    """The command line in this process, with lines for stdin."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str, lines: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)"""
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        code = main(["chat", *arguments])
        return code, *self._capsys.readouterr()


@pytest.fixture
def chat(monkeypatch, capsys) -> Chat:
    return Chat(monkeypatch, capsys)


def test_reset_system_save_and_load(chat, parrot, tmp_path):
    file = tmp_path / "chat.json"
    lines = (
        f"/system who are you\nhello\n/save {file}\n/reset\n/system\n/system off\n/load {file}\n/system\nhow\n/exit\nno"
    )
    code, out, told = chat("--model", str(parrot), "-m", "2", lines=lines)
    assert code == 0 and out == "hellohello\n" * 2
    assert told.count("System prompt: who are you\n") == 3 and "There is no system prompt." in told
    assert "The conversation starts afresh." in told
    assert f"Saved 2 messages to {file}." in told and f"Loaded 2 messages from {file}." in told
    saved = json.loads(file.read_text())
    assert saved["system"] == "who are you" and [m["role"] for m in saved["messages"]] == ["user", "assistant"]


def test_a_chat_loaded_into_another_model_says_so(chat, parrot, random_model, tmp_path):
    file = tmp_path / "chat.json"
    chat("--model", str(parrot), "-m", "2", lines=f"hello\n/save {file}\n")
    _, _, told = chat("--model", str(random_model), lines=f"/load {file}\n")
    assert f"(answered by {parrot}, not {random_model})" in told


def test_turns_share_the_cache(chat, parrot):
    _, _, told = chat("--model", str(parrot), "-m", "10", lines="hello\nhow\nwhat\n/stats\n")
    read, reused = map(int, re.search(r"prompts: (\d+) tokens read, (\d+) found in the cache", told).groups())
    context = int(re.search(r"context: (\d+) of 4096 tokens", told).group(1))
    assert read == context - 3 * 10, "every prompt token was read once"
    assert reused > read


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/sing", "/sing: no such command; /help lists them"),
        ("/save", "/save needs a file, as in /save chat.json"),
        ("/load none.json", "none.json: no such file; give a file that /save wrote"),
    ],
)
def test_an_error_ends_a_piped_chat_with_one_line(chat, parrot, line, message):
    code, out, told = chat("--model", str(parrot), "-m", "2", lines=f"{line}\nhello\n")
    assert (code, out) == (1, "")
    assert told.splitlines()[-1].startswith(f"orthrus-mlx: error: {message}")


def test_ctrl_c_while_the_prompt_is_read_drops_the_question_and_keeps_the_chat(monkeypatch, capsys, parrot):
    options = {"max_tokens": 2, "mode": "ar"}
    conversation = Conversation(*load(parrot), system=None, template_options={}, options=options)
    read_with_bar = PrefillBar.update

    def pressed_once(bar: PrefillBar, processed: int, total: int) -> None:
        monkeypatch.setattr(PrefillBar, "update", read_with_bar)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(PrefillBar, "update", pressed_once)
    lines = iter(["hello", "how", None])
    at_terminal = Dialogue(conversation, "parrot", interactive=True, show_drafts=False, verbose=False)
    at_terminal.talk(lambda: next(lines))
    shown = capsys.readouterr().out
    assert "(stopped before the answer began; the question is not kept)" in shown
    assert [m["content"] for m in conversation.messages] == ["how", "hellohello"]


def test_an_error_at_a_terminal_does_not_end_the_chat(capsys, parrot):
    conversation = Conversation(*load(parrot), system=None, template_options={}, options={"max_tokens": 1})
    lines = iter(["/sing", "hello", None])
    Dialogue(conversation, "parrot", interactive=True, show_drafts=False, verbose=True).talk(lambda: next(lines))
    captured = capsys.readouterr()
    assert "Traceback" in captured.err and captured.err.splitlines()[-1].startswith("orthrus-mlx: error: /sing")
    assert captured.out.startswith("hello\n[1 token, ")


def test_a_line_that_begins_with_a_slash_can_be_asked_behind_a_space(chat, parrot):
    assert chat("--model", str(parrot), "-m", "1", lines=" /etc is what\n")[:2] == (0, "hello\n")


def test_a_full_context_is_told(chat, tmp_path):
    folder = write_checkpoint(tmp_path / "short", says="hello", context=64)
    code, out, told = chat("--model", str(folder), "-m", "-1", lines="hello\nhow\n")
    assert code == 1 and out.count("\n") == 1
    assert "The model's context of 64 tokens is full: /reset starts afresh" in told
    assert "but the model's context is 64; reset the chat or ask something shorter" in told.splitlines()[-1]


def test_a_context_nearly_full_is_told(chat, tmp_path):
    folder = write_checkpoint(tmp_path / "short", says="hello", context=64)
    _, _, told = chat("--model", str(folder), "-m", "50", lines="hello\n")
    assert "The context is nearly full, 61 of 64 tokens" in told


def test_the_demo_model_introduces_itself_and_drafts(chat, parrot, monkeypatch):
    monkeypatch.setattr(start, "demo_folder", lambda: parrot)
    code, _, told = chat("-m", "16", lines="hello\n")
    assert code == 0
    assert "Model demo: block size 8, mode diffusion, row-exact." in told and "8.00 tokens per cycle" in told
    assert "A real one: orthrus-mlx chat --model chiennv/Orthrus-Qwen3-1.7B" in told
    assert "for stories --mode auto is faster" in told
    _, _, told = chat("-m", "16", "--mode", "ar", lines="")
    assert "mode ar" in told and "--mode ar" not in told


def test_a_missing_demo_model_is_told_with_the_way_out(chat, monkeypatch, tmp_path):
    monkeypatch.setattr(start, "demo_folder", lambda: tmp_path / "demo")
    code, _, told = chat(lines="")
    assert code == 1
    assert told == (
        f"orthrus-mlx: error: {tmp_path}/demo: the demo model is not there; "
        "give a model, as in --model chiennv/Orthrus-Qwen3-1.7B\n"
    )


def test_a_plain_qwen3_chats_in_its_one_view(chat, tmp_path):
    folder = write_checkpoint(tmp_path / "plain", says="hello", block_size=None)
    code, out, told = chat("--model", str(folder), "-m", "4", lines="hello\n")
    assert (code, out) == (0, "hello" * 4 + "\n")
    assert "no diffusion view, mode auto" in told and "1.00 tokens per cycle" in told


def test_bytes_that_are_no_text_can_be_asked(parrot, environment):
    environment = environment | {"PYTHONIOENCODING": "latin-1"}
    child = subprocess.run(
        [*COMMAND, "chat", "--model", str(parrot), "-m", "1"], env=environment, input=b"caf\xe9\n", capture_output=True
    )
    assert (child.returncode, child.stdout) == (0, b"hello\n")


def test_control_characters_of_the_model_are_not_printed(chat, random_model):
    bias = [f"--logit-bias={token_id(random_model, byte)}=1e6" for byte in ("\x1b", "\x07")]
    code, out, _ = chat("--model", str(random_model), "-m", "8", *bias, lines="hello\n")
    assert code == 0 and not re.search(r"[\x00-\x09\x0b-\x1f]", out)


# Lines ------------------------------------------------------------------------------------------------


def test_history_lies_in_the_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_file() == tmp_path / "orthrus-mlx" / "chat_history"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert history_file() == Path("/home/somebody/.local/state/orthrus-mlx/chat_history")


def test_a_history_that_cannot_be_written_does_not_end_the_chat(monkeypatch, tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    _history(in_the_way / "chat_history").append_string("hello")
    kept = _history(tmp_path / "state" / "chat_history")
    (tmp_path / "state" / "chat_history").unlink()
    (tmp_path / "state").rmdir()
    kept.append_string("hello")
    assert list(kept.get_strings())[-1] == "hello"
