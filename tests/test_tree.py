"""Draft trees: best-first equals exhaustive search, and they are trees."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthrus_mlx.decoding.tree import NO_CHOICE, Tree, best_tree

probability = st.floats(0, 1, allow_subnormal=False)
positions = st.lists(
    st.lists(st.tuples(st.integers(0, 4), probability), min_size=1, max_size=3), min_size=1, max_size=4
)


def built(drafted, budget: int) -> Tree:
    tokens = [[token for token, _ in candidates] for candidates in drafted]
    return best_tree(tokens, [[p for _, p in candidates] for candidates in drafted], budget)


def distinct(candidates) -> list[float]:
    """Probabilities of a position's candidates, the first of equal tokens."""
    first: dict[int, float] = {}
    for token, p in candidates:
        first.setdefault(token, p)
    return list(first.values())


def most_expected(drafted, budget: int) -> float:
    """The best sum of path probabilities of `budget` nodes: all paths, the most probable ones.

    These form a tree, as a path is at most as probable as the one it extends.
    """
    chances = [distinct(candidates) for candidates in drafted]
    paths = [math.prod(path) for depth in range(1, len(chances) + 1) for path in product(*chances[:depth])]
    return sum(sorted(paths, reverse=True)[:budget])


@settings(max_examples=300, deadline=None)
@given(positions, st.integers(0, 12))
def test_the_tree_has_the_most_expected_accepted_drafts(drafted, budget):
    tree = built(drafted, budget)
    assert sum(tree.probabilities) == pytest.approx(most_expected(drafted, budget), abs=1e-9)


@settings(max_examples=300, deadline=None)
@given(positions, st.integers(0, 12))
def test_a_tree_is_one(drafted, budget):
    tree = built(drafted, budget)
    assert len(tree.tokens) == len(tree.parents) == len(tree.choices) == len(tree.probabilities) <= budget
    assert all(-1 <= parent < i for i, parent in enumerate(tree.parents))
    siblings = list(zip(tree.parents, tree.tokens, strict=True))
    assert len(set(siblings)) == len(siblings)
    assert list(tree.probabilities) == sorted(tree.probabilities, reverse=True)
    assert all(p > 0 for p in tree.probabilities)
    depths: list[int] = []
    for parent, token, choice in zip(tree.parents, tree.tokens, tree.choices, strict=True):
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
        assert drafted[depths[-1]][choice][0] == token


def test_worthless_alternatives_leave_a_chain():
    tree = best_tree([[1, 2], [3, 4], [5, 6]], [[0.9, 0.01], [0.9, 0.01], [0.9, 0.01]], 3)
    assert (tree.tokens, tree.parents) == ((1, 3, 5), (-1, 0, 1))


def test_the_first_nodes_are_the_smaller_tree():
    drafted = [[(1, 0.5), (2, 0.4)], [(3, 0.9), (4, 0.05)], [(5, 0.3), (6, 0.3)]]
    assert built(drafted, 7).first(3) == built(drafted, 3).first(3)


def test_it_takes_no_time():
    import time

    tokens = [[0, 1, 2, 3]] * 31
    probabilities = [[0.6, 0.2, 0.1, 0.05]] * 31
    best = min(_timed(time.perf_counter, lambda: best_tree(tokens, probabilities, 31)) for _ in range(20))
    assert best < 1e-3


def _timed(clock, work) -> float:
    start = clock()
    work()
    return clock() - start


branches = st.lists(st.tuples(st.integers(0, 5), probability), max_size=5)


def paths_with_branch(drafted, branch) -> dict[tuple[int, ...], float]:
    """The probability of every path there is, by its tokens."""
    found: dict[tuple[int, ...], float] = {}

    def extend(path: tuple[int, ...], before: float) -> None:
        depth = len(path)
        chances: dict[int, float] = {}
        for token, p in drafted[depth] if depth < len(drafted) else []:
            chances.setdefault(token, p)
        if path == tuple(token for token, _ in branch[:depth]) and depth < len(branch):
            token, p = branch[depth]
            chances[token] = max(p, chances.get(token, 0.0))
        for token, p in chances.items():
            found[(*path, token)] = before * p
            extend((*path, token), before * p)

    extend((), 1.0)
    return found


@settings(max_examples=200, deadline=None)
@given(positions, branches, st.integers(0, 12))
def test_an_n_gram_branch_competes_with_the_draft_and_the_best_paths_win(drafted, branch, budget):
    tokens = [[token for token, _ in candidates] for candidates in drafted]
    tree = best_tree(tokens, [[p for _, p in candidates] for candidates in drafted], budget, branch)
    everything = paths_with_branch(drafted, branch)
    best = sum(sorted(everything.values(), reverse=True)[:budget])
    assert sum(tree.probabilities) == pytest.approx(best, abs=1e-9)
    paths: list[tuple[int, ...]] = []
    for token, parent, choice, p in zip(tree.tokens, tree.parents, tree.choices, tree.probabilities, strict=True):
        paths.append((*(paths[parent] if parent >= 0 else ()), token))
        assert everything[paths[-1]] == pytest.approx(p, abs=1e-12)
        place = len(paths[-1]) - 1
        offered = tokens[place] if place < len(tokens) else []
        assert offered[choice] == token if choice != NO_CHOICE else token not in offered
    assert len(set(paths)) == len(paths)
