"""The draft tree that most likely holds the longest accepted path, from candidates position by position.

The diffusion view drafts every position without knowing what the ones before it become, so the probability of a path is
the product of its tokens' probabilities, and taking the most probable paths first gives, for every budget, the tree
with the largest expected number of accepted drafts (DDTree's observation: a path is never more probable than the one
it extends).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from .steps import Candidates

NO_CHOICE = -1
"""The choice of a node whose token the draft did not offer."""


@dataclass(frozen=True)
class Tree:
    """A draft tree whose first n nodes are the best tree of n nodes.

    Attributes:
        tokens, parents: as in `Candidates`.
        choices: choices[i] is the index of node i's token among its position's candidates, or `NO_CHOICE`.
        probabilities: that the path to the node and the node are accepted; descending.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    choices: tuple[int, ...]
    probabilities: tuple[float, ...]

    def first(self, nodes: int) -> Candidates:
        """The best `nodes` of them."""
        return Candidates(self.tokens[:nodes], self.parents[:nodes])


def best_tree(
    tokens: Sequence[Sequence[int]],
    probabilities: Sequence[Sequence[float]],
    budget: int,
    branch: Sequence[tuple[int, float]] = (),
) -> Tree:
    """Take the `budget` most probable paths, or as many as there are with a probability above 0.

    Args:
        tokens: tokens[i] are the candidates of position i; of equal ones the first counts.
        probabilities: probabilities[i][j] is that of tokens[i][j] being accepted where all before it were.
        branch: (token, probability) by position of a continuation from elsewhere, an n-gram match; a token of it is a
            candidate behind the whole of the branch before it only.
    """
    plain = [_ranked(*candidates) for candidates in zip(tokens, probabilities, strict=True)]
    along = [_with_branch(plain[i] if i < len(plain) else [], *link) for i, link in enumerate(branch)]
    taken: list[tuple[int, int, int, float]] = []
    # Of every node, how many tokens of the branch its path is made of; None where it is another path.
    followed: list[int | None] = []
    # (-probability, order of entry, parent, position, rank, the parent's probability)
    waiting: list[tuple[float, int, int, int, int, float]] = []
    entries = 0

    def candidates(parent: int, position: int) -> list[tuple[int, float, int]]:
        on_branch = parent < 0 or followed[parent] is not None
        if on_branch and position < len(along):
            return along[position]
        return plain[position] if position < len(plain) else []

    def offer(parent: int, position: int, rank: int, before: float) -> None:
        nonlocal entries
        choices = candidates(parent, position)
        if rank < len(choices):
            probability = before * choices[rank][1]
            if probability > 0:
                heappush(waiting, (-probability, entries, parent, position, rank, before))
                entries += 1

    offer(-1, 0, 0, 1.0)
    while waiting and len(taken) < budget:
        negative, _, parent, position, rank, before = heappop(waiting)
        token, _, choice = candidates(parent, position)[rank]
        on_branch = (parent < 0 or followed[parent] is not None) and position < len(branch)
        taken.append((token, parent, choice, -negative))
        followed.append(position + 1 if on_branch and token == branch[position][0] else None)
        offer(len(taken) - 1, position + 1, 0, -negative)
        offer(parent, position, rank + 1, before)
    if not taken:
        return Tree((), (), (), ())
    return Tree(*(tuple(column) for column in zip(*taken, strict=True)))


def _with_branch(
    ranked: Sequence[tuple[int, float, int]], token: int, probability: float
) -> list[tuple[int, float, int]]:
    """A position's candidates with the branch's token among them, at the better of its two probabilities."""
    own = next((c for c in ranked if c[0] == token), (token, 0.0, NO_CHOICE))
    others = [c for c in ranked if c[0] != token]
    return sorted([(token, max(probability, own[1]), own[2]), *others], key=lambda candidate: -candidate[1])


def _ranked(tokens: Sequence[int], probabilities: Sequence[float]) -> list[tuple[int, float, int]]:
    """(token, probability, index) of a position's candidates, the most probable first, without repetition."""
    distinct: dict[int, tuple[int, float, int]] = {}
    for index, (token, probability) in enumerate(zip(tokens, probabilities, strict=True)):
        distinct.setdefault(token, (token, probability, index))
    return sorted(distinct.values(), key=lambda candidate: -candidate[1])
