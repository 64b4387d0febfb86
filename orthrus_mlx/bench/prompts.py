"""The prompts: fixed files beside this one, or the user's own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError

SETS = ("general", "demo")
"""general: for any chat model. demo: held-out questions of the families that the demo model was trained on."""


@dataclass(frozen=True)
class Prompt:
    """One line of a prompt file.

    Attributes:
        workload: what kind of text the answer is, such as "code".
        id: its name in reports.
        messages: the chat, up to the question.
        raw: the beginning of a text to go on with, without any format; None where the prompt is a chat only.
    """

    workload: str
    id: str
    messages: tuple[dict[str, str], ...]
    raw: str | None = None


def read_prompts(name: str) -> tuple[list[Prompt], str]:
    """The prompts of a set ("general", "demo") or of a JSONL file, and the text they were read from.

    Raises:
        BenchmarkError: no such set or file, or a line that is not a prompt.
    """
    if name in SETS:
        text = (files("orthrus_mlx.bench") / "prompts" / f"{name}.jsonl").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BenchmarkError(
                f"--prompts {name}: neither {' nor '.join(SETS)} nor a readable text file ({error})"
            ) from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    prompts = [_parse(line, f"{name} line {number}") for number, line in lines]
    if not prompts:
        raise BenchmarkError(f"--prompts {name}: no prompt in it")
    ids = [prompt.id for prompt in prompts]
    repeated = [i for i in ids if ids.count(i) > 1]
    if repeated:
        raise BenchmarkError(f"--prompts {name}: the id {repeated[0]!r} appears twice")
    return prompts, text


def workloads_of(prompts: Iterable[Prompt]) -> list[str]:
    """The workloads, in the order of the file."""
    return list(dict.fromkeys(prompt.workload for prompt in prompts))


def _parse(line: str, where: str) -> Prompt:
    try:
        value: Any = json.loads(line)
    except ValueError as error:
        raise BenchmarkError(f"{where}: not valid JSON ({error})") from None
    messages = value.get("messages") if isinstance(value, dict) else None
    chat = isinstance(messages, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
    )
    if not chat or not messages:
        raise BenchmarkError(f"{where}: expected {{'workload', 'id', 'messages': [{{'role', 'content'}}], 'raw'}}")
    names = [value.get("workload"), value.get("id")]
    raw = value.get("raw")
    if not all(isinstance(n, str) and n for n in names) or not isinstance(raw, str | None) or raw == "":
        raise BenchmarkError(f"{where}: workload and id must be texts, raw a text or left out")
    return Prompt(names[0], names[1], tuple(messages), raw)
