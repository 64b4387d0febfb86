"""The policy of `mode="auto"`: the step with the most expected tokens per millisecond, at a bounded risk.

Expected tokens come from the text's recent acceptance and certainty (`belief`), from the confidences of a draft that
was read (`calibration`) and from how n-gram matches fared; milliseconds come from the cost table. A step is only taken
if its worst case, nothing accepted, fits the text's *credit*: a little to begin with, a small share of the time of
every one-token step, and part of what drafts have gained. A text that looks predictable may go into *debt*, by a few
times what a step is expected to gain and up to a limit; before a draft is read, part of what verifying it may lose
counts, and the rest once its confidences are known. So whatever the text does, decoding takes at most that much longer
than one-token steps, and where these are so cheap that no cycle can repay itself, nothing is drafted at all. The first
token is a one-token step: with the prompt's last it tells what texts taught that began alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from operator import mul

from .belief import DOUBTFUL, Belief, Usual
from .calibration import TextShift
from .costs import AR as AR_VIEW
from .costs import DIFFUSION, CostTable
from .options import DEBT_PER_TOKEN, MARGIN, MOST_DEBT, MOST_READ_DEBT, MOST_TREE_GAIN, Means, Option
from .policy_memory import FIRST_CREDIT, GAIN_CARRIED, Genre, PolicyMemory
from .steps import AR, NGRAM, TREE, Candidates, Draft, Outcome, Prediction, Situation, Step
from .tree import Tree, best_tree

WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32)
"""Row counts considered: passes of every width are different work for the device, so not all of 1..32."""

INCOME = 0.015
"""Share of the time of one-token steps that may be spent on drafts that lose."""

MOST_CREDIT = 12.0
GAIN_AT_RISK = 0.5
"""A text may lose again this many one-token steps, or this share, of what it has gained and put by."""

RECHECK = 2
MOST_STEPS = 32
"""One-token steps between two considerations of drafting: twice as many each time while it promises nothing."""

SETTLED_STEPS = 4
"""The shortest run of one-token steps whose time says what a step costs: the first ones behind wide passes find cold
caches (a quarter more, an eighth, .. on the demo model's CPU), and would make drafting look good where it is not."""

FIRST_PATIENCE = 8
MOST_PATIENCE = 128
"""Tokens between two trials of drafting where it is not expected to pay: doubles while it does not."""


_GIVEN = Prediction(1.0, 0.0, 0.0)
"""Of the first token, where it takes no pass."""


@dataclass(frozen=True)
class _Shaped:
    """A draft that was read and what of it is verified: the first `nodes` nodes of `tree`.

    `branch` are the tokens of the n-gram match that the tree was offered.
    """

    tree: Tree
    nodes: int
    draft: Draft
    probabilities: Sequence[Sequence[float]]
    branch: Sequence[int]

    def on_branch(self) -> int:
        """How many drafts of the branch are verified."""
        node, drafts = -1, 0
        for token in self.branch:
            node = next((i for i in self.children(node) if self.tree.tokens[i] == token), -2)
            if node == -2:
                break
            drafts += 1
        return drafts

    def children(self, node: int) -> list[int]:
        return [i for i in range(self.nodes) if self.tree.parents[i] == node]


class AutoPolicy:
    """Chooses the steps of one text.

    Args:
        costs: of this model on this machine; corrected by what cycles take.
        memory: what other texts of the model taught.
        block_rows: most rows of a pass, the pending token included.
        prompt: what the text goes on from.
        padded: rows that a target pass of so many rows is computed with (`Exactness.padded`).
        trees: whether target passes over trees keep rule B here.
        sampled: whether tokens are drawn, not the likeliest.

    Attributes:
        prediction: of the cycle whose outcome was observed last.
    """

    learns = True

    def __init__(
        self,
        costs: CostTable,
        memory: PolicyMemory,
        *,
        block_rows: int,
        prompt: Sequence[int] = (),
        padded: Callable[[int], int] = int,
        trees: bool = False,
        sampled: bool = False,
    ):
        self._costs, self._memory = costs, memory
        self._padded, self._trees = padded, trees
        widths = (*(width for width in WIDTHS if width < block_rows), block_rows)
        self._by_context = memory.options(costs, widths, padded, trees)
        self._calibration = memory.calibration(sampled)
        self._ending = tuple(prompt[-1:])
        self._genre: Genre | None = None
        self._belief = Belief(Usual())
        self._credit = self._carried = FIRST_CREDIT
        self._gained = 0.0
        self._begun = False
        self._certain = 0
        self._steps = 1
        self._patience = FIRST_PATIENCE
        self._since_draft = FIRST_PATIENCE
        self._trial = False
        self._rate = 0.0
        self._order = 0
        self._shaped: _Shaped | None = None
        self._chain: Sequence[float] | None = None
        self._shift = TextShift()
        # The loop may ask for a step before it tells the outcome of the one before it.
        self._predictions: deque[Prediction] = deque()
        self.prediction: Prediction | None = None

    # Before a cycle ---------------------------------------------------------------------------------

    def step(self, situation: Situation) -> Step:
        self._shaped = self._chain = None
        self._trial = False
        if self._genre is None and situation.first is not None:
            self._enter(self._memory.genre((*self._ending, situation.first)))
        if situation.given:
            # It is the text's first step; the ones that follow may come in a run.
            self._steps = 2
            self._predictions.append(_GIVEN)
            return Step(AR)
        options = self._options = self._by_context.at(situation.context)
        plain, least = options.target[0], options.least_risk
        option = None
        means = self._means(plain)
        tokens = options.expected(self._belief.weights)
        hopeful = options.promise(tokens) > MARGIN
        if situation.room > 1 and (situation.ngram or means.credit + means.debt >= least):
            due = self._since_draft >= self._patience and means.credit >= least
            if hopeful or situation.ngram or due:
                option = self._best(situation, plain, means, tokens if hopeful else None)
            if option is None and due:
                option = self._try(situation, plain, means)
        if option is None:
            if self._genre is not None:
                self._steps = RECHECK if hopeful else min(2 * self._steps, MOST_STEPS)
            self._predictions.append(Prediction(1.0, plain, plain))
            return Step(AR, steps=self._steps)
        self._steps = 1
        self._rate = max(option.tokens / option.ms, 1.0 / plain)
        self._order = situation.ngram_order
        self._predictions.append(Prediction(option.tokens, option.ms, plain))
        return option.step

    def _enter(self, genre: Genre) -> None:
        """The text's beginning shows what genre it is of."""
        self._genre = genre
        self._belief.enter(genre.usual)
        self._credit += genre.credit - FIRST_CREDIT
        self._carried += genre.credit - FIRST_CREDIT

    def _best(self, situation: Situation, plain: float, means: Means, tokens: Sequence[float] | None) -> Option | None:
        """What promises to beat one-token steps by most.

        Args:
            tokens: that unread chains are expected to give; None where that is too few.
        """
        weights, room = self._belief.weights, situation.room
        given = self._ngram_option(situation, means)
        unread = self._options.unread(tokens, room, means) if tokens else None
        best = max(filter(None, (given, unread)), key=_rate, default=None)
        goal = max(MARGIN / plain, best.rate if best else 0.0)
        gain = self._memory.tree_gain if self._trees else 1.0
        best = self._options.read(weights, room, means, goal, gain) or best
        return best if best is not None and best.rate * plain > MARGIN else None

    def _try(self, situation: Situation, plain: float, means: Means) -> Option | None:
        """A trial, where it can be afforded."""
        genre = self._genre
        if genre is not None and means.credit < genre.wanted * plain:
            return None
        trial = self._options.trial(self._belief.usual.weights, situation.room, MOST_CREDIT * plain)
        self._trial = trial is not None and trial.risk <= means.credit
        # Until it is there, there is no need to look again.
        if genre is not None:
            genre.wanted = trial.risk / plain if trial is not None else MOST_CREDIT
        return trial if self._trial else None

    def _means(self, plain: float) -> Means:
        """What a step may lose where one-token steps take `plain` milliseconds."""
        return Means(self._credit * plain, min(MOST_DEBT, DEBT_PER_TOKEN * max(self._certain - 1, 0)) * plain)

    def _means_behind(self, draft_ms: float, plain: float) -> Means:
        """What verifying a draft may lose that was read, in `draft_ms` milliseconds."""
        return Means(self._credit * plain - draft_ms, MOST_READ_DEBT * plain)

    def _ngram_option(self, situation: Situation, means: Means) -> Option | None:
        if not situation.ngram:
            return None
        most = min(situation.ngram, situation.room - 1, self._options.widths[-1] - 1)
        accepted = self._memory.ngrams.accepted(situation.ngram_order, most)
        return self._options.given(accepted, means)

    # After a draft was read -------------------------------------------------------------------------

    def shape(self, step: Step, draft: Draft, situation: Situation) -> Candidates:
        most = min(step.verify_rows, situation.room, len(draft.tokens) + 1)
        self._options = self._by_context.at(situation.context)
        plain = self._options.target[0]
        spent = self._by_context.draft_ms(step.draft_rows, situation.context) + 2.0 * self._costs.sync_ms
        self._order = situation.ngram_order
        if step.kind == TREE:
            drafted, tokens, rows = self._best_tree(draft, situation, most, plain, spent)
            candidates = drafted.first(rows - 1)
        else:
            self._chain = [self._first_accepted(confidences) for confidences in draft.confidences[: most - 1]]
            tokens, rows = self._best_rows(list(accumulate(self._chain, mul)), plain, spent)
            candidates = Candidates(tuple(row[0] for row in draft.tokens[: rows - 1]), tuple(range(-1, rows - 2)))
        self._predictions[-1] = Prediction(tokens, spent + self._by_context.target_ms(rows, situation.context), plain)
        return candidates

    def _best_tree(
        self, draft: Draft, situation: Situation, most: int, plain: float, spent: float
    ) -> tuple[Tree, float, int]:
        """(tree or chain, expected tokens, rows) of at most `most` rows."""
        probabilities = [self._accepted(confidences) for confidences in draft.confidences[: most - 1]]
        chain = best_tree([t[:1] for t in draft.tokens[: most - 1]], [p[:1] for p in probabilities], most - 1)
        tree = best_tree(draft.tokens[: most - 1], probabilities, most - 1, self._branch(situation, most - 1))
        (tokens, rows), (tree_tokens, tree_rows) = (
            self._best_rows(each.probabilities, plain, spent) for each in (chain, tree)
        )
        if tree_rows > 1:
            self._learn_tree_gain(tree, chain, tree_rows)
        value, tree_value = (
            t - self._rate * self._by_context.target_ms(r, situation.context)
            for t, r in ((tokens, rows), (tree_tokens, tree_rows))
        )
        if tree_value > value + 0.01:
            self._shaped = _Shaped(tree, tree_rows - 1, draft, probabilities, situation.ngram_tokens)
            return tree, tree_tokens, tree_rows
        self._shaped = _Shaped(chain, rows - 1, draft, probabilities, ())
        return chain, tokens, rows

    def _branch(self, situation: Situation, most: int) -> list[tuple[int, float]]:
        """The n-gram match as a branch of a tree: its tokens and the chance of each behind those before it."""
        tokens = situation.ngram_tokens[:most]
        chances = self._memory.ngrams.chances(situation.ngram_order, len(tokens))
        return list(zip(tokens, chances, strict=True))

    def _accepted(self, confidences: Sequence[float]) -> list[float]:
        """Acceptance probabilities of a position's candidates, if the path before is accepted."""
        first = self._first_accepted(confidences)
        return [first, *self._calibration.others(confidences, first)]

    def _first_accepted(self, confidences: Sequence[float]) -> float:
        """The same of the first candidate."""
        return self._shift.apply(self._calibration.probability(confidences[0]))

    def _best_rows(self, probabilities: Sequence[float], plain: float, spent: float) -> tuple[float, int]:
        """(expected tokens, rows) of the number of rows worth most at the current rate.

        Args:
            probabilities: that each of the drafts, best first, is accepted and all before it.
            plain: milliseconds of a one-token step.
            spent: milliseconds that the draft took.
        """
        widths, target = self._options.widths, self._options.target
        means = self._means_behind(spent, plain)
        emitted = list(accumulate(probabilities, initial=1.0))
        # All of a draft that ends between two widths take no longer than the wider one.
        usable = range(bisect_left(widths, len(emitted)) + 1)
        rows = [min(widths[i], len(emitted)) for i in usable]
        tokens = [emitted[n - 1] for n in rows]
        covered = [i for i in usable if i == 0 or means.cover(target[i] - plain, tokens[i] * plain - target[i])]
        best = max(covered, key=lambda i: tokens[i] - self._rate * target[i])
        return tokens[best], rows[best]

    def _learn_tree_gain(self, tree: Tree, chain: Tree, rows: int) -> None:
        straight = sum(chain.probabilities[: rows - 1])
        if straight > 0:
            gain = sum(tree.probabilities[: rows - 1]) / straight
            self._memory.tree_gain += 0.1 * (min(gain, MOST_TREE_GAIN) - self._memory.tree_gain)

    # After a cycle ----------------------------------------------------------------------------------

    def observe(self, outcome: Outcome) -> None:
        expected = self.prediction = self._predictions.popleft()
        # The first pass waits for the prompt and finds caches cold: what it took is no pass's cost.
        measured = 1e3 * outcome.seconds if self._begun else 0.0
        self._begun = self._begun or expected is not _GIVEN
        if outcome.step.kind == AR:
            # Of every step of the run.
            self.prediction = Prediction(outcome.tokens, outcome.tokens * expected.ms, expected.plain_ms)
            self._learn_steps(outcome, measured)
        else:
            lasted = self._lasted(outcome, measured)
            self._book(outcome, outcome.tokens - lasted / self._by_context.target_ms(1, outcome.context))
        self._credit = min(self._credit, max(MOST_CREDIT, GAIN_AT_RISK * self._gained))
        carried = self._carried + self._gained * (GAIN_CARRIED if self._gained > 0 else 1.0)
        if self._genre is not None:
            self._genre.credit = min(carried, self._genre.most)
        self._belief.passed(outcome.tokens)

    def _learn_steps(self, outcome: Outcome, measured: float) -> None:
        """One-token steps were taken, in so many milliseconds (0: unknown)."""
        self._credit += INCOME * outcome.tokens
        self._carried += INCOME * outcome.tokens
        self._since_draft += outcome.tokens
        self._belief.chosen(outcome.certainties)
        for certainty in outcome.certainties:
            self._certain = 0 if certainty < DOUBTFUL else self._certain + 1
        if measured and outcome.tokens >= SETTLED_STEPS:
            expected = outcome.tokens * self._by_context.target_ms(1, outcome.context)
            self._costs.observe([(AR_VIEW, self._padded(1))], outcome.context, expected, measured)

    def _lasted(self, outcome: Outcome, measured: float) -> float:
        """Milliseconds that a cycle with drafts is taken to have lasted; the cost table learns what was `measured`."""
        passes = [(AR_VIEW, self._padded(outcome.rows))]
        expected = self._by_context.target_ms(outcome.rows, outcome.context)
        expected += (1 + outcome.step.look) * self._costs.sync_ms
        if outcome.draft_rows:
            passes.append((DIFFUSION, outcome.draft_rows))
            expected += self._by_context.draft_ms(outcome.draft_rows, outcome.context)
        if not measured:
            return expected
        self._costs.observe(passes, outcome.context, expected, measured)
        # One interruption is no reason to stop drafting, nor one lucky reading to go on.
        return min(max(measured, expected / 2), 2 * expected)

    def _book(self, outcome: Outcome, gain: float) -> None:
        """A cycle with drafts gained the time of `gain` one-token steps."""
        self._credit += gain
        self._gained += gain
        if outcome.step.kind == NGRAM:
            # That a match is not continued says nothing of the text's next drafts.
            self._memory.ngrams.observe(self._order, outcome.drafts, outcome.accepted)
            return
        self._certain = self._certain + outcome.accepted if gain > 0 else 0
        self._since_draft = 0
        if self._genre is not None:
            self._genre.wanted = 0.0
        if gain > 0:
            self._patience = FIRST_PATIENCE
        elif self._trial:
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        if self._shaped is None:
            unseen = None
            if self._chain is not None and outcome.accepted == outcome.drafts < len(self._chain):
                unseen = self._chain[outcome.accepted]
            self._belief.observe(outcome.drafts, outcome.accepted, unseen)
            hits = [depth < outcome.accepted for depth in range(len(outcome.confidences))]
            self._learn_confidences(outcome.confidences, hits)
        else:
            self._learn(self._shaped, outcome)

    def _learn(self, shaped: _Shaped, outcome: Outcome) -> None:
        """Follow the accepted path; what is learned is how far the first candidates alone would have come."""
        straight, failed = 0, False
        hits: list[bool] = []
        node = -1
        branch = shaped.on_branch()
        if branch:
            pairs = zip(outcome.path[: outcome.accepted], shaped.branch[:branch], strict=False)
            agreed = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            self._memory.ngrams.observe(self._order, branch, agreed)
        for depth in range(min(outcome.accepted + 1, len(shaped.probabilities))):
            children = shaped.children(node)
            if not children:
                break
            taken = self._taken(shaped, children, outcome, depth)
            first = shaped.probabilities[depth][0]
            hit = taken is not None and shaped.tree.choices[taken] == 0
            hits.append(hit)
            ranks = [shaped.tree.choices[i] for i in children]
            others = sum(shaped.probabilities[depth][rank] for rank in ranks if rank > 0)
            if others and not hit:
                other = taken is not None and shaped.tree.choices[taken] > 0
                self._calibration.observe_others(min(others / max(1.0 - first, 1e-6), 1.0), other)
            failed = failed or not hit
            straight += not failed
            if taken is None:
                break
            node = taken
        self._learn_confidences([c[0] for c in shaped.draft.confidences[: len(hits)]], hits)
        unseen = None
        if not failed and straight < len(shaped.probabilities):
            unseen = shaped.probabilities[straight][0]
        if straight or failed or unseen is not None:
            self._belief.observe(straight + failed, straight, unseen)

    def _learn_confidences(self, confidences: Sequence[float], accepted: Sequence[bool]) -> None:
        """Of first candidates with these confidences, all before them accepted, these were accepted."""
        if len(confidences):
            self._shift.observe(self._calibration.observe(confidences, accepted), accepted)

    def _taken(self, shaped: _Shaped, children: Sequence[int], outcome: Outcome, depth: int) -> int | None:
        """Which of `children` the accepted path went through."""
        if depth >= outcome.accepted:
            return None
        token = outcome.path[depth]
        return next((i for i in children if shaped.tree.tokens[i] == token), None)


def _rate(option: Option) -> float:
    return option.rate
