"""The corpus itself: the family mix, training documents by index, held-out examples, the checker."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from types import ModuleType

from orthrus_mlx.errors import TrainingError
from orthrus_mlx.training.corpus import code, dialogue, json_tables, prose, reasoning
from orthrus_mlx.training.corpus.chat import render_document
from orthrus_mlx.training.corpus.core import TRAIN, Example, Split, Verdict, stable_hash

_MODULES: dict[str, ModuleType] = {
    "reasoning": reasoning,
    "json": json_tables,
    "code": code,
    "prose": prose,
    "dialogue": dialogue,
}
# Share of documents per family.
MIX = {"reasoning": 0.35, "json": 0.25, "code": 0.20, "prose": 0.12, "dialogue": 0.08}


def generate(rng: Random, family: str | None = None, split: Split = TRAIN) -> Example:
    """One example of `family` (by the mix when None), from the training part unless `split` says otherwise."""
    if family is None:
        family = rng.choices(list(MIX), list(MIX.values()))[0]
    return _module(family).generate(rng, split)


def training_document(seed: int, index: int) -> str:
    """Document `index` of the corpus `seed`: depends on these two numbers only."""
    return render_document(generate(_rng("train", seed, index)))


def training_documents(seed: int, count: int, start: int = 0) -> Iterator[str]:
    """Documents `start .. start + count - 1`; several processes can each take their own range."""
    for index in range(start, start + count):
        yield training_document(seed, index)


def heldout(family: str, count: int, seed: int, unseen_paraphrases: bool = False) -> list[Example]:
    """`count` different examples whose values training never shows; with `unseen_paraphrases` in unseen wordings too.

    Raw examples are left out: every one is a chat.
    """
    split = Split(values=True, paraphrases=unseen_paraphrases)
    examples: dict[str, Example] = {}
    index = 0
    while len(examples) < count and index < 100 * count + 1000:
        example = generate(_rng("held", seed, index), family, split)
        index += 1
        if not example.raw:
            examples.setdefault(str(example.prompt), example)
    if len(examples) < count:
        raise TrainingError(f"family {family!r} has only {len(examples)} such held-out examples, {count} asked for")
    return list(examples.values())


def check(example: Example, answer_text: str) -> Verdict:
    """Judge an answer to `example`'s last question by its family's checker."""
    return _module(example.family).check(example.expected, answer_text)


def _module(family: str) -> ModuleType:
    try:
        return _MODULES[family]
    except KeyError:
        raise TrainingError(f"unknown corpus family {family!r}; choose from {', '.join(_MODULES)}") from None


def _rng(*parts: object) -> Random:
    return Random(stable_hash(*parts) << 32 | stable_hash("second", *parts))
