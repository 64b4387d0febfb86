"""Replay recorded or invented texts under any policy and any cost of passes: no model, no device, no clock.

Rule A makes the text independent of the policy, so a trace of what would have been drafted at every position tells what
every policy would have emitted, cycle by cycle, and a table of costs how long it would have taken.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from orthrus_mlx.decoding.belief import CERTAIN_POWER
from orthrus_mlx.decoding.costs import AR as AR_VIEW
from orthrus_mlx.decoding.costs import DIFFUSION, CostTable, Pass
from orthrus_mlx.decoding.ngram import NGramIndex
from orthrus_mlx.decoding.steps import (
    AR,
    CERTAINTIES,
    CHAIN,
    NGRAM,
    Candidates,
    Draft,
    Outcome,
    Policy,
    Situation,
    Step,
)

MOST_ROWS = 32

MISSING = 255
"""In place of a rank: the emitted token is not among the candidates, or the text has ended."""

BEYOND = 256

WRONG = 1_000_000
"""Candidates that the text does not take only need to differ from it and from each other: ids from here on."""


@dataclass(frozen=True)
class Trace:
    """A text and its drafts.

    Attributes:
        prompt, answer: ids.
        confidences: by width W of the draft pass, [A, W-1, C]: probability of candidate c for position i behind anchor
            a. Anchor 0 is the prompt's last token, anchor a the answer's a-th.
        ranks: by width, [A, W-1]: which candidate the text took, or `MISSING`.
        certainties: [A], the probability that the target gave to each token of the answer.
    """

    prompt: Sequence[int]
    answer: Sequence[int]
    confidences: dict[int, np.ndarray]
    ranks: dict[int, np.ndarray]
    certainties: Sequence[float]
    ends: bool = False

    def draft(self, anchor: int, rows: int) -> tuple[Draft, list[int]]:
        """The draft of a pass of `rows` rows, taken from the next recorded width, and the ranks behind it."""
        width = min(w for w in self.ranks if w >= rows)
        ranks = [int(rank) for rank in self.ranks[width][anchor][: rows - 1]]
        confidences = self.confidences[width][anchor][: rows - 1].tolist()
        tokens = []
        for position, rank in enumerate(ranks):
            tokens.append([WRONG + j for j in range(len(confidences[position]))])
            if rank != MISSING:
                tokens[-1][rank] = self.answer[anchor + position]
        return Draft(tokens, confidences), ranks


def load_traces(path: Path) -> dict[str, list[Trace]]:
    """Traces by family from a file of `record_traces.py`."""
    families: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    with np.load(path) as file:
        for name in file.files:
            family, number, what = name.split("/", 2)
            families.setdefault(family, {}).setdefault(number, {})[what] = file[name]
    return {family: [_trace(arrays) for arrays in texts.values()] for family, texts in families.items()}


def _trace(arrays: dict[str, np.ndarray]) -> Trace:
    widths = [int(name.split("/")[1]) for name in arrays if name.startswith("ranks/")]
    return Trace(
        arrays["prompt"].tolist(),
        arrays["answer"].tolist(),
        {w: (arrays[f"confidences/{w}"] / 255.0) ** 2 for w in widths},
        {w: arrays[f"ranks/{w}"] for w in widths},
        ((arrays["certainties"] / 255.0) ** 2).tolist(),
        ends=True,
    )


def invented_trace(acceptance: Sequence[float], seed: int = 0, width: int = 32, noise: float = 0.7) -> Trace:
    """A text whose token t is drafted right, just behind an accepted one, with probability acceptance[t].

    Farther ahead drafts get worse (their odds fall by 2 % a position). A token that is hard is hard from every anchor
    before it, as in a real text. Confidences scatter around the truth by `noise` in log-odds. One wrong token in three
    is the second candidate. The target is certain of as many tokens as `belief` takes it to be.
    """
    rng = np.random.default_rng(seed)
    n = len(acceptance)
    chance = np.clip(np.asarray(acceptance, float), 1e-6, 1 - 1e-6)
    luck = rng.random(n)
    second = rng.random(n) < 1 / 3
    confidences = np.zeros((n, width - 1, 3))
    ranks = np.full((n, width - 1), MISSING, np.uint8)
    for anchor in range(n):
        ahead = min(width - 1, n - anchor)
        log_odds = np.log(chance / (1 - chance))[anchor : anchor + ahead] - 0.02 * np.arange(ahead)
        right = luck[anchor : anchor + ahead] < 1 / (1 + np.exp(-log_odds))
        ranks[anchor, :ahead] = np.where(right, 0, np.where(second[anchor : anchor + ahead], 1, MISSING))
        first = 1 / (1 + np.exp(-(log_odds + noise * rng.standard_normal(ahead))))
        confidences[anchor, :ahead, 0] = first
        confidences[anchor, :ahead, 1] = (1 - first) / 3
        confidences[anchor, :ahead, 2] = (1 - first) / 10
    certainties = np.where(rng.random(n) < chance**CERTAIN_POWER, 0.99 + 0.01 * rng.random(n), rng.random(n))
    # Ids that never repeat: n-gram matches are not part of an invented text.
    return Trace([n, n + 1, n + 2], list(range(n)), {width: confidences}, {width: ranks}, certainties.tolist())


@dataclass(frozen=True)
class Machine:
    """What passes take: milliseconds of a pass, of waiting for the device, and how much single cycles scatter.

    `ahead`: whether a step is asked for while the one before it is under way, as it is on all devices but the CPU.
    `given`: whether the first token comes with the prompt, as it does in NumPy on the CPU.
    `cold`: by what share the first, second, .. one-token step behind a cycle with drafts takes longer than later ones.
    """

    cost: Callable[[str, int, int], float]
    sync_ms: float = 0.0
    noise: float = 0.0
    padded: Callable[[int], int] = int
    ahead: bool = True
    given: bool = False
    cold: Sequence[float] = ()

    def table(self, error: float = 1.0) -> CostTable:
        """What the package would measure on it; `error` times too much for passes of several rows."""
        passes = [
            Pass(view, rows, context, self.cost(view, rows, context) * (error if rows > 1 else 1.0))
            for view in (AR_VIEW, DIFFUSION)
            for rows in (1, 2, 4, 8, 16, 24, 32)
            for context in (0, 1024, 4096)
        ]
        return CostTable(passes, self.sync_ms)


@dataclass
class Run:
    """What a replay did: tokens, milliseconds, the milliseconds of one-token steps alone, cycles by kind and rows."""

    tokens: int = 0
    ms: float = 0.0
    plain_ms: float = 0.0
    cycles: Counter = field(default_factory=Counter)

    @property
    def speedup(self) -> float:
        return self.plain_ms / self.ms


def replay(
    trace: Trace, policy: Policy, machine: Machine, *, seed: int = 0, ngrams: bool = True, beyond: int = BEYOND
) -> Run:
    """Decode the trace's answer as the decode loop would.

    Args:
        beyond: tokens that the request allows behind the answer's end, which the policy cannot foresee.

    Raises:
        AssertionError: the policy asks for what the loop cannot do.
    """
    rng = random.Random(seed)
    text = NGramIndex(trace.prompt)
    run, emitted, ahead, warm = Run(), 0, None, len(machine.cold)
    while emitted < len(trace.answer):
        given = machine.given and emitted == 0
        situation, step = ahead or _asked(trace, policy, text, emitted, ngrams, beyond, given=given)
        ahead = None
        context, left = situation.context, len(trace.answer) - emitted
        noise = rng.lognormvariate(0.0, machine.noise) if machine.noise else 1.0
        if step.kind == AR:
            tokens = min(step.steps, left)
            text.extend(trace.answer[emitted : emitted + tokens - 1])
            if tokens < left and machine.ahead:
                ahead = _asked(trace, policy, text, emitted + tokens, ngrams, beyond, lacking=1)
            text.extend(trace.answer[emitted + tokens - 1 : emitted + tokens])
            longer = sum(machine.cold[warm : warm + tokens])
            passes = tokens + longer - given
            ms = passes * machine.cost(AR_VIEW, machine.padded(1), context) * noise
            warm += tokens
            if tokens == step.steps:
                certainties = trace.certainties[emitted : emitted + tokens][-CERTAINTIES:]
                policy.observe(Outcome(step, context, 0, 1, tokens, 0, (), 0, ms / 1e3, certainties=certainties))
            run.cycles[AR, 1] += tokens
        else:
            candidates, confidences = _candidates(trace, policy, step, situation, text, emitted)
            rows = len(candidates.tokens) + 1
            assert rows <= step.verify_rows
            path, verified = _accepted(candidates, trace.answer[emitted:])
            tokens = min(len(path) + 1, left)
            ms = machine.sync_ms * (1 + step.look) + machine.cost(AR_VIEW, machine.padded(rows), context)
            if step.draft_rows:
                ms += machine.cost(DIFFUSION, step.draft_rows, context)
            ms *= noise
            on_path = [confidences[node] for node in verified] if confidences else []
            followed = [candidates.tokens[node] for node in verified]
            counts = (rows, tokens, len(verified), on_path, len(path), ms / 1e3, followed)
            policy.observe(Outcome(step, context, step.draft_rows, *counts))
            text.extend(trace.answer[emitted : emitted + tokens])
            run.cycles[step.kind, rows] += 1
            warm = 0
        emitted += tokens
        run.tokens += tokens
        run.ms += ms
        run.plain_ms += (tokens - given) * machine.cost(AR_VIEW, machine.padded(1), context)
    return run


def _asked(
    trace: Trace,
    policy: Policy,
    text: NGramIndex,
    emitted: int,
    ngrams: bool,
    beyond: int,
    lacking: int = 0,
    given: bool = False,
) -> tuple[Situation, Step]:
    """The situation after `emitted` tokens, of which `text` may lack the last, and what the policy makes of it."""
    room = len(trace.answer) - emitted + beyond
    tokens, order = text.find(min(room, MOST_ROWS) - 1) if ngrams else ((), 0)
    first = trace.answer[0] if emitted > lacking else None
    situation = Situation(len(trace.prompt) + emitted - 1, room, len(tokens), order, first=first, given=given)
    step = policy.step(situation)
    if step.kind == AR:
        return situation, step
    rows = min(step.verify_rows, room)
    return situation, Step(AR) if rows < 2 else replace(step, verify_rows=rows)


def _candidates(
    trace: Trace, policy: Policy, step: Step, situation: Situation, text: NGramIndex, anchor: int
) -> tuple[Candidates, list[float]]:
    """What is verified, and the confidence of each node where the policy learns from them."""
    if step.kind == NGRAM:
        tokens = tuple(text.find(step.verify_rows - 1)[0])
        return Candidates(tokens, tuple(range(-1, len(tokens) - 1))), []
    draft, ranks = trace.draft(anchor, step.draft_rows)
    if not step.look:
        assert step.kind == CHAIN
        tokens = tuple(position[0] for position in draft.tokens[: step.verify_rows - 1])
        return Candidates(tokens, tuple(range(-1, len(tokens) - 1))), [position[0] for position in draft.confidences]
    end = len(trace.answer) - anchor
    if trace.ends and end <= len(ranks) and ranks[end - 1] == 0:
        draft = Draft(draft.tokens[:end], draft.confidences[:end])
    if step.kind == CHAIN:
        draft = Draft([t[:1] for t in draft.tokens], [c[:1] for c in draft.confidences])
    tokens, order = text.find(situation.room - 1) if situation.ngram else ((), 0)
    candidates = policy.shape(step, draft, replace(situation, ngram_tokens=tokens, ngram_order=order))
    depths: list[int] = []
    confidences = []
    for token, parent in zip(candidates.tokens, candidates.parents, strict=True):
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
        offered = list(draft.tokens[depths[-1]]) if depths[-1] < len(draft.tokens) else []
        confidences.append(draft.confidences[depths[-1]][offered.index(token)] if token in offered else 0.0)
    return candidates, confidences


def _accepted(candidates: Candidates, answer: Sequence[int]) -> tuple[list[int], list[int]]:
    """(accepted nodes, the same and the first rejected one)."""
    path: list[int] = []
    node = -1
    while len(path) < len(answer):
        children = [i for i, parent in enumerate(candidates.parents) if parent == node]
        taken = [i for i in children if candidates.tokens[i] == answer[len(path)]]
        if not taken:
            return path, path + children[:1]
        node = taken[0]
        path.append(node)
    return path, path
