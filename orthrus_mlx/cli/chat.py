"""`orthrus-mlx chat`: turns over one cache, commands, and a line of figures after each answer."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..errors import OrthrusError, RequestError
from ..units import byte_count
from .options import REAL_MODEL, add_generation_arguments, add_model_arguments, generation_options, template_options
from .terminal import DIM, has_colour, is_terminal, printable, report, styled, well_formed

if TYPE_CHECKING:
    from .conversation import Conversation
    from .line_input import ReadLine
    from .start import LoadedModel

COMMANDS = {
    "/help": "this list",
    "/reset": "forget the conversation (the system prompt stays)",
    "/system [TEXT]": "show the system prompt, or set it; `/system off` removes it",
    "/stats": "figures of the whole chat",
    "/save FILE": "write the chat to a JSON file",
    "/load FILE": "go on with a saved chat",
    "/quit": "leave (so do /exit and Ctrl-D)",
}
NEARLY_FULL = 0.9
"""Share of the context from which the chat warns."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `chat` on `parser`."""
    add_model_arguments(parser)
    parser.add_argument("--no-history", action="store_true", help="do not keep the lines typed for the next chat")
    add_generation_arguments(parser, max_tokens=2048)


def run(args: argparse.Namespace) -> int:
    """Chat until the input ends. Raises OrthrusError where nobody can answer; returns the exit code."""
    from .conversation import Conversation
    from .line_input import edited_lines, piped_lines
    from .start import open_model

    is_demo = args.model is None
    loaded = open_model(args.model, args.revision)
    # The demo model shows what a cycle is, so it drafts even where that is not the fastest way.
    options = generation_options(
        args, loaded.tokenizer, loaded.model.args.vocab_size, default_mode="diffusion" if is_demo else "auto"
    )
    conversation = Conversation(
        loaded.model,
        loaded.tokenizer,
        system=None if args.system_prompt is None else well_formed(args.system_prompt),
        template_options=template_options(args),
        options=options,
    )
    interactive = is_terminal(sys.stdin) and is_terminal(sys.stdout)
    chat = Chat(conversation, loaded.name, interactive=interactive, show_drafts=args.show_drafts, verbose=args.verbose)
    chat.greet(_greeting(loaded, options["mode"], is_demo=is_demo))
    words = [usage.split()[0] for usage in COMMANDS]
    chat.talk(edited_lines(words, keep_history=not args.no_history) if interactive else piped_lines())
    return 0


