"""System prompts: most are neutral, some change an answer in a way a checker can see."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from orthrus_mlx.training.corpus.core import Message, Verdict, system


@dataclass(frozen=True)
class Style:
    """A persona line; `name` is "" for the neutral ones."""

    name: str
    prompts: tuple[str, ...]


NEUTRAL = Style(
    "",
    (
        "You are a helpful assistant.",
        "You are a small demonstration model.",
        "You are a friendly assistant.",
        "You are a patient teacher.",
        "You help people with short tasks.",
        "Answer the user's questions.",
        "You are Orthrus, a small demonstration model.",
        "Be helpful and polite.",
    ),
)
DONE = Style(
    "done",
    (
        "End every answer with the word Done.",
        "Always finish your answer with the word Done.",
        "After each answer write Done.",
        "Close every reply with the word Done.",
    ),
)
SURE = Style(
    "sure",
    (
        "Begin every answer with the word Sure.",
        "Always start your answer with the word Sure.",
        "Before each answer write Sure.",
        "Open every reply with the word Sure.",
    ),
)


def draw_style(rng: Random, *special: Style) -> tuple[list[Message], str]:
    """Maybe a system turn (in about one conversation in five), and the name of the style it asks for.

    `special` are the family's own styles; the three above are open to every family.
    """
    if rng.random() > 0.22:
        return [], ""
    pool = (NEUTRAL, NEUTRAL, NEUTRAL, DONE, SURE, *special)
    style = pool[int(rng.random() * len(pool))]
    return [system(rng.choice(style.prompts))], style.name


def dress(answer: str, style: str) -> str:
    """The answer with what the two general styles add."""
    if style == "done":
        return f"{answer}\nDone."
    if style == "sure":
        return f"Sure.\n{answer}"
    return answer


def undress(answer: str, style: str) -> tuple[str, Verdict]:
    """The answer without what `dress` added, and whether it was there."""
    text = answer.strip()
    if style == "done":
        return text.removesuffix("Done.").rstrip(), Verdict(text.endswith("Done."), "does not end with Done.")
    if style == "sure":
        return text.removeprefix("Sure.").lstrip(), Verdict(text.startswith("Sure."), "does not begin with Sure.")
    return text, Verdict(True)
