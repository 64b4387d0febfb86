"""`block_attention`, executed thread by thread: right, exact row by row, and each cached row read once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np
import pytest

from orthrus_mlx.kernels.attention import (
    FAMILIES,
    attention_reference,
    block_attention,
    causal_mask,
    full_mask,
    supports,
    tree_mask,
)
from tests.emulator import emulated_metal
from tests.kernels_cases import DTYPES, assert_close, assert_same_bits, emulator_only, float64, normal

BOUNDARIES = (0, 1, 31, 32, 225, 255, 256, 257, 300)
"""Offsets at which a block of up to 32 rows begins, ends in or spans a unit of 32 or a chunk of 256 positions."""


@dataclass
class Sequence:
    """Queries [1, H, S, D], keys and values [1, G, S, D] of S positions; `bits` quantises keys and values."""

    q: mx.array
    k: mx.array
    v: mx.array
    family: str
    bits: int = 0
    group_size: int = 64

    @classmethod
    def random(cls, rng, heads: int, kv_heads: int, S: int, D: int, dtype: mx.Dtype, family: str, **kwargs) -> Sequence:
        shapes = ((1, heads, S, D), (1, kv_heads, S, D), (1, kv_heads, S, D))
        return cls(*(normal(rng, shape, dtype) for shape in shapes), family, **kwargs)

    def stored(self, rows: mx.array):
        return mx.quantize(rows, group_size=self.group_size, bits=self.bits) if self.bits else rows

    def seen(self, rows: mx.array) -> np.ndarray:
        """Keys or values as attention sees them, float64."""
        if not self.bits:
            return float64(rows)
        words, scales, biases = self.stored(rows)
        group = {"group_size": self.group_size, "bits": self.bits}
        return float64(mx.dequantize(words, scales.astype(mx.float32), biases.astype(mx.float32), **group))

    def block(self, offset: int, rows: list[int], mask: mx.array | None, array_offset: bool = False) -> mx.array:
        """Attention of the block made of `rows` of the sequence, behind a cache of its first `offset` rows."""
        capacity = max(256, -(-offset // 256) * 256)
        buffers = []
        for source in (self.k, self.v):
            # whatever lies behind the offset must not be looked at: quantising NaN would spoil a group's neighbours
            rest = mx.full((1, source.shape[1], capacity - offset, source.shape[3]), float("nan"), source.dtype)
            buffers.append(self.stored(mx.concatenate([source[:, :, :offset], rest], axis=2)))
        at = mx.array(rows)
        return block_attention(
            self.q[:, :, at],
            *buffers,
            mx.array([offset], dtype=mx.int32) if array_offset else offset,
            self.stored(self.k[:, :, at]),
            self.stored(self.v[:, :, at]),
            mask,
            scale=self.q.shape[3] ** -0.5,
            family=self.family,
        )

    def alone(self, offset: int, path: list[int]) -> mx.array:
        """One decoding step: the last of `path` against the first `offset` rows and the rest of `path`, all cached."""
        order = mx.array([*range(offset), *path])
        line = replace(self, q=self.q[:, :, order], k=self.k[:, :, order], v=self.v[:, :, order])
        last = offset + len(path) - 1
        return line.block(last, [last], None)

    def expected(self, offset: int, rows: list[int], mask: mx.array) -> np.ndarray:
        """The block's attention in float64."""
        at = [*range(offset), *rows]
        repeats = self.q.shape[1] // self.k.shape[1]
        q = float64(self.q)[:, :, rows]
        k, v = (np.repeat(self.seen(a)[:, :, at], repeats, axis=1) for a in (self.k, self.v))
        own = (np.array(mask)[:, None] >> np.arange(len(rows), dtype=np.uint32)) & 1
        seen = np.concatenate([np.ones((len(rows), offset)), own], axis=1)
        scores = np.where(seen, np.einsum("bhld,bhkd->bhlk", q, k) * q.shape[3] ** -0.5, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.einsum("bhlk,bhkd->bhld", weights / weights.sum(axis=-1, keepdims=True), v)


def random_tree(rng: np.random.Generator, nodes: int) -> list[int]:
    """Parents, before their children; deep enough to cross boundaries."""
    return [-1, *(int(rng.integers(max(0, i - 4), i)) for i in range(1, nodes))]


def masks(rng: np.random.Generator, rows: int) -> dict[str, mx.array]:
    return {"chain": causal_mask(rows), "full": full_mask(rows), "tree": tree_mask(random_tree(rng, rows))}


def check(case: int, heads: int, kv_heads: int, D: int, dtype: str, family: str, **kwargs) -> None:
    rng = np.random.default_rng(case)
    offset = (0, 5, 40, 250, 300, 513)[case % 6]
    rows = (1, 2, 8, 17, 32)[case % 5]
    sequence = Sequence.random(rng, heads, kv_heads, offset + rows, D, DTYPES[dtype], family, **kwargs)
    block = list(range(offset, offset + rows))
    for name, mask in masks(rng, rows).items():
        y = sequence.block(offset, block, mask)
        assert y.dtype == DTYPES[dtype]
        what = f"{name} of {rows} at {offset}, {heads} heads of {kv_heads}x{D}, {dtype}, {family}"
        assert_close(y, sequence.expected(offset, block, mask), what)


HEADS = [(2, 2), (4, 2), (8, 2), (5, 1), (8, 1)]
CASES = [(heads, D, dtype, family) for heads in HEADS for D in (64, 128) for dtype in DTYPES for family in FAMILIES]


@pytest.mark.parametrize("case", range(0, len(CASES), 4))
def test_every_shape_is_right(case: int) -> None:
    (heads, kv_heads), D, dtype, family = CASES[(case + case // 12) % len(CASES)]
    with emulated_metal():
        check(case // 4, heads, kv_heads, D, dtype, family)


@pytest.mark.parametrize(("family", "bits", "group_size", "D"), [("fma", 4, 64, 128), ("mma", 8, 32, 64)])
def test_a_quantised_cache_is_read_as_it_is(family: str, bits: int, group_size: int, D: int) -> None:
    with emulated_metal():
        check(13, 4, 2, D, "bfloat16", family, bits=bits, group_size=group_size)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("heads", "rows", "bits"), [(4, 2, 0), (4, 19, 0), (4, 2, 4), (8, 9, 8)])
def test_a_kernel_does_nothing_that_metal_forbids(heads: int, rows: int, bits: int, family: str) -> None:
    rng = np.random.default_rng(rows)
    sequence = Sequence.random(rng, heads, 2, 300, 64, mx.bfloat16, family, bits=bits)
    with emulated_metal(checked=True, seed=1):
        for offset in (5, 250):
            block = list(range(offset, offset + rows))
            mask = masks(rng, rows)["tree"]
            assert_close(sequence.block(offset, block, mask), sequence.expected(offset, block, mask), f"at {offset}")


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(CASES)))
def test_no_variant_does_anything_that_metal_forbids(case: int) -> None:
    (heads, kv_heads), D, dtype, family = CASES[case]
    with emulated_metal(checked=True):
        check(case, heads, kv_heads, D, dtype, family)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group_size", [32, 64])
@pytest.mark.parametrize("D", [64, 128])
def test_no_quantised_variant_does_anything_that_metal_forbids(D: int, group_size: int, bits: int, family: str) -> None:
    with emulated_metal(checked=True):
        for case in (1, 13, 34):
            check(case, 4, 2, D, list(DTYPES)[case % 3], family, bits=bits, group_size=group_size)


def check_chain_exact(sequence: Sequence, offset: int, rows: int) -> None:
    block = list(range(offset, offset + rows))
    y = sequence.block(offset, block, None)
    for i, row in enumerate(block):
        what = f"{sequence.family}: row {i} of {rows} at {offset} against one step at {row}"
        assert_same_bits(y[:, :, i : i + 1], sequence.alone(row, [row]), what)


def check_tree_exact(sequence: Sequence, offset: int, parents: list[int]) -> None:
    nodes = list(range(offset, offset + len(parents)))
    y = sequence.block(offset, nodes, tree_mask(parents))
    for i in range(len(parents)):
        path, node = [], i
        while node >= 0:
            path.insert(0, nodes[node])
            node = parents[node]
        what = f"{sequence.family}: node {i} of {parents} at {offset} against one step"
        assert_same_bits(y[:, :, i : i + 1], sequence.alone(offset, path), what)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_of_a_chain_has_the_bits_of_a_single_step(family: str) -> None:
    sequence = Sequence.random(np.random.default_rng(1), 4, 2, 340, 64, mx.float32, family)
    with emulated_metal():
        for offset, rows in zip(BOUNDARIES, (5, 32, 3, 2, 32, 8, 16, 1, 31), strict=True):
            check_chain_exact(sequence, offset, rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_node_of_a_tree_has_the_bits_of_a_single_step_on_its_path(family: str) -> None:
    rng = np.random.default_rng(2)
    sequence = Sequence.random(rng, 4, 2, 340, 64, mx.float32, family)
    with emulated_metal():
        for offset, nodes in ((0, 9), (30, 16), (250, 32), (253, 2)):
            check_tree_exact(sequence, offset, random_tree(rng, nodes))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("heads", "kv_heads", "D"), [(2, 2, 128), (4, 2, 128), (8, 2, 128), (8, 1, 64), (5, 1, 64)])
def test_every_row_of_every_shape_has_the_bits_of_a_single_step(heads: int, kv_heads: int, D: int, family: str) -> None:
    rng = np.random.default_rng(3)
    sequence = Sequence.random(rng, heads, kv_heads, 560, D, mx.bfloat16, family)
    with emulated_metal():
        for offset in (*BOUNDARIES, 511, 512):
            check_chain_exact(sequence, offset, int(rng.integers(1, 33)))
        for offset in (28, 251, 500):
            check_tree_exact(sequence, offset, random_tree(rng, int(rng.integers(2, 33))))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_row_has_the_bits_of_a_single_step_with_a_quantised_cache(bits: int, family: str) -> None:
    rng = np.random.default_rng(4)
    sequence = Sequence.random(rng, 4, 2, 340, 128, mx.float16, family, bits=bits)
    with emulated_metal():
        for offset, rows in ((0, 3), (31, 8), (250, 32)):
            check_chain_exact(sequence, offset, rows)
        check_tree_exact(sequence, 252, random_tree(rng, 24))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_chain_is_exact_at_every_offset_around_a_boundary(family: str) -> None:
    sequence = Sequence.random(np.random.default_rng(5), 2, 1, 300, 64, mx.float32, family)
    with emulated_metal():
        for offset in (*range(28, 36), *range(220, 260, 3)):
            check_chain_exact(sequence, offset, 5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_that_sees_no_bad_key_is_not_touched_by_it(family: str) -> None:
    rng = np.random.default_rng(6)
    sequence = Sequence.random(rng, 4, 2, 60, 64, mx.float32, family)
    parents = [-1, 0, 0, 1, 2, 3]
    nodes = list(range(40, 46))
    with emulated_metal():
        clean = sequence.block(40, nodes, tree_mask(parents))
        for a in (sequence.k, sequence.v):
            a[:, :, 42] = float("nan")
        y = sequence.block(40, nodes, tree_mask(parents))
    unaware = mx.array([i for i in range(6) if i not in (2, 4)])
    assert_same_bits(y[:, :, unaware], clean[:, :, unaware], "rows that do not see node 2")
    assert mx.all(mx.isnan(y[:, :, 2])).item()


@pytest.mark.parametrize("rows", [1, 6])
def test_an_offset_on_the_device_gives_the_same_bits(rows: int) -> None:
    sequence = Sequence.random(np.random.default_rng(7), 4, 2, 300, 64, mx.bfloat16, "fma")
    with emulated_metal():
        for offset in (3, 258):
            block = list(range(offset, offset + rows))
            y = sequence.block(offset, block, None, array_offset=True)
            assert_same_bits(y, sequence.block(offset, block, None), f"offset {offset}")


def test_a_cache_that_does_not_exist_yet_is_empty() -> None:
    sequence = Sequence.random(np.random.default_rng(8), 4, 2, 6, 64, mx.bfloat16, "fma")
    q, k, v = sequence.q, sequence.k, sequence.v
    with emulated_metal():
        y = block_attention(q, None, None, 0, k, v, scale=64**-0.5, family="fma")
        assert_same_bits(y, sequence.block(0, list(range(6)), None), "no buffers against empty buffers")


@emulator_only
@pytest.mark.parametrize(
    ("family", "repeats", "rows", "D", "bits", "times"),
    [
        # the released models' shapes at their widest: 2 (1.7B) and 4 (4B, 8B) query heads to a key/value head
        ("mma", 2, 32, 128, 0, 1),
        ("mma", 4, 32, 128, 0, 1),
        ("mma", 4, 32, 128, 4, 1),
        ("fma", 2, 32, 128, 0, 1),
        ("fma", 4, 16, 128, 0, 1),
        *((family, repeats, rows, 64, 0, 1) for family in FAMILIES for repeats, rows in ((1, 32), (4, 1), (8, 8))),
        ("fma", 4, 1, 128, 4, 1),
        ("fma", 4, 16, 64, 8, 1),
        ("mma", 2, 1, 64, 8, 1),
        ("mma", 8, 16, 64, 0, 1),
        # more query rows than a threadgroup's registers hold: two threadgroups read the chunk
        ("fma", 4, 32, 64, 0, 2),
        ("mma", 8, 32, 64, 0, 2),
    ],
)
def test_each_cached_row_is_read_once_per_key_value_head(
    family: str, repeats: int, rows: int, D: int, bits: int, times: int
) -> None:
    offset = 288
    rng = np.random.default_rng(9)
    sequence = Sequence.random(rng, 2 * repeats, 2, offset + rows, D, mx.bfloat16, family, bits=bits)
    with emulated_metal(traffic=True) as emulation:
        sequence.block(offset, list(range(offset, offset + rows)), None)
    traffic = emulation.launches[0].report.traffic
    cached = 2 * offset * D * (bits or 16) // 8
    for name in ("keys", "values"):
        assert traffic[name].unique == cached
        assert traffic[name].unique_per_threadgroup == times * cached, "a threadgroup reads what another one has read"
        assert traffic[name].loaded == times * cached, "a thread reads what another one has read"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("model", "heads"), [("1.7B", 16), ("4B and 8B", 32)])
def test_the_models_shapes_are_right_and_exact(model: str, heads: int, family: str) -> None:
    rng = np.random.default_rng(10)
    offset = 1010
    sequence = Sequence.random(rng, heads, 8, offset + 32, 128, mx.bfloat16, family)
    with emulated_metal():
        for rows in (1, 16, 32):
            block = list(range(offset, offset + rows))
            y = sequence.block(offset, block, None)
            assert_close(y, sequence.expected(offset, block, causal_mask(rows)), f"{model}, {rows} rows")
            assert_same_bits(
                y[:, :, rows - 1 :], sequence.alone(offset + rows - 1, block[-1:]), f"{model}, {rows} rows"
            )


@pytest.mark.parametrize("bits", [0, 8])
def test_the_reference_is_the_same_function(bits: int) -> None:
    rng = np.random.default_rng(11)
    sequence = Sequence.random(rng, 4, 2, 60, 64, mx.float32, "", bits=bits)
    stored = [sequence.stored(a) for a in (sequence.k, sequence.v)]
    block = [sequence.stored(a[:, :, 50:]) for a in (sequence.k, sequence.v)]
    for name, mask in masks(rng, 10).items():
        y = attention_reference(sequence.q[:, :, 50:], *stored, 50, *block, mask, scale=0.125)
        assert_close(y, sequence.expected(50, list(range(50, 60)), mask), name)


def test_what_has_no_kernel_is_not_claimed() -> None:
    assert supports(32, 8, 128, mx.bfloat16, 32)
    assert not supports(32, 8, 128, mx.bfloat16, 33)
    assert not supports(32, 8, 96, mx.bfloat16, 1)
    assert not supports(32, 2, 128, mx.bfloat16, 1)
    assert not supports(32, 5, 128, mx.bfloat16, 1)
