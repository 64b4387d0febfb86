"""A model's answer on its way to a terminal, a pipe or a file."""

from __future__ import annotations

from typing import TextIO

from .terminal import DIM, GREEN, printable


class AnswerPrinter:
    """Writes segments as they come: printable characters only, thoughts dim, drafted tokens marked.

    Args:
        out: where the text goes.
        colour: thoughts are dim and drafts green; without it thoughts look like the rest.
        show_drafts: mark text whose token the diffusion view had drafted; without colour by «guillemets».
        think_markers: the strings that open and close a thought, if the model has any.
        thinking: whether the text begins inside a thought (some templates open it).
    """

    def __init__(
        self,
        out: TextIO,
        *,
        colour: bool,
        show_drafts: bool = False,
        think_markers: tuple[str, str] | None = None,
        thinking: bool = False,
    ):
        self._out = out
        self._colour = colour
        self._show_drafts = show_drafts
        self._markers = think_markers
        self._thinking = thinking
        self._style = ""
        self._last = "\n"

    def feed(self, text: str, from_draft: bool) -> None:
        """Write the next segment; a character is marked by the token that completed it."""
        text = printable(text)
        drafted = from_draft and self._show_drafts
        while text:
            piece, thinking_next = self._up_to_marker(text)
            self._write(piece, drafted)
            text = text[len(piece) :]
            self._thinking = thinking_next
        self._out.flush()

    def close(self) -> None:
        """End the last mark, the colour and the line."""
        self._change_style("")
        if self._last != "\n":
            self._out.write("\n")
        self._out.flush()

    def _up_to_marker(self, text: str) -> tuple[str, bool]:
        """(the text before an opening marker or through a closing one, whether a thought follows it)."""
        if self._markers is None:
            return text, False
        before, marker, _ = text.partition(self._markers[self._thinking])
        if not marker:
            return text, self._thinking
        return (before + marker, False) if self._thinking else (before, True)

    def _write(self, text: str, drafted: bool) -> None:
        if not text:
            return
        if self._colour:
            self._change_style(";".join(code for code, on in ((DIM, self._thinking), (GREEN, drafted)) if on))
        else:
            self._change_style("«" if drafted else "")
        self._out.write(text)
        self._last = text[-1]

    def _change_style(self, style: str) -> None:
        if style == self._style:
            return
        if self._colour:
            self._out.write(f"\x1b[0m\x1b[{style}m" if style else "\x1b[0m")
        else:
            self._out.write(style or "»")
        self._style = style
