"""Inputs, float64 references and tolerances for the kernels' tests."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from orthrus_mlx.kernels.linear import LinearWeight

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
MANTISSA_BITS = {mx.float32: 23, mx.float16: 10, mx.bfloat16: 7}

ON_METAL = mx.metal.is_available()
"""True on a Mac: there kernels run on the GPU, not in the emulator."""

emulator_only = pytest.mark.skipif(ON_METAL, reason="asks what only the emulator can tell; here kernels run on Metal")

FORMATS = ("dense", "ragged", *(f"affine{b}g{g}" for b in (4, 8) for g in (32, 64, 128)), "mxfp4", "nvfp4")
"""Weight formats; "ragged" is dense with rows that start anywhere."""


def float64(a: mx.array) -> np.ndarray:
    return np.array(a.astype(mx.float32)).astype(np.float64)


def bits(a: mx.array) -> np.ndarray:
    """The array's bits, for comparing them."""
    return np.array(a.view(mx.uint32 if a.dtype.size == 4 else mx.uint16))


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: mx.Dtype, scale: float = 1.0) -> mx.array:
    return mx.array(rng.standard_normal(shape, np.float32) * np.float32(scale)).astype(dtype)


def make_weight(rng: np.random.Generator, N: int, K: int, form: str, dtype: mx.Dtype) -> LinearWeight:
    """A random weight [N, K] in one of `FORMATS` whose products with unit inputs are of size 1."""
    w = normal(rng, (N, K), dtype, K**-0.5)
    if form in ("dense", "ragged"):
        return LinearWeight(w)
    if form in ("mxfp4", "nvfp4"):
        group_size = {"mxfp4": 32, "nvfp4": 16}[form]
        packed, scales = mx.quantize(w, group_size=group_size, bits=4, mode=form)
        return LinearWeight(packed, scales, None, group_size, 4, form)
    width, group_size = int(form[6]), int(form[8:])
    return LinearWeight(*mx.quantize(w, group_size=group_size, bits=width), group_size, width)


def make_large_weight(rng: np.random.Generator, N: int, K: int, form: str) -> LinearWeight:
    """The same from random bits, in bfloat16: a hundred million normal numbers take longer than the kernel."""
    if form == "dense":
        # sign and mantissa at random, magnitudes from K^-0.5 up to four times that
        exponent = np.uint16(127 - round(np.log2(K) / 2)) << np.uint16(7)
        drawn = rng.integers(0, 2**16, (N, K), dtype=np.uint16)
        return LinearWeight(mx.array((drawn & np.uint16(0x80FF)) + exponent).view(mx.bfloat16))
    width, group_size = int(form[6]), int(form[8:])
    words = mx.array(rng.integers(0, 2**32, (N, K * width // 32), dtype=np.uint32))
    scales = normal(rng, (N, K // group_size), mx.bfloat16, K**-0.5 / 2**width)
    return LinearWeight(words, scales, scales * -(2 ** (width - 1)), group_size, width)


def weight_values(weight: LinearWeight) -> np.ndarray:
    """The weight [N, K] in float64, dequantised by hand for the affine formats."""
    if weight.scales is None:
        return float64(weight.w)
    if weight.biases is None:
        return float64(
            mx.dequantize(
                weight.w,
                weight.scales,
                group_size=weight.group_size,
                bits=weight.bits,
                mode=weight.mode,
                dtype=mx.float32,
            )
        )
    shifts = np.arange(0, 32, weight.bits, dtype=np.uint32)
    q = (np.array(weight.w)[..., None] >> shifts) & np.uint32(2**weight.bits - 1)
    q = q.reshape(weight.shape).astype(np.float64)
    scales, biases = (np.repeat(float64(a), weight.group_size, axis=1) for a in (weight.scales, weight.biases))
    return scales * q + biases


def assert_close(y: mx.array, expected: np.ndarray, what: str) -> None:
    """Within 2 units in the last place of y's type, plus 1e-5."""
    place = np.floor(np.log2(np.maximum(np.abs(expected), 1e-30))) - MANTISSA_BITS[y.dtype]
    error, allowed = np.abs(float64(y) - expected), 2 * 2.0**place + 1e-5
    if not (error <= allowed).all():
        worst = np.unravel_index(np.argmax(np.nan_to_num(error - allowed, nan=np.inf)), error.shape)
        at = tuple(int(i) for i in worst)
        raise AssertionError(f"{what}: {float64(y)[worst]} at {at}, expected {expected[worst]}")


def assert_same_bits(a: mx.array, b: mx.array, what: str) -> None:
    differing = np.argwhere(bits(a) != bits(b))
    assert a.shape == b.shape, f"{what}: shapes {a.shape} and {b.shape}"
    assert not len(differing), f"{what}: {len(differing)} of {a.size} differ, first at {differing[0].tolist()}"
