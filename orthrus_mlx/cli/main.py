"""`orthrus-mlx`: picks the command, turns what it raises into one line and an exit code.

Exit codes: 0 done, 1 an error that a line on stderr explains, 2 wrong usage, 130 Ctrl-C, 141 the reader of a
pipe went away (as the shell counts it).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from .. import __version__
from ..errors import OrthrusError
from .terminal import one_line, report

COMMANDS = {
    "chat": "talk to a model",
    "generate": "answer one prompt",
    "serve": "serve a model over HTTP",
    "convert": "convert a Hugging Face checkpoint to an MLX folder",
    "train": "distil a diffusion view for a Qwen3 checkpoint",
    "bench": "measure speed by workload against plain decoding and mlx-lm",
    "info": "show versions, device, a model's settings, its kernels and what the exactness probe found",
}
FAILED, INTERRUPTED, BROKEN_PIPE = 1, 130, 141


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"orthrus-mlx: error: {one_line(message)}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own); returns the exit code, wrong usage exits with 2."""
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit; the null device takes what is left without a complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _run(argv: Sequence[str]) -> int:
    parser = _parser(argv)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        # By the command's own parser, whose --help lists the flags that there are.
        getattr(args, "parser", parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    _quiet_libraries()
    _read_and_write_any_text()
    try:
        return args.run(args)
    except OrthrusError as error:
        report(str(error), error if args.verbose else None)
        return FAILED
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if "MLX_RANK" in os.environ:
            from ..distributed.control import let_the_lost_speak

            let_the_lost_speak()
        hint = "" if args.verbose else " (not foreseen: please report it with the trace that --verbose shows)"
        report(f"{type(error).__name__}: {error}{hint}", error if args.verbose else None)
        return FAILED


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the flags of the command that `argv` names: only that one's module is imported."""
    parser = _Parser(
        prog="orthrus-mlx",
        description="Lossless block-diffusion decoding of Orthrus-Qwen3 models with MLX.",
        epilog="Start with `orthrus-mlx chat`: it runs a small demo model. `orthrus-mlx COMMAND --help` shows flags.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"orthrus-mlx {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            allow_abbrev=False,
            # A command may give --verbose a meaning of its own.
            conflict_handler="resolve",
        )
        if argv and argv[0] == name:
            module = import_module(f"{__package__}.{name}")
            command.add_argument("--verbose", action="store_true", help="show the trace of an error")
            module.add_arguments(command)
            command.set_defaults(run=module.run, parser=command)
    return parser


def _quiet_libraries() -> None:
    """Keep the libraries' advice about PyTorch and unknown model types off the terminal; the user's settings win."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _read_and_write_any_text() -> None:
    """Text is UTF-8 when it comes in; what an output's encoding lacks goes out as "?"."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
