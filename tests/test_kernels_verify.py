"""The choice of tokens and the accepted path on the device, executed thread by thread."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthrus_mlx.kernels.source import text
from orthrus_mlx.kernels.verify import accepted_path, accepted_path_reference, choose, choose_reference
from tests.emulator import emulated_metal
from tests.kernels_cases import DTYPES, emulator_only, normal

NOISE_PROBE = """
  const int i = thread_position_in_grid.x;
  const int half_size = values_shape[0] / 2;
  const int other = values_shape[0] - half_size;
  if (i < other) {
    const uint2 bits = threefry(uint2(key[0], key[1]), uint2(i, i < half_size ? other + i : 0));
    uniforms[i] = unit_interval(bits.x);
    noise[i] = gumbel(bits.x);
    if (i < half_size) {
      uniforms[other + i] = unit_interval(bits.y);
      noise[other + i] = gumbel(bits.y);
    }
  }
"""


def threefry(key: tuple[int, int], size: int) -> np.ndarray:
    """The bits that mx.random draws for `key`, in NumPy: Threefry-2x32-20 over counters (i, h + i)."""
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    keys = [np.uint32(key[0]), np.uint32(key[1]), np.uint32(key[0] ^ key[1] ^ 0x1BD11BDA)]
    half, other = size // 2, size - size // 2
    x = np.arange(other, dtype=np.uint32)
    y = np.where(x < half, x + np.uint32(other), 0).astype(np.uint32)
    with np.errstate(over="ignore"):
        x, y = x + keys[0], y + keys[1]
        for round_ in range(5):
            for by in rotations[round_ % 2]:
                x = x + y
                y = (y << np.uint32(by) | y >> np.uint32(32 - by)) ^ x
            x = x + keys[(round_ + 1) % 3]
            y = y + keys[(round_ + 2) % 3] + np.uint32(round_ + 1)
    return np.concatenate([x, y[:half]])


def keys_at(positions: list[int], seed: int = 77) -> mx.array:
    return mx.array([[seed, p] for p in positions], dtype=mx.uint32)


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 1001])
def test_the_counters_are_those_of_mlx(size: int) -> None:
    drawn = threefry((123, 4567), size).astype(np.float32) / np.float32(2**32)
    expected = mx.random.uniform(shape=(size,), key=mx.array([123, 4567], dtype=mx.uint32))
    assert np.array_equal(np.minimum(drawn, np.nextafter(np.float32(1), np.float32(0))), np.array(expected))


@pytest.mark.parametrize("size", [8, 1001, 4096])
def test_the_kernel_draws_the_bits_of_mlx(size: int) -> None:
    key = mx.array([2**32 - 1, 3], dtype=mx.uint32)
    with emulated_metal(checked=True):
        probe = mx.fast.metal_kernel(
            name="noise_probe",
            input_names=["key", "values"],
            output_names=["uniforms", "noise"],
            source=NOISE_PROBE,
            header=text("threefry.h"),
        )
        uniforms, noise = probe(
            inputs=[key, mx.zeros((size,))],
            grid=(size, 1, 1),
            threadgroup=(32, 1, 1),
            output_shapes=[(size,)] * 2,
            output_dtypes=[mx.float32] * 2,
        )
    assert np.array_equal(np.array(uniforms), np.array(mx.random.uniform(shape=(size,), key=key)))
    np.testing.assert_allclose(np.array(noise), np.array(mx.random.gumbel((size,), key=key)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [9, 100, 4097, 12288])
def test_the_choice_is_that_of_plain_mlx(V: int, dtype: str) -> None:
    rng = np.random.default_rng(V)
    logits = normal(rng, (5, V), DTYPES[dtype], 3)
    with emulated_metal():
        for temperature in (0.0, 0.7, 1.5):
            keys = keys_at([0, 1, 2, 40959, 3])
            assert choose(logits, temperature, keys).tolist() == choose_reference(logits, temperature, keys).tolist()


def test_the_choice_over_qwen3s_vocabulary_is_that_of_plain_mlx() -> None:
    logits = normal(np.random.default_rng(1), (3, 151936), mx.bfloat16, 3)
    keys = keys_at([10, 11, 12])
    with emulated_metal():
        assert choose(logits, 1.0, keys).tolist() == choose_reference(logits, 1.0, keys).tolist()
        assert choose(logits, 0.0).tolist() == choose_reference(logits, 0.0).tolist()


def test_ties_go_to_the_lowest_token_and_dropped_tokens_are_never_chosen() -> None:
    logits = np.full((4, 6000), -1.0, np.float32)
    logits[0, [5, 17, 5999]] = 2.0
    logits[1, [3000, 2999]] = 2.0
    logits[2, 4000:] = -math.inf
    logits[3] = -math.inf
    with emulated_metal(checked=True, seed=2):
        assert choose(mx.array(logits), 0.0).tolist() == [5, 2999, 0, 0]
        assert choose(mx.array(logits[2:3]), 1.0, keys_at([9])).item() < 4000


def test_a_row_is_chosen_alike_alone_and_in_any_batch() -> None:
    rng = np.random.default_rng(2)
    logits = normal(rng, (32, 999), mx.float16)
    keys = keys_at(list(range(100, 132)))
    with emulated_metal():
        whole = choose(logits, 1.0, keys).tolist()
        for rows in (1, 2, 7, 31):
            assert choose(logits[-rows:], 1.0, keys[-rows:]).tolist() == whole[-rows:]


@emulator_only
def test_every_logit_is_read_once() -> None:
    logits = normal(np.random.default_rng(3), (2, 9001), mx.bfloat16)
    with emulated_metal(traffic=True) as emulation:
        choose(logits, 1.0, keys_at([1, 2]))
    assert emulation.launches[0].report.traffic["logits"].loaded == logits.nbytes


def walk(tokens: list[int], chosen: list[int], parents: list[int]) -> list[int]:
    path = [0]
    while True:
        children = [i for i, p in enumerate(parents) if p == path[-1] and tokens[i] == chosen[path[-1]]]
        if not children:
            return path
        path.append(children[0])


@st.composite
def drafts(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    """Tokens, choices and parents of a tree whose siblings differ, so that walks of every length happen."""
    rows = draw(st.integers(1, 32))
    parents, tokens, taken = [-1], [0], set()
    for i in range(1, rows):
        free = [(p, t) for p in range(max(0, i - 3), i) for t in range(4) if (p, t) not in taken]
        parent, token = draw(st.sampled_from(free))
        taken.add((parent, token))
        parents.append(parent)
        tokens.append(token)
    chosen = draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
    return tokens, chosen, parents


@settings(max_examples=60)
@given(drafts())
def test_the_accepted_path_follows_the_choices(draft: tuple[list[int], list[int], list[int]]) -> None:
    tokens, chosen, parents = draft
    path = walk(tokens, chosen, parents)
    arrays = [mx.array(a, dtype=mx.uint32) for a in (tokens, chosen)]
    expected = path + [-1] * (len(tokens) - len(path)), [len(path)]
    with emulated_metal():
        for function in (accepted_path, accepted_path_reference):
            nodes, count = function(*arrays, mx.array(parents, dtype=mx.int32))
            assert (nodes.tolist(), count.tolist()) == expected, function.__name__


def test_a_chain_is_accepted_up_to_the_first_draft_that_differs() -> None:
    tokens = mx.array([7, 1, 2, 3, 4], dtype=mx.uint32)
    chosen = mx.array([1, 2, 9, 4, 5], dtype=mx.uint32)
    with emulated_metal(checked=True):
        path, count = accepted_path(tokens, chosen)
    assert path.tolist() == [0, 1, 2, -1, -1]
    assert count.tolist() == [3]
    path, count = accepted_path_reference(tokens, chosen)
    assert (path.tolist(), count.tolist()) == ([0, 1, 2, -1, -1], [3])
