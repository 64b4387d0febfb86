"""Every kernel's generated text keeps Metal's address spaces and the house rules; small threadgroups, little memory."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from orthrus_mlx.kernels.attention import block_attention
from orthrus_mlx.kernels.linear import block_linear
from orthrus_mlx.kernels.source import text
from orthrus_mlx.kernels.verify import accepted_path, choose
from tests.emulator import emulated_metal
from tests.emulator.metal import Launch
from tests.kernels_cases import DTYPES, FORMATS, emulator_only, make_weight, normal

METAL = Path(__file__).parents[1] / "metal"

SMALL_INPUTS = {
    "linear": set(),
    "attention": {"mask", "offset", "scale"}
    | {f"{rows}_{part}" for rows in ("key", "value", "block_key", "block_value") for part in ("scales", "biases")},
    "attention_merge": {"peaks", "masses"},
    "choose": {"keys", "inverse_temperature", "values", "tokens"},
    "accepted": {"tokens", "chosen", "parents"},
}
"""Inputs that can have fewer than 8 elements, by the beginning of the kernel's name; the longest match counts."""


def run_linear(form: str, dtype: str, family: str) -> None:
    rng = np.random.default_rng(0)
    K = 101 if form == "ragged" else 128
    weight = make_weight(rng, 40, K, form, DTYPES[dtype])
    for rows in (1, 4, 32):
        block_linear(normal(rng, (rows, K), DTYPES[dtype]), weight, family)


def run_attention(D: int, bits: int, dtype: str, family: str) -> None:
    rng = np.random.default_rng(0)

    def stored(rows: int):
        values = normal(rng, (1, 2, rows, D), DTYPES[dtype])
        return mx.quantize(values, group_size=64, bits=bits) if bits else values

    for heads, rows in ((4, 1), (8, 2), (4, 9), (8, 16), (16, 16)):
        q = normal(rng, (1, heads, rows, D), DTYPES[dtype])
        block_attention(q, stored(256), stored(256), 5, stored(rows), stored(rows), scale=1.0, family=family)


def run_verify(dtype: str) -> None:
    logits = normal(np.random.default_rng(0), (9, 1000), DTYPES[dtype])
    choose(logits, 1.0, mx.zeros((9, 2), mx.uint32))
    choose(logits, 0.0)
    accepted_path(mx.zeros((9,), mx.uint32), mx.zeros((9,), mx.uint32))


def faults(launches: list[Launch]) -> list[str]:
    from tests.emulator.lint import lint

    found = []
    for launch in {launch.text: launch for launch in launches}.values():
        name = launch.name.removeprefix("orthrus_")
        tiny = SMALL_INPUTS[max((start for start in SMALL_INPUTS if name.startswith(start)), key=len)]
        found += [f"{name}: line {f.line}: {f.message}" for f in lint(launch.text, tiny=tiny)]
        if np.prod(launch.threadgroup) > 256:
            found.append(f"{name}: {launch.threadgroup} threads")
        if launch.report.threadgroup_bytes > 28 * 1024:
            found.append(f"{name}: {launch.report.threadgroup_bytes} bytes of threadgroup memory")
    return found


@emulator_only
def test_each_kernel_keeps_the_rules() -> None:
    pytest.importorskip("clang", reason="the lint needs libclang")
    with emulated_metal() as emulation:
        for form, dtype, family in [("dense", "bfloat16", "fma"), ("affine4g64", "float16", "mma")]:
            run_linear(form, dtype, family)
        run_attention(64, 4, "bfloat16", "fma")
        run_attention(128, 0, "float16", "mma")
        run_verify("bfloat16")
    assert not faults(emulation.launches)


@pytest.mark.slow
@emulator_only
@pytest.mark.parametrize(("dtype", "family"), [("float32", "mma"), ("bfloat16", "fma")])
def test_every_variant_keeps_the_rules(dtype: str, family: str) -> None:
    pytest.importorskip("clang", reason="the lint needs libclang")
    with emulated_metal() as emulation:
        for form in FORMATS:
            run_linear(form, dtype, family)
        for D in (64, 128):
            for bits in (0, 4, 8):
                run_attention(D, bits, dtype, family)
        run_verify(dtype)
    assert not faults(emulation.launches)


@emulator_only
def test_apples_compiler_is_given_every_kernel() -> None:
    from tests.kernels_texts import every_text

    texts = every_text().values()
    for file in METAL.glob("*.metal"):
        body = file.read_text()
        assert any(body in t for t in texts), f"{file.name} is in no text that tests/kernels_texts.py writes"
    for file in METAL.glob("*.h"):
        assert any(file.read_text() in t for t in texts), file.name


@pytest.mark.parametrize("file", sorted(f.name for f in METAL.iterdir() if f.suffix in (".metal", ".h")))
def test_every_file_is_shipped_and_says_what_it_is(file: str) -> None:
    content = text(file)
    assert content == (METAL / file).read_text()
    assert content.lstrip().startswith("//")
    assert content.endswith("}\n") or content.endswith(";\n")
    assert max(map(len, content.splitlines())) <= 120
