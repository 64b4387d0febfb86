"""A question shape: slots to draw, ways to ask, and the one way to solve it step by step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from orthrus_mlx.training.corpus.core import Sampler, Split, Template
from orthrus_mlx.training.corpus.words import SINGULAR, article

Slots = dict[str, Any]
Solution = tuple[list[str], object]  # step lines, final answer


@dataclass(frozen=True)
class Shape:
    """One question shape.

    `plan` is the answer's first line, said before the steps, where the steps do not begin with such a line
    themselves. `where` rejects combinations; `derive` adds slots the questions need (a total, a plural); `vary` maps a
    slot to the phrase by which a follow-up question changes it ("the width is {b}").
    """

    name: str
    slots: Mapping[str, Sampler]
    ask: Sequence[Template]
    solve: Callable[..., Solution]
    plan: Template | None
    where: Callable[..., bool] | None
    derive: Callable[..., Slots] | None
    vary: Mapping[str, Template]
    weight: float

    def draw(self, rng: Random, split: Split) -> Slots:
        """Slot values that satisfy `where` and belong to `split`."""
        while True:
            slots = {name: sample(rng) for name, sample in self.slots.items()}
            if self.where is not None and not _call(self.where, slots):
                continue
            if split.accepts(self.name, self.key(slots)):
                return self.complete(slots)

    def key(self, slots: Slots) -> list[object]:
        """The values that decide the split: the numbers, or every slot where there is at most one number."""
        numbers = [value for name, value in slots.items() if name in self.slots and isinstance(value, int)]
        return list(numbers) if len(numbers) > 1 else [slots[name] for name in self.slots]

    def redraw(self, rng: Random, slots: Slots, name: str, split: Split) -> Slots:
        """The same question with another value of one slot; the same slots again if none fits."""
        base = {key: slots[key] for key in self.slots}
        for _ in range(20):
            other = {**base, name: self.slots[name](rng)}
            allowed = self.where is None or _call(self.where, other)
            if other != base and allowed and split.accepts(self.name, self.key(other)):
                return self.complete(other)
        return slots

    def complete(self, slots: Slots) -> Slots:
        """Add what only the wording needs."""
        slots = dict(slots)
        if "item" in slots:
            slots["one"] = SINGULAR[slots["item"]]
            slots["a_one"] = article(slots["one"])
        if self.derive is not None:
            slots |= _call(self.derive, slots)
        return slots

    def answer(self, slots: Slots) -> Solution:
        """All lines before the final sentence, and the final answer."""
        steps, answer = _call(self.solve, slots)
        return ([self.plan.text.format_map(slots), *steps] if self.plan else steps), answer

    def is_mental(self, slots: Slots) -> bool:
        """Whether one operation on the question's own numbers gives the answer, so that no step need be written."""
        steps, _ = _call(self.solve, slots)
        return [any(map(str.isdigit, line)) for line in steps].count(True) == 1 and "=" in steps[-1]


SHAPES: dict[str, Shape] = {}


def shape(
    name: str,
    *,
    slots: Mapping[str, Sampler],
    ask: Sequence[str],
    plan: str | None = None,
    where: Callable[..., bool] | None = None,
    derive: Callable[..., Slots] | None = None,
    vary: Mapping[str, str] | None = None,
    weight: float = 1.0,
) -> Callable[[Callable[..., Solution]], Callable[..., Solution]]:
    """Register the decorated solver under `name`; its parameters are slot names."""

    def register(solve: Callable[..., Solution]) -> Callable[..., Solution]:
        assert name not in SHAPES, name
        templates = [Template(text) for text in ask]
        phrases = {key: Template(text) for key, text in (vary or {}).items()}
        lead = Template(plan) if plan else None
        SHAPES[name] = Shape(name, slots, templates, solve, lead, where, derive, phrases, weight)
        return solve

    return register


_parameters: dict[Callable[..., Any], tuple[str, ...]] = {}


def _call(function: Callable[..., Any], slots: Slots) -> Any:
    if function not in _parameters:
        _parameters[function] = tuple(inspect.signature(function).parameters)
    return function(*[slots[name] for name in _parameters[function]])
