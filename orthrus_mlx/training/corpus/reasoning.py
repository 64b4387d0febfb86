"""The reasoning family: word problems, solved step by step in one wording per question shape."""

from __future__ import annotations

import re
from random import Random
from typing import Any

# The shape modules register what they define; nothing of them is used by name.
from orthrus_mlx.training.corpus import (  # noqa: F401
    reasoning_logic,
    reasoning_measure,
    reasoning_numbers,
    reasoning_people,
    reasoning_time,
)
from orthrus_mlx.training.corpus.core import Example, Message, Split, Template, Verdict, assistant, user
from orthrus_mlx.training.corpus.shape import SHAPES, Shape, Slots
from orthrus_mlx.training.corpus.styles import Style, draw_style, dress, undress

_LEADS = ("Question: ", "Please help me. ", "Quick question: ", "Solve this: ", "Hi! ", "I have a question. ", "Task: ")
_TAILS = (" Show your steps.", " Explain your answer.", " Thank you!", " Please solve it step by step.", " Thanks.")
_VARY = (
    "And if {phrase}?",
    "What if {phrase}?",
    "And when {phrase}?",
    "Now suppose {phrase}.",
    "Same question, but {phrase}.",
    "What about the case that {phrase}?",
)
_NUMBER_ONLY = Style(
    "number",
    ("Answer with the number only.", "Reply only with the number.", "Give just the number as the answer."),
)
_SHORT = Style(
    "short",
    (
        "You are a concise assistant.",
        "Give only the final sentence, no steps.",
        "Keep answers to one sentence.",
        "Be brief and leave out the steps.",
    ),
)
_AGAIN = (
    ("Are you sure?", "Yes. The answer is {answer}."),
    ("Is that correct?", "Yes. The answer is {answer}."),
    ("Repeat only the result, please.", "The answer is {answer}."),
    ("Give me just the final answer.", "The answer is {answer}."),
    ("Can you say the result again?", "The answer is {answer}."),
    ("In short?", "The answer is {answer}."),
)

_names = list(SHAPES)
_weights = [SHAPES[name].weight for name in _names]


def generate(rng: Random, split: Split, shape: str | None = None) -> Example:
    """One reasoning conversation; `shape` fixes the question shape."""
    while True:
        chosen = SHAPES[shape or rng.choices(_names, _weights)[0]]
        wordings = split.wordings(f"reasoning/{chosen.name}", len(chosen.ask))
        if wordings:
            return _conversation(rng, split, chosen, wordings)


def _conversation(rng: Random, split: Split, shape: Shape, wordings: list[int]) -> Example:
    slots = shape.draw(rng, split)
    wording = rng.choice(wordings)
    question = _ask(rng, shape.ask[wording], slots)
    steps, answer = shape.answer(slots)
    raw = rng.random() < 0.05
    messages, style = ([], "") if raw else draw_style(rng, *_special_styles(shape, slots))
    lead = rng.random()
    if not raw and lead < 0.15:
        question = rng.choice(_LEADS) + question
    elif not raw and lead < 0.3:
        question += rng.choice(_TAILS)
    messages += [user(question), assistant(_answer(steps, answer, style))]
    if not raw:
        _follow_up(rng, split, shape, slots, style, messages)
        answer = _last_answer(messages, style)
    expected = {"answer": str(answer), "style": style}
    return Example("reasoning", shape.name, messages, expected, f"{shape.name}/{wording}", raw)


def _special_styles(shape: Shape, slots: Slots) -> tuple[Style, ...]:
    # An answer without steps leaves no room to compute in.
    if not shape.is_mental(slots):
        return ()
    _, answer = shape.answer(slots)
    return (_NUMBER_ONLY, _SHORT) if _number(str(answer)) else (_SHORT,)


def _ask(rng: Random, template: Template, slots: Slots) -> str:
    question = template.render(rng, slots)
    # People forget the question mark and the capital; a name that opens the question keeps its own.
    if question.endswith("?") and rng.random() < 0.06:
        question = question[:-1]
    if template.text[0] != "{" and rng.random() < 0.05:
        return question[0].lower() + question[1:]
    return question[0].upper() + question[1:]


def _answer(steps: list[str], answer: object, style: str) -> str:
    final = f"The answer is {answer}."
    if style == "number":
        return _number(str(answer))
    if style == "short":
        return final
    return dress("\n".join([*steps, final]), style)


def _number(text: str) -> str:
    match = re.match(r"\d+$|\d+(?= )", text)
    return match.group() if match else ""


def _follow_up(rng: Random, split: Split, shape: Shape, slots: Slots, style: str, messages: list[Message]) -> None:
    """Append up to three more turns: other values for one slot, or a question about the result."""
    while shape.vary and rng.random() < 0.3 and len(messages) < 7:
        name = rng.choice(list(shape.vary))
        other = shape.redraw(rng, slots, name, split)
        if other is slots:
            return
        slots = other
        phrase = shape.vary[name].render(rng, slots)
        steps, answer = shape.answer(slots)
        question = rng.choice(_VARY).replace("{phrase}", phrase)
        messages += [user(question), assistant(_answer(steps, answer, style))]
    if rng.random() < 0.04 and style == "":
        question, reply = rng.choice(_AGAIN)
        _, answer = shape.answer(slots)
        messages += [user(question), assistant(reply.format(answer=answer))]


def _last_answer(messages: list[Message], style: str) -> str:
    text, _ = undress(messages[-1]["content"], style)
    return text if style == "number" else _final(text)


def _final(text: str) -> str:
    """What stands after the last "The answer is", without the full stop; "" if nothing does."""
    _, found, tail = text.rpartition("The answer is ")
    return tail.strip().removesuffix(".") if found else ""


def check(expected: dict[str, Any], answer: str) -> Verdict:
    """Whether the final answer, its unit and the style are the expected ones."""
    style, want = expected["style"], expected["answer"]
    text, verdict = undress(answer, style)
    if not verdict.ok:
        return verdict
    got = text if style == "number" else _final(text)
    if style == "short" and "\n" in text:
        return Verdict(False, "more than one sentence where one was asked for")
    return Verdict(got == want, f"expected {want!r}, got {got!r}")
