"""Passes: what shares one never shows, in either view, padded or not, chain or tree (rule B)."""

from __future__ import annotations

import mlx.core as mx
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from orthrus_mlx.cache import KVCache
from orthrus_mlx.model import AR, DIFFUSION
from orthrus_mlx.passes import Block, run_pass
from orthrus_mlx.trees import depths, is_chain, path_to, paths


def filled(model, text: list[int]) -> KVCache:
    cache = KVCache(len(model.layers))
    model.model(mx.array([text]), cache)
    cache.commit(len(text))
    return cache


def ids(seed: int, length: int) -> mx.array:
    return mx.array(tiny.prompt(seed, length), dtype=mx.int32)


BLOCKS = st.tuples(st.integers(0, 40), st.integers(1, 8), st.sampled_from([AR, DIFFUSION]), st.booleans())
"""Prefix, rows, view, whether a tree."""


def parents_of(rows: int, seed: int) -> tuple[int, ...]:
    return tuple((i * 7 + seed) % i if i else -1 for i in range(rows))


def make(model, which: int, prefix: int, rows: int, view: str, tree: bool) -> Block:
    cache = filled(model, tiny.prompt(which, prefix)) if prefix else KVCache(len(model.layers))
    parents = parents_of(rows, which) if tree and view == AR else None
    return Block(cache, ids(100 + which, rows), view, parents)


@settings(max_examples=30)
@given(
    shapes=st.lists(BLOCKS, min_size=1, max_size=5),
    rows=st.sampled_from([None, 40]),
    dtype=st.sampled_from(list(tiny.DTYPES)),
)
def test_blocks_that_share_a_pass_have_the_bits_they_have_alone(shapes, rows, dtype):
    model = tiny.tiny_model(0, dtype=dtype)
    together = run_pass(model, [make(model, i, *shape) for i, shape in enumerate(shapes)], rows)
    for i, shape in enumerate(shapes):
        (alone,) = run_pass(model, [make(model, i, *shape)])
        assert mx.array_equal(together[i], alone), f"block {i}: {shape}"


def test_only_wanted_rows_are_returned_and_they_are_the_leading_ones():
    model = tiny.tiny_model(1)
    blocks = [make(model, 0, 5, 6, AR, False), make(model, 1, 9, 8, DIFFUSION, False)]
    whole = run_pass(model, blocks)
    few = run_pass(model, [Block(b.cache, b.tokens, b.view, wanted=n) for b, n in zip(blocks, (2, 7), strict=True)])
    assert [logits.shape[0] for logits in few] == [2, 7]
    for a, b in zip(few, whole, strict=True):
        assert mx.array_equal(a, b[: a.shape[0]])


@pytest.mark.parametrize("rows", [None, 16, 32])
def test_a_node_of_a_tree_has_the_bits_of_one_token_steps_along_its_path(rows):
    model = tiny.tiny_model(2, 8.0)
    text, tokens = tiny.prompt(3, 21), ids(4, 12)
    parents = parents_of(12, 5)
    (tree,) = run_pass(model, [Block(filled(model, text), tokens, AR, parents)], rows)
    for node in range(12):
        cache = filled(model, text)
        for step in path_to(parents, node):
            (logits,) = run_pass(model, [Block(cache, tokens[step : step + 1])], rows)
            cache.commit(1)
        assert mx.array_equal(tree[node], logits[0]), f"node {node} of {parents}"


def test_a_committed_path_leaves_the_cache_of_one_token_steps():
    model = tiny.tiny_model(0)
    text, tokens, parents = tiny.prompt(3, 250), ids(4, 12), parents_of(12, 3)
    for leaf in (0, 5, 11):
        path = path_to(parents, leaf)
        cache, steps = filled(model, text), filled(model, text)
        run_pass(model, [Block(cache, tokens, AR, parents)])
        cache.commit(len(path), path)
        for node in path:
            run_pass(model, [Block(steps, tokens[node : node + 1])])
            steps.commit(1)
        assert cache.offset == steps.offset
        for ours, theirs in zip(cache.arrays, steps.arrays, strict=True):
            assert mx.array_equal(ours[..., : cache.offset, :], theirs[..., : cache.offset, :])


def test_trees_know_their_depths_and_paths():
    parents = (-1, 0, 0, 1, 3, 1)
    assert depths(parents) == [0, 1, 1, 2, 3, 2]
    assert paths(parents) == [[0, 2], [0, 1, 3, 4], [0, 1, 5]]
    assert path_to(parents, 4) == [0, 1, 3, 4]
    assert not is_chain(parents) and is_chain((-1, 0, 1, 2)) and is_chain((-1,))
