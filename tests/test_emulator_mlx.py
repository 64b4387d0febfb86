"""A kernel that MLX ships runs from its unchanged text, gives the right numbers and is found sound."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from tests.emulator import KernelFault
from tests.emulator.execution import run_text
from tests.emulator.findings import Buffer
from tests.emulator.mutation import dropped_barriers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the emulator runs on Linux")

MLX_KERNELS = Path(mx.__file__).parent / "include/mlx/backend/metal/kernels"


def sdpa_vector() -> str:
    """MLX's vector attention, its text unchanged but for values in place of function constants."""
    text = (MLX_KERNELS / "sdpa_vector.h").read_text()
    values = {"do_causal": "true"}
    return re.sub(
        r"constant (\w+) (\w+) \[\[function_constant\(\d+\)\]\];",
        lambda found: f"constant {found[1]} {found[2]} = {values.get(found[2], '0')};",
        text,
    )


def attend(text: str, **settings) -> tuple[np.ndarray, np.ndarray]:
    """Causal attention of 3 rows over 77 keys, 4 heads sharing 2: by the kernel in `text`, and by NumPy."""
    rng = np.random.default_rng(0)
    heads, shared, rows, keys, width = 4, 2, 3, 77, 64
    q = rng.standard_normal((heads, rows, width)).astype(np.float16)
    k, v = (rng.standard_normal((heads // shared, keys, width)).astype(np.float16) for _ in range(2))
    out = Buffer("out", q.nbytes, q.itemsize, writable=True)
    scalars = [np.int32(shared), np.int32(keys), *(np.uint64(n) for n in (keys * width, width) * 2)]
    scalars += [np.float32(width**-0.5), *[np.zeros(1, np.int32)] * 7]
    buffers = [Buffer(name, array.nbytes, array.itemsize, array) for name, array in (("q", q), ("k", k), ("v", v))]
    buffers += [out]
    buffers += [Buffer(f"s{n}", value.nbytes, value.itemsize, np.asarray(value)) for n, value in enumerate(scalars)]
    run_text(
        text,
        buffers,
        grid=(1024 * heads, rows, 1),
        threadgroup=(1024, 1, 1),
        entry=f"sdpa_vector<half, {width}, {width}>",
        **settings,
    )
    every_k, every_v = (np.repeat(array, shared, 0).astype(np.float64) for array in (k, v))
    scores = np.einsum("hqd,hkd->hqk", q.astype(np.float64), every_k) * width**-0.5
    seen = np.arange(keys) <= (keys - rows + np.arange(rows))[:, None]
    weights = np.exp(np.where(seen, scores, -np.inf))
    assert out.result is not None
    return out.result.view(np.float16).reshape(q.shape), weights / weights.sum(-1, keepdims=True) @ every_v


@pytest.mark.parametrize("settings", [{}, {"checked": True, "seed": 1}])
def test_mlx_attention_runs_unchanged_and_is_found_sound(settings):
    result, expected = attend(sdpa_vector(), **settings)
    np.testing.assert_allclose(result, expected, atol=5e-4)


@pytest.mark.parametrize("barrier", range(3))
def test_mlx_attention_without_one_of_its_barriers_is_found_unsound(barrier):
    text = sdpa_vector()
    dropped = dropped_barriers(text)[barrier]
    with pytest.raises(KernelFault) as caught:
        attend(dropped(text), checked=True)
    assert "race" in caught.value.kinds
