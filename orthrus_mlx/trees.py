"""Trees of rows, as parent indices: parents[i] < i, the root's is -1. A chain is 0, 1, 2, ... under the root."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache


@lru_cache(maxsize=256)
def depths(parents: tuple[int, ...]) -> list[int]:
    """Steps from the root to each node."""
    found: list[int] = []
    for parent in parents:
        found.append(found[parent] + 1 if parent >= 0 else 0)
    return found


@lru_cache(maxsize=256)
def paths(parents: tuple[int, ...]) -> list[list[int]]:
    """The nodes from the root to each leaf, both included."""
    leaves = sorted(set(range(len(parents))) - set(parents))
    return [path_to(parents, leaf) for leaf in leaves]


def path_to(parents: Sequence[int], node: int) -> list[int]:
    """The nodes from the root to `node`, both included."""
    path = []
    while node >= 0:
        path.append(node)
        node = parents[node]
    return path[::-1]


def is_chain(parents: Sequence[int]) -> bool:
    """Whether every node is the next one's parent."""
    return all(parent == i - 1 for i, parent in enumerate(parents))
