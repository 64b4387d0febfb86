"""`block_linear`, executed thread by thread: right, row-exact, and each weight read once."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from orthrus_mlx.kernels.linear import FAMILIES, LinearWeight, block_linear, linear_reference, supports
from tests.emulator import emulated_metal
from tests.kernels_cases import (
    DTYPES,
    FORMATS,
    assert_close,
    assert_same_bits,
    emulator_only,
    float64,
    make_large_weight,
    make_weight,
    normal,
    weight_values,
)

BATCHES = (2, 3, 5, 8, 16, 31, 32)

# (heads' width, key/value width, hidden, intermediate)
MODELS = {"1.7B": (2048, 1024, 2048, 6144), "4B": (4096, 1024, 2560, 9728), "8B": (4096, 1024, 4096, 12288)}


def layer_shapes(model: str) -> dict[str, tuple[int, int]]:
    """(N, K) of every linear layer, and of those that can be packed into one."""
    heads, kv, hidden, intermediate = MODELS[model]
    return {
        "q": (heads, hidden),
        "k, v": (kv, hidden),
        "q+k+v": (heads + 2 * kv, hidden),
        "o": (hidden, heads),
        "gate, up": (intermediate, hidden),
        "gate+up": (2 * intermediate, hidden),
        "down": (hidden, intermediate),
    }


def shape_for(form: str, case: int) -> tuple[int, int, int]:
    """(M, N, K): every row class in turn, N with a tail, K with a tail in every block."""
    Ks = {"ragged": (101, 267, 1003), "dense": (264, 1096, 72)}.get(form, (384, 640, 896))
    return (1, 2, 3, 7, 13, 32)[case % 6], (37, 70, 33)[case % 3], Ks[case % 3]


def check(form: str, dtype: str, family: str, case: int) -> None:
    rng = np.random.default_rng(case)
    M, N, K = shape_for(form, case)
    x = normal(rng, (M, K), DTYPES[dtype])
    weight = make_weight(rng, N, K, form, DTYPES[dtype])
    y = block_linear(x, weight, family)
    assert y.dtype == DTYPES[dtype]
    assert_close(y, float64(x) @ weight_values(weight).T, f"{family} {form} {dtype} {M}x{K} by {N}")


CASES = [(form, dtype, family) for form in FORMATS for dtype in DTYPES for family in FAMILIES]
TYPICAL = [
    ("dense", "bfloat16", "fma"),
    ("ragged", "float16", "fma"),
    ("affine4g64", "bfloat16", "fma"),
    ("affine8g32", "float32", "fma"),
    ("mxfp4", "float16", "fma"),
    ("dense", "float32", "mma"),
    ("ragged", "bfloat16", "mma"),
    ("affine4g128", "float16", "mma"),
    ("affine8g64", "bfloat16", "mma"),
    ("nvfp4", "bfloat16", "mma"),
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_format_is_right(form: str, family: str) -> None:
    case = FORMATS.index(form) + FAMILIES.index(family)
    with emulated_metal():
        check(form, list(DTYPES)[case % 3], family, case)


@pytest.mark.parametrize(("form", "dtype", "family"), TYPICAL)
def test_a_kernel_does_nothing_that_metal_forbids(form: str, dtype: str, family: str) -> None:
    with emulated_metal(checked=True, seed=1):
        check(form, dtype, family, 3 * TYPICAL.index((form, dtype, family)) + 1)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "dtype", "family"), CASES)
def test_no_variant_does_anything_that_metal_forbids(form: str, dtype: str, family: str) -> None:
    with emulated_metal(checked=True):
        for case in range(CASES.index((form, dtype, family)) % 3, 6, 3):
            check(form, dtype, family, case)


def check_row_exact(form: str, dtype: str, family: str) -> None:
    rng = np.random.default_rng(7)
    N, K = 41, 203 if form == "ragged" else 640
    x = normal(rng, (32, K), DTYPES[dtype])
    weight = make_weight(rng, N, K, form, DTYPES[dtype])
    alone = mx.concatenate([block_linear(x[i : i + 1], weight, family) for i in range(32)])
    for rows in BATCHES:
        # a row must not feel where it stands either: batches start at different rows
        first = (32 - rows) // 2
        batch = block_linear(x[first : first + rows], weight, family)
        assert_same_bits(batch, alone[first : first + rows], f"{family} {form} {dtype}, {rows} rows against 1")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("form", "dtype"), [("dense", "bfloat16"), ("affine4g64", "float16")])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(form: str, dtype: str, family: str) -> None:
    with emulated_metal():
        check_row_exact(form, dtype, family)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_has_the_same_bits_alone_and_in_any_batch_in_every_format(form: str, family: str) -> None:
    with emulated_metal():
        check_row_exact(form, list(DTYPES)[FORMATS.index(form) % 3], family)


@emulator_only
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["dense", "affine4g64", "affine8g128", "mxfp4", "nvfp4"])
def test_each_weight_is_read_once_whatever_the_row_count(form: str, family: str) -> None:
    rng = np.random.default_rng(3)
    weight = make_weight(rng, 64, 512, form, mx.bfloat16)
    for rows in (1, 32):
        with emulated_metal(traffic=True) as emulation:
            block_linear(normal(rng, (rows, 512), mx.bfloat16), weight, family)
        (launch,) = emulation.launches
        traffic = launch.report.traffic
        assert traffic["w"].unique == weight.w.nbytes
        assert traffic["w"].loaded <= 1.05 * weight.w.nbytes, f"{rows} rows"
        if weight.scales is not None:
            # lanes that share a group read its scale in one transaction
            assert traffic["scales"].unique_per_threadgroup <= 1.05 * weight.scales.nbytes, f"{rows} rows"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("form", "family"), [("dense", "fma"), ("affine4g64", "mma")])
def test_the_models_layer_shapes_are_right(model: str, form: str, family: str) -> None:
    rng = np.random.default_rng(5)
    with emulated_metal():
        for case, (name, (N, K)) in enumerate(layer_shapes(model).items()):
            if N * K > 2**24:
                continue
            M = (1, 16, 4, 32, 8, 2)[case % 6]
            x = normal(rng, (M, K), mx.bfloat16)
            weight = make_large_weight(rng, N, K, form)
            y = block_linear(x, weight, family)
            columns = slice(None, None, max(1, N // 512))
            assert_close(y[:, columns], float64(x) @ _some_rows(weight, columns).T, f"{model} {name}, {M} rows")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("form", "family"), [("dense", "mma"), ("affine4g64", "fma"), ("affine8g64", "mma")])
def test_every_layer_shape_of_the_models_is_right_and_row_exact(model: str, form: str, family: str) -> None:
    rng = np.random.default_rng(6)
    with emulated_metal():
        for name, (N, K) in layer_shapes(model).items():
            x = normal(rng, (16, K), mx.bfloat16)
            weight = make_large_weight(rng, N, K, form)
            y = block_linear(x, weight, family)
            columns = slice(None, None, max(1, N // 512))
            assert_close(y[:, columns], float64(x) @ _some_rows(weight, columns).T, f"{model} {name}")
            assert_same_bits(block_linear(x[5:6], weight, family), y[5:6], f"{model} {name}, row 5 alone")


@pytest.mark.slow
@pytest.mark.parametrize(("K", "form", "family"), [(2048, "dense", "mma"), (4096, "affine4g64", "fma")])
def test_the_language_model_head_is_right_and_row_exact(K: int, form: str, family: str) -> None:
    rng = np.random.default_rng(8)
    weight = make_large_weight(rng, 151936, K, form)
    x = normal(rng, (4, K), mx.bfloat16)
    columns = slice(None, None, 97)
    with emulated_metal():
        y = block_linear(x, weight, family)
        alone = block_linear(x[3:], weight, family)
    assert_close(y[:, columns], float64(x) @ _some_rows(weight, columns).T, "LM head")
    assert_same_bits(alone, y[3:], "LM head, row 3 alone")


def _some_rows(weight: LinearWeight, rows: slice) -> np.ndarray:
    def cut(a: mx.array | None) -> mx.array | None:
        return None if a is None else mx.contiguous(a[rows])

    return weight_values(
        LinearWeight(
            mx.contiguous(weight.w[rows]),
            cut(weight.scales),
            cut(weight.biases),
            weight.group_size,
            weight.bits,
            weight.mode,
        )
    )


def test_leading_dimensions_of_the_input_are_kept() -> None:
    rng = np.random.default_rng(9)
    weight = make_weight(rng, 40, 64, "dense", mx.float32)
    x = normal(rng, (1, 3, 64), mx.float32)
    with emulated_metal():
        y = block_linear(x, weight, "fma")
    assert y.shape == (1, 3, 40)
    assert_close(y, float64(x) @ weight_values(weight).T, "3 rows in a batch of 1")


@pytest.mark.parametrize("form", FORMATS)
def test_the_reference_is_the_same_function(form: str) -> None:
    rng = np.random.default_rng(10)
    weight = make_weight(rng, 40, 256, form, mx.float32)
    x = normal(rng, (3, 256), mx.float32)
    assert_close(linear_reference(x, weight), float64(x) @ weight_values(weight).T, form)


def test_what_has_no_kernel_is_not_claimed() -> None:
    rng = np.random.default_rng(11)
    dense = make_weight(rng, 16, 64, "dense", mx.bfloat16)
    assert supports(dense, mx.bfloat16)
    assert not supports(dense, mx.float32)
    assert not supports(LinearWeight(dense.w[:4]), mx.bfloat16)
    assert not supports(LinearWeight(dense.w.astype(mx.int32)), mx.int32)
    for bits, group_size in ((2, 64), (3, 64), (5, 32), (6, 64)):
        packed = mx.quantize(dense.w, group_size=group_size if group_size < 64 else 64, bits=bits)
        assert not supports(LinearWeight(*packed, group_size, bits), mx.bfloat16)
    assert all(supports(make_weight(rng, 16, 256, form, mx.float16), mx.float16) for form in FORMATS)