class Chat:
    """The dialogue around a `Conversation`.

    Args:
        conversation: whose turns these are.
        model_name: as the user called it; saved with the chat.
        interactive: a person types and reads. Else stdout carries the answers alone, everything else goes to
            stderr, and the first error ends the chat.
        show_drafts: mark drafted tokens.
        verbose: show traces of errors.
    """

    def __init__(
        self, conversation: Conversation, model_name: str, *, interactive: bool, show_drafts: bool, verbose: bool
    ):
        from .chat_stats import ChatStats

        self._conversation = conversation
        self._model_name = model_name
        self._interactive = interactive
        self._show_drafts = show_drafts
        self._verbose = verbose
        self._stats = ChatStats()
        self._notes: TextIO = sys.stdout if interactive else sys.stderr

    def greet(self, lines: list[str]) -> None:
        for line in lines:
            self._note(line)
        if self._interactive:
            self._note("/help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves.")

    def talk(self, read: ReadLine) -> None:
        """Take lines until they end or /quit; every other line that is not a command is a question."""
        while True:
            try:
                line = read()
                if line is None or line.strip() in ("/quit", "/exit"):
                    return
                if line.startswith("/"):
                    self._obey(line)
                elif line.strip():
                    self._answer(line)
            except KeyboardInterrupt as interrupt:
                if not self._interactive:
                    raise
                self._note(str(interrupt) or "(Ctrl-D or /quit leaves)")
            except OrthrusError as error:
                if not self._interactive:
                    raise
                report(str(error), error if self._verbose else None)

    def _answer(self, question: str) -> None:
        from .answer_printer import AnswerPrinter
        from .chat_stats import answer_line
        from .interrupt import StopKey
        from .progress import PrefillBar

        conversation = self._conversation
        bar = PrefillBar()
        with ExitStack() as stack:
            stop_key = stack.enter_context(StopKey()) if self._interactive else None

            def progress(processed: int, total: int) -> None:
                bar.update(processed, total)
                if stop_key is not None and stop_key.pressed:
                    raise KeyboardInterrupt("(stopped before the answer began; the question is not kept)")

            responses = stack.enter_context(closing(conversation.answer(question, progress)))
            stack.callback(bar.stop)
            printer = AnswerPrinter(
                sys.stdout,
                colour=has_colour(sys.stdout),
                show_drafts=self._show_drafts,
                think_markers=conversation.think_markers,
                thinking=conversation.in_thought,
            )
            stack.callback(printer.close)
            for response in responses:
                printer.feed(response.text, response.from_draft)
                if stop_key is not None and stop_key.pressed:
                    break
        self._stats.count(response, read=conversation.read, reused=conversation.reused)
        self._note(answer_line(response))
        self._tell_end(response.finish_reason)

    def _tell_end(self, finish_reason: str | None) -> None:
        """Say why an answer is not whole, and when the context runs out."""
        used, length = self._conversation.context_used, self._conversation.context_length
        if finish_reason is None:
            self._note("(stopped; the answer so far stays in the chat)")
        elif finish_reason == "length":
            self._note("(cut off at --max-tokens)")
        if finish_reason == "context":
            self._note(f"The model's context of {length} tokens is full: /reset starts afresh (/save FILE first).")
        elif used >= NEARLY_FULL * length:
            self._note(f"The context is nearly full, {used} of {length} tokens: /reset starts afresh.")

    def _obey(self, line: str) -> None:
        command, _, argument = line.strip().partition(" ")
        argument = argument.strip()
        if command == "/help":
            width = max(map(len, COMMANDS))
            for usage, meaning in COMMANDS.items():
                self._note(f"{usage:{width}}  {meaning}")
            self._note("Esc Enter breaks a line; a question that begins with / takes a space before it.")
        elif command == "/reset":
            self._conversation.reset()
            self._note("The conversation starts afresh.")
        elif command == "/system":
            self._system(argument)
        elif command == "/stats":
            self._tell_stats()
        elif command == "/save":
            self._save(_file(argument, command))
        elif command == "/load":
            self._load(_file(argument, command))
        else:
            raise RequestError(f"{command}: no such command; /help lists them (a question takes a space before its /)")

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = None if text == "off" else text
        system = self._conversation.system
        self._note(f"System prompt: {system}" if system else "There is no system prompt.")

    def _tell_stats(self) -> None:
        conversation = self._conversation
        for line in self._stats.lines():
            self._note(line)
        self._note(
            f"context: {conversation.context_used} of {conversation.context_length} tokens, "
            f"KV cache {byte_count(conversation.cache_bytes)}"
        )
        self._note(f"exactness: {conversation.exactness} ({conversation.exactness.evidence})")

    def _save(self, file: Path) -> None:
        from .chat_file import save_chat

        conversation = self._conversation
        save_chat(file, model=self._model_name, system=conversation.system, messages=conversation.messages)
        self._note(f"Saved {len(conversation.messages)} messages to {file}.")

    def _load(self, file: Path) -> None:
        from .chat_file import load_chat

        system, messages, model_name = load_chat(file)
        self._conversation.system, self._conversation.messages = system, messages
        other = "" if model_name == self._model_name else f" (answered by {model_name}, not {self._model_name})"
        self._note(f"Loaded {len(messages)} messages from {file}{other}.")

    def _note(self, text: str) -> None:
        print(styled(printable(text), DIM, has_colour(self._notes)), file=self._notes, flush=True)


def _greeting(loaded: LoadedModel, mode: str, *, is_demo: bool) -> list[str]:

    from ..exactness import exactness_of

    args = loaded.model.args
    block = f"block size {args.block_size}" if args.has_diffusion_view else "no diffusion view"
    lines = [f"Model {loaded.name}: {block}, mode {mode}, {exactness_of(loaded.model)}."]
    if not is_demo:
        return lines
    lines += [
        "This is the small demo model that ships with the package: a demonstration, not an assistant.",
        f"A real one: orthrus-mlx chat --model {REAL_MODEL}",
    ]
    if mode == "diffusion":
        lines.append("It drafts full blocks to show tokens per cycle; for stories --mode auto is faster.")
    lines.append("Try: If a rectangle has length 12 and width 7, what is its area?")
    return lines


def _file(argument: str, command: str) -> Path:
    if not argument:
        raise RequestError(f"{command} needs a file, as in {command} chat.json")
    return Path(argument).expanduser()
