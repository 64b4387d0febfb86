"""Kernels on a device that rounds differently: still right, and a row's bits are still its own.

The emulator's perturbed build contracts products and sums, divides by reciprocals, takes exp2 and log up to 4 units
in the last place off and adds the products of a matrix tile in another order: what an Apple GPU may do.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from orthrus_mlx.kernels.linear import block_linear
from orthrus_mlx.kernels.verify import choose
from tests.emulator import emulated_metal
from tests.kernels_cases import (
    DTYPES,
    FORMATS,
    MANTISSA_BITS,
    assert_close,
    assert_same_bits,
    emulator_only,
    float64,
    make_weight,
    normal,
    weight_values,
)
from tests.test_kernels_attention import Sequence, check_chain_exact, check_tree_exact, masks, random_tree
from tests.test_kernels_linear import check_row_exact

FAMILIES = ("fma", "mma")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "form", [pytest.param(f, marks=() if f in ("dense", "affine4g64") else pytest.mark.slow) for f in FORMATS]
)
def test_linear_stays_right_and_row_exact(form: str, family: str) -> None:
    dtype = list(DTYPES)[(FORMATS.index(form) + 2) % 3]
    rng = np.random.default_rng(1)
    K = 603 if form == "ragged" else 896
    x, weight = normal(rng, (13, K), DTYPES[dtype]), make_weight(rng, 37, K, form, DTYPES[dtype])
    with emulated_metal(perturbed=True):
        y = block_linear(x, weight, family)
        check_row_exact(form, dtype, family)
    assert_close(y, float64(x) @ weight_values(weight).T, f"{family} {form} {dtype}")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("heads", "D", "dtype", "bits"),
    [
        (4, 64, "float32", 0),
        pytest.param(8, 128, "bfloat16", 0, marks=pytest.mark.slow),
        pytest.param(4, 128, "float16", 4, marks=pytest.mark.slow),
        pytest.param(8, 64, "float32", 8, marks=pytest.mark.slow),
    ],
)
def test_attention_stays_right_and_row_exact(heads: int, D: int, dtype: str, bits: int, family: str) -> None:
    rng = np.random.default_rng(2)
    sequence = Sequence.random(rng, heads, 2, 300, D, DTYPES[dtype], family, bits=bits)
    with emulated_metal(perturbed=True):
        for offset, rows in ((5, 3), (250, 32)):
            block = list(range(offset, offset + rows))
            for name, mask in masks(rng, rows).items():
                y = sequence.block(offset, block, mask)
                assert_close(y, sequence.expected(offset, block, mask), f"{name} of {rows} at {offset}")
        check_chain_exact(sequence, 252, 9)
        check_tree_exact(sequence, 250, random_tree(rng, 11))


def test_a_choice_stays_the_best_and_the_rows_own() -> None:
    rng = np.random.default_rng(3)
    logits = normal(rng, (9, 4999), mx.bfloat16, 3)
    keys = mx.array([[5, p] for p in range(9)], dtype=mx.uint32)
    with emulated_metal(perturbed=True):
        chosen = choose(logits, 0.7, keys)
        alone = mx.concatenate([choose(logits[i : i + 1], 0.7, keys[i : i + 1]) for i in range(9)])
    assert_same_bits(chosen, alone, "choices of 9 rows and of each alone")
    scores = float64(logits) / 0.7 + float64(mx.stack([mx.random.gumbel((4999,), key=key) for key in keys]))
    drawn = np.take_along_axis(scores, np.array(chosen)[:, None].astype(np.int64), axis=-1)[:, 0]
    assert (drawn >= scores.max(axis=-1) - 1e-4).all(), "a token that another device's noise cannot explain"


@emulator_only
def test_the_perturbation_moves_outputs_and_by_little(summary: list[str]) -> None:
    """The band that an Apple GPU may be expected in, printed at the end of the run."""
    for dtype in DTYPES.values():
        for kernel, (changed, units) in measured_bands(dtype).items():
            summary.append(
                f"perturbed {kernel}, {str(dtype)[9:]}: {100 * changed:.2g} % of outputs moved, at most {units:.2g} ulp"
                " of the largest output"
            )
            if kernel.startswith("block_linear fma"):
                assert not changed, "each of its operations is rounded as IEEE 754 says: there is nothing to move"
            elif dtype == mx.float32:
                assert changed, f"{kernel}: the perturbation does nothing"
            assert units <= (32 if dtype == mx.float32 else 1), f"{kernel} {dtype}"


def measured_bands(dtype: mx.Dtype) -> dict[str, tuple[float, float]]:
    """By kernel: the share of outputs that the perturbation changes, and the largest change.

    The change is in units in the last place of the largest output.
    """
    rng = np.random.default_rng(4)
    x = normal(rng, (16, 2048), dtype)
    weights = {form: make_weight(rng, 64, 2048, form, dtype) for form in ("dense", "affine4g64")}
    bands = {}
    for family in FAMILIES:
        sequence = Sequence.random(rng, 4, 2, 608, 128, dtype, family)
        runs = {
            f"block_linear {family} dense": lambda family=family: block_linear(x, weights["dense"], family),
            f"block_linear {family} 4 bits": lambda family=family: block_linear(x, weights["affine4g64"], family),
            f"block_attention {family}": lambda s=sequence: s.block(600, list(range(600, 608)), None),
        }
        for kernel, run in runs.items():
            with emulated_metal():
                plain = float64(run())
            with emulated_metal(perturbed=True):
                moved = float64(run())
            unit = 2.0 ** (np.floor(np.log2(np.abs(plain).max())) - MANTISSA_BITS[dtype])
            bands[kernel] = float((plain != moved).mean()), float(np.abs(plain - moved).max() / unit)
    return bands
