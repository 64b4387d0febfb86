"""What every family shares: examples, verdicts, question templates and the held-out split."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from zlib import crc32

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}

FAMILIES = ("reasoning", "json", "code", "prose", "dialogue")

HELD_VALUES = 20  # one combination of slot values in 20 is never trained on
HELD_PARAPHRASES = 10  # one paraphrase in 10 is never trained on


@dataclass(frozen=True)
class Example:
    """One conversation whose last message is the reference answer.

    `expected` is JSON-able data for the checker, about the last answer only. `paraphrase` names the
    wording of the question (`shape/index`). `raw` examples are not chat-formatted: question, newline, answer.
    """

    family: str
    shape: str
    messages: list[Message]
    expected: dict[str, Any]
    paraphrase: str
    raw: bool = False

    @property
    def prompt(self) -> list[Message]:
        """The conversation up to the last question."""
        return self.messages[:-1]

    @property
    def reference(self) -> str:
        """The answer the model is trained to give."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class Verdict:
    """A checker's result; `reason` is empty when `ok`."""

    ok: bool
    reason: str = ""


@dataclass(frozen=True)
class Split:
    """Which part of the corpus an example is drawn from.

    `values` asks for combinations of slot values that are held out, `paraphrases` for held-out wordings.
    """

    values: bool = False
    paraphrases: bool = False

    def accepts(self, shape: str, values: Sequence[object]) -> bool:
        """Whether this combination of slot values belongs to this split."""
        return (stable_hash(shape, *values) % HELD_VALUES == 0) == self.values

    def wordings(self, shape: str, count: int) -> list[int]:
        """The indices of `shape`'s `count` paraphrases that belong to this split (may be empty)."""
        return _wordings(shape, count, self.paraphrases)


TRAIN = Split()

_cache: dict[tuple[str, int, bool], list[int]] = {}


def _wordings(shape: str, count: int, held: bool) -> list[int]:
    key = (shape, count, held)
    if key not in _cache:
        # count/10 of them on average: at most one below ten paraphrases, so that no shape loses its wordings.
        quota, rest = divmod(count, HELD_PARAPHRASES)
        quota += stable_hash(shape, "quota") % HELD_PARAPHRASES < rest
        ranked = sorted(range(count), key=lambda index: stable_hash(shape, "wording", index))
        _cache[key] = sorted(ranked[:quota]) if held else sorted(ranked[quota:])
    return _cache[key]


def stable_hash(*parts: object) -> int:
    """A 32-bit hash of the parts' text, the same in every process (Python's own is randomised)."""
    value = crc32("\x1f".join(map(str, parts)).encode())
    # crc32 is linear, which shows in the low bits of similar strings; one multiply-xorshift round mixes them.
    value = (value ^ (value >> 15)) * 0x2C1B3C6D & 0xFFFFFFFF
    value = (value ^ (value >> 12)) * 0x297A2D39 & 0xFFFFFFFF
    return value ^ (value >> 15)


@dataclass(frozen=True)
class Template:
    """Text with `[one|another]` choices and `{slot}` places."""

    text: str
    parts: tuple[tuple[str, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        pieces = re.split(r"\[([^\[\]]*)\]", self.text)
        parts = tuple(tuple(piece.split("|")) if index % 2 else (piece,) for index, piece in enumerate(pieces))
        object.__setattr__(self, "parts", parts)

    def render(self, rng: Random, slots: Mapping[str, object]) -> str:
        """Pick every choice, then fill the slots."""
        return "".join(
            part[0] if len(part) == 1 else part[int(rng.random() * len(part))] for part in self.parts
        ).format_map(slots)


Sampler = Callable[[Random], Any]


def ints(low: int, high: int, step: int = 1) -> Sampler:
    """Uniform integers of `low, low + step, ...` up to `high` included."""
    size = (high - low) // step + 1
    return lambda rng: low + step * int(rng.random() * size)


def pick(pool: Sequence[Any]) -> Sampler:
    """A uniform member of `pool`."""
    size = len(pool)
    return lambda rng: pool[int(rng.random() * size)]


def user(content: str) -> Message:
    """A user turn."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """An assistant turn."""
    return {"role": "assistant", "content": content}


def system(content: str) -> Message:
    """A system prompt."""
    return {"role": "system", "content": content}
