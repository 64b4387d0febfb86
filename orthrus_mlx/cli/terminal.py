"""What may be written to a terminal, in which colours, and how errors are told."""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import TextIO

DIM = "2"
GREEN = "32"

_ESCAPE_SEQUENCES = re.compile(
    # Control sequences (colours, cursor), then strings (titles, links, clipboard), then the two-character ones.
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
_BIDI_OVERRIDES = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_CONTROLS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0), *_BIDI_OVERRIDES} - {ord("\n"), ord("\t")})


def printable(text: str) -> str:
    """`text` without what would steer a terminal or reorder its line.

    Out go escape sequences, the C0 and C1 controls but newline and tab, and Unicode's bidirectional embeddings,
    overrides and isolates. An escape sequence that arrives in two parts loses its first character only, which
    leaves harmless text.
    """
    return _ESCAPE_SEQUENCES.sub("", text).translate(_CONTROLS)


def one_line(text: str) -> str:
    """`text` printable and on one line, for messages that quote files and arguments."""
    return " ".join(printable(text).split())


def well_formed(text: str) -> str:
    """`text` as it came from the command line or a terminal, bytes that were no UTF-8 replaced by "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at `stream`; a closed or missing one has nobody."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def has_colour(stream: TextIO) -> bool:
    """Whether `stream` takes colours: a terminal, not a dumb one, and NO_COLOR (no-color.org) not set."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, colour: bool) -> str:
    """`text` in `style` where `colour` is on."""
    return f"\x1b[{style}m{text}\x1b[0m" if colour else text


def report(message: str, trace_of: BaseException | None = None) -> None:
    """Tell an error on stderr in one line, after the trace of an exception where one is given."""
    if trace_of is not None:
        traceback.print_exception(trace_of)
    print(f"orthrus-mlx: error: {one_line(message)}", file=sys.stderr)
