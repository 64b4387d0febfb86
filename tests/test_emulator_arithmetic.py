"""The emulator's numbers: Metal's types, roundings and refusals."""

from __future__ import annotations

import sys

import mlx.core as mx
import numpy as np
import pytest

from tests.emulator import CompileError, run_source

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the emulator runs on Linux")


def elementwise(body: str, inputs: dict[str, mx.array], outputs: dict[str, mx.Dtype], header: str = ""):
    """The outputs of a kernel whose thread i computes element i."""
    count = max(array.size for array in inputs.values())
    results, _ = run_source(
        f"uint i = thread_position_in_grid.x;\n{body}",
        inputs=inputs,
        outputs={name: ((count,), dtype) for name, dtype in outputs.items()},
        grid=(count, 1, 1),
        threadgroup=(256, 1, 1),
        header=header,
    )
    return results


def bits(array: mx.array) -> np.ndarray:
    return np.array(array.view({2: mx.uint16, 4: mx.uint32}[array.itemsize]))


def float_patterns() -> mx.array:
    """Floats at, just above, half way above and just below every bfloat, and around every half."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    words = np.concatenate([upper + low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    words = np.concatenate([words, *(halves + np.uint32(low) for low in (0, 1, 0xFFF, 0x1000, 0x1001))])
    return mx.array(words.astype(np.uint32)).view(mx.float32)


def test_float_rounds_to_bfloat_and_half_as_mlx_rounds_it():
    x = float_patterns()
    out = elementwise("b[i] = bfloat(x[i]); h[i] = half(x[i]);", {"x": x}, {"b": mx.bfloat16, "h": mx.float16})
    number = ~np.isnan(np.array(x))
    for name, dtype in (("b", mx.bfloat16), ("h", mx.float16)):
        np.testing.assert_array_equal(bits(out[name])[number], bits(x.astype(dtype))[number])
        assert np.isnan(np.array(out[name].astype(mx.float32))[~number]).all()


def test_each_bfloat_and_half_operation_rounds_once():
    mx.random.seed(1)
    for dtype, name in ((mx.bfloat16, "bfloat"), (mx.float16, "half")):
        a, b, c = (mx.random.normal((4096,)).astype(dtype) for _ in range(3))
        out = elementwise(
            f"{name} t = a[i]; t *= b[i]; p[i] = t; s[i] = a[i] * b[i] - c[i]; q[i] = a[i] / b[i];",
            {"a": a, "b": b, "c": c},
            {"p": dtype, "s": dtype, "q": dtype},
        )
        np.testing.assert_array_equal(bits(out["p"]), bits(a * b))
        np.testing.assert_array_equal(bits(out["s"]), bits(a * b - c))
        np.testing.assert_array_equal(bits(out["q"]), bits(a / b))


def test_only_fma_fuses():
    x = mx.array([1 + 2.0**-12])
    out = elementwise(
        "float a = x[i], c = -1.0f - 0x1p-11f; m[i] = a * a + c; f[i] = fma(a, a, c);",
        {"x": x},
        {"m": mx.float32, "f": mx.float32},
    )
    assert out["m"].tolist() == [0.0]
    assert out["f"].tolist() == [2.0**-24]


def test_half_fma_rounds_once():
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(8192).astype(np.float16) for _ in range(3))
    c = (c * np.float16(2.0) ** rng.integers(-9, 9, c.size)).astype(np.float16)
    out = elementwise(
        "y[i] = fma(a[i], b[i], c[i]);",
        {k: mx.array(v) for k, v in zip("abc", (a, b, c), strict=True)},
        {"y": mx.float16},
    )
    expected = (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float16)
    np.testing.assert_array_equal(np.array(out["y"]), expected)


def test_literals_are_floats():
    x = mx.random.uniform(shape=(512,))
    out = elementwise("#define TENTH 0.1\ny[i] = x[i] * TENTH + 1e-3 + .7;", {"x": x}, {"y": mx.float32})
    expected = np.array(x) * np.float32(0.1) + np.float32(1e-3) + np.float32(0.7)
    np.testing.assert_array_equal(np.array(out["y"]), expected)


def test_mixed_arithmetic_follows_metals_ranks():
    out = elementwise(
        """
        auto a = bfloat(x[i]) + 1.0f;   static_assert(is_same_v<decltype(a), float>, "");
        auto b = bfloat(x[i]) * 2;      static_assert(is_same_v<decltype(b), bfloat>, "");
        auto c = half(x[i]) + 1.0f;     static_assert(is_same_v<decltype(c), float>, "");
        auto d = 1.5h * half(x[i]);     static_assert(is_same_v<decltype(d), half>, "");
        auto e = i % 2 ? bfloat(x[i]) : bfloat(0);
        float4 v = 2; v.x += 1; v = v * 3 - float4(float2(x[i]), 1, 0).yxzw;
        half2 h = half2(v.zw);
        y[i] = a + float(b) + c + float(d) + float(e) + v.x + float(h.y) + float(any(v.xy < v.zw));
        """,
        {"x": mx.array([2.0] * 8)},
        {"y": mx.float32},
    )
    # a 3, b 4, c 3, d 3, e 0 or 2, v = (9 - 2, 6 - 2, 6 - 1, 6 - 0), v.xy < v.zw: (false, true)
    assert out["y"].tolist() == [27.0, 29.0] * 4


def test_integer_functions():
    words = np.array([0, 1, 0x80000000, 0xFFFFFFFF, 0x00F0, 12345678, 3, 0x7FFFFFFF], np.uint32)
    out = elementwise(
        """
        uint w = x[i];
        p[i] = popcount(w) + 100 * clz(w) + 10000 * ctz(w);
        r[i] = reverse_bits(w) ^ rotate(w, 5u) ^ extract_bits(w, 4, 7) ^ insert_bits(w, 0x5u, 8, 4);
        m[i] = mulhi(w, 0x9E3779B9u) + as_type<uint>(select(1.0f, 2.0f, w > 7)) + uint(clamp(int(w), -5, 5));
        """,
        {"x": mx.array(words)},
        {"p": mx.uint32, "r": mx.uint32, "m": mx.uint32},
    )
    ints = [int(w) for w in words]
    width = [32 - w.bit_length() for w in ints]
    low = [(w & -w).bit_length() - 1 if w else 32 for w in ints]
    assert out["p"].tolist() == [w.bit_count() + 100 * a + 10000 * b for w, a, b in zip(ints, width, low, strict=True)]
    assert out["r"].tolist() == [
        int(f"{w:032b}"[::-1], 2) ^ ((w << 5 | w >> 27) & 0xFFFFFFFF) ^ (w >> 4 & 0x7F) ^ (w & ~0xF00 | 0x500)
        for w in ints
    ]
    signed = [w - (1 << 32) if w >> 31 else w for w in ints]
    assert out["m"].tolist() == [
        ((w * 0x9E3779B9 >> 32) + (0x40000000 if w > 7 else 0x3F800000) + min(max(s, -5), 5)) & 0xFFFFFFFF
        for w, s in zip(ints, signed, strict=True)
    ]


def test_math_functions_agree_with_numpy():
    x = np.linspace(-4, 4, 257, dtype=np.float32)
    names = ["exp", "exp2", "tanh", "sin", "cos", "floor", "ceil", "rint", "trunc", "fabs", "sign"]
    calls = " ".join(f"y{n}[i] = {n}(x[i]);" for n in names)
    out = elementwise(
        calls + "z[i] = precise::sqrt(abs(x[i])) + fast::log(1.0f + fabs(x[i])) + rsqrt(2.0f + x[i] * x[i]);",
        {"x": mx.array(x)},
        {f"y{n}": mx.float32 for n in names} | {"z": mx.float32},
    )
    for name in names:
        np.testing.assert_allclose(np.array(out[f"y{name}"]), getattr(np, name)(x), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(
        np.array(out["z"]), np.sqrt(np.abs(x)) + np.log1p(np.abs(x)) + 1 / np.sqrt(2 + x * x), rtol=1e-6
    )


@pytest.mark.parametrize(
    "statement",
    [
        "bfloat b = x[i]; y[i] = b;",
        "bfloat b(1); b += x[i]; y[i] = b;",
        "half h = bfloat(x[i]); y[i] = h;",
        "y[i] = float(bfloat(x[i]) * half(x[i]));",
        "y[i] = max(int(i), i);",
        "y[i] = max(x[i], 0);",
        "y[i] = exp(int(i));",
        "float4 v(0); v.xy = float2(x[i]); y[i] = v.x;",
        "float4 v(0); float2 w = v; y[i] = w.x;",
        "y[i] = simd_sum(long(i));",
        "x[i] = 1.0f; y[i] = 0.0f;",
    ],
)
def test_what_metal_refuses_does_not_compile(statement):
    with pytest.raises(CompileError, match=r"kernel \(source\):2:"):
        elementwise(statement, {"x": mx.zeros(64)}, {"y": mx.float32})


def test_a_perturbed_device_contracts_errs_and_adds_in_another_order():
    mx.random.seed(3)
    x, y, z = (mx.random.normal((256,)) for _ in range(3))
    source = """
      uint i = thread_position_in_grid.x;
      power[i] = exp2(x[i]);
      contracted[i] = x[i] * y[i] + z[i];
      sum[i] = simd_sum(x[i]);
    """
    outputs = dict.fromkeys(("power", "contracted", "sum"), ((256,), mx.float32))
    call = {"inputs": {"x": x, "y": y, "z": z}, "outputs": outputs, "grid": (256, 1, 1), "threadgroup": (64, 1, 1)}
    plain, _ = run_source(source, **call)
    perturbed, _ = run_source(source, perturbed=True, **call)
    again, _ = run_source(source, perturbed=True, **call)
    for name in outputs:
        assert np.array_equal(bits(perturbed[name]), bits(again[name])), f"{name}: not the same twice"
        assert not np.array_equal(bits(perturbed[name]), bits(plain[name])), f"{name}: not perturbed"
    off = bits(perturbed["power"]).astype(np.int64) - bits(plain["power"])
    assert set(off.tolist()) == set(range(-4, 5))
    wide = [np.array(a).astype(np.float64) for a in (x, y, z)]
    once = (wide[0] * wide[1] + wide[2]).astype(np.float32)
    assert np.array_equal(np.array(perturbed["contracted"]), once), "rounded once"
    ascending = np.add.accumulate(np.array(x).reshape(8, 32), axis=1, dtype=np.float32)[:, -1]
    assert np.array_equal(np.array(perturbed["sum"]).reshape(8, 32)[:, 0], ascending)
