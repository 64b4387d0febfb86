"""What the decode loop and a policy say to each other: plain data, no device code.

The loop describes the situation; the policy answers with a step; after a draft that was read, the policy shapes
what is verified; afterwards it is told the outcome. Any answer is lossless (rule A), so a policy can only be slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

AR = "ar"
CHAIN = "chain"
TREE = "tree"
NGRAM = "ngram"
KINDS = (AR, CHAIN, TREE, NGRAM)

CERTAINTIES = 2
"""One-token steps of a run, its last ones, whose certainty is computed: a look through the vocabulary each."""


@dataclass(slots=True)
class Situation:
    """What is known before a cycle.

    Attributes:
        context: verified tokens in the cache.
        room: most tokens that may still be emitted.
        ngram: drafts that an n-gram match in prompt + output offers; 0 where there is none.
        ngram_order: tokens of text that the match rests on.
        ngram_tokens: these drafts, where a draft that was read is to be shaped.
        first: the first token of the answer, once it is known.
        given: whether the pending token's logits came with the prompt, so that a one-token step takes no pass.
    """

    context: int
    room: int
    ngram: int = 0
    ngram_order: int = 0
    ngram_tokens: Sequence[int] = ()
    first: int | None = None
    given: bool = False


@dataclass(frozen=True)
class Step:
    """What the next cycle does.

    Attributes:
        kind: AR a one-token step; CHAIN drafts of a diffusion pass, verified in order; TREE the same pass with several
            candidates a position; NGRAM the match of the situation, no draft pass.
        draft_rows: rows of the diffusion pass, the anchor included (0 without one); rows - 1 positions are drafted.
        verify_rows: most rows of the target pass, the pending token included.
        look: read the draft before verifying it and let `Policy.shape` decide what is verified; costs a host
            synchronisation. TREE always looks.
        steps: of AR, how many one-token steps are taken before the policy is asked again.
    """

    kind: str
    draft_rows: int = 0
    verify_rows: int = 1
    look: bool = False
    steps: int = 1


@dataclass(frozen=True)
class Draft:
    """A draft pass, read.

    Attributes:
        tokens: tokens[i] are the candidates of draft position i, the likeliest (by rule A's score) first.
        confidences: confidences[i][j] is the probability that the diffusion view gives candidate j at position i, in
            its softmax at the request's temperature (at temperature 1 where greedy), before filters.
    """

    tokens: Sequence[Sequence[int]]
    confidences: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Candidates:
    """What is verified behind the pending token: nodes of a tree, parents first. A chain is parents -1, 0, 1, ...

    Attributes:
        tokens: a token per node.
        parents: parents[i] < i is node i's parent; -1 is the pending token. Siblings have different tokens.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]


@dataclass(slots=True)
class Outcome:
    """What a cycle did.

    Attributes:
        step: the step that was taken.
        context: verified tokens in the cache before it.
        draft_rows: rows of its diffusion pass; 0 where there was none.
        rows: rows that the target pass verified, the pending token included.
        tokens: tokens emitted: of AR, `step.steps`.
        drafts: drafts verified along the accepted path and its first rejection: what calibration may learn from.
        confidences: the confidence of each of these, where they were read; 0 of one that the draft did not offer.
        accepted: of `drafts`, how many leading ones were accepted.
        seconds: wall time, the consumer's not counted; 0 where others shared the passes and it would say nothing.
        path: the tokens of `drafts`.
        certainties: of one-token steps, the probability that the target gave each token, measured as confidences are;
            empty where they were not read.
    """

    step: Step
    context: int
    draft_rows: int
    rows: int
    tokens: int
    drafts: int
    confidences: Sequence[float]
    accepted: int
    seconds: float
    path: Sequence[int] = ()
    certainties: Sequence[float] = ()


@dataclass(slots=True)
class Prediction:
    """What a policy expected of a cycle: tokens emitted, its milliseconds, and those of a one-token step instead."""

    tokens: float
    ms: float
    plain_ms: float


class NGrams(Protocol):
    """An index of the text so far that offers what followed its last words before."""

    def extend(self, tokens: Sequence[int]) -> None:
        """`tokens` were added to the text."""

    def find(self, most: int) -> tuple[Sequence[int], int]:
        """(drafts, at most `most`; tokens of text that the match rests on): empty and 0 where there is no match."""


class Policy(Protocol):
    """The loop may ask for the next step before it tells the outcome of the one-token step before it."""

    @property
    def learns(self) -> bool:
        """Whether it wants confidences and certainties, which cost a look through the vocabulary, and n-grams."""

    @property
    def prediction(self) -> Prediction | None:
        """Of the cycle whose outcome was observed last; None where nothing is predicted."""

    def step(self, situation: Situation) -> Step:
        """The next cycle."""

    def shape(self, step: Step, draft: Draft, situation: Situation) -> Candidates:
        """What to verify of a draft that was read, at most `step.verify_rows` - 1 nodes; none is a one-token step."""

    def observe(self, outcome: Outcome) -> None:
        """Called once per cycle, in order."""
