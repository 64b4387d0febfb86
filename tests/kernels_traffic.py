"""Prints what docs/kernels.md says of bytes, counted in the emulator: `python -m tests.kernels_traffic`."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from orthrus_mlx.kernels.linear import FAMILIES, block_linear
from tests.emulator import emulated_metal
from tests.kernels_cases import FORMATS, make_weight, normal
from tests.test_kernels_attention import Sequence

ROWS = (1, 8, 32)


def loaded(run, names: tuple[str, ...]) -> list[tuple[float, float]]:
    """For each buffer of the first launch: bytes loaded by threads, and by threadgroups, over its distinct bytes."""
    with emulated_metal(traffic=True) as emulation:
        run()
    traffic = emulation.launches[0].report.traffic
    return [
        (traffic[n].loaded / traffic[n].unique, traffic[n].unique_per_threadgroup / traffic[n].unique) for n in names
    ]


def linear() -> None:
    print(f"{'block_linear':26}" + "".join(f"{f'{rows} rows':>16}" for rows in ROWS) + "   loaded by threads / groups")
    rng = np.random.default_rng(0)
    for family in FAMILIES:
        for form in FORMATS:
            K = 515 if form == "ragged" else 512
            weight = make_weight(rng, 64, K, form, mx.bfloat16)
            names = ("w",) if weight.scales is None else ("w", "scales")
            cells = []
            for rows in ROWS:
                x = normal(rng, (rows, K), mx.bfloat16)
                cells.append(loaded(lambda x=x, w=weight, f=family: block_linear(x, w, f), names))
            for i, name in enumerate(names):
                line = "".join(f"{f'{cell[i][0]:.2f} / {cell[i][1]:.2f}':>16}" for cell in cells)
                print(f"{f'{family} {form} {name}':26}{line}")


def attention() -> None:
    print("block_attention, 288 cached positions, head_dim 128: keys, values by threads / groups")
    rng = np.random.default_rng(1)
    for family in FAMILIES:
        for bits in (0, 8, 4):
            for repeats in (1, 2, 4, 8):
                cells = []
                for rows in ROWS:
                    sequence = Sequence.random(rng, repeats, 1, 288 + rows, 128, mx.bfloat16, family, bits=bits)
                    block = list(range(288, 288 + rows))
                    keys, values = loaded(lambda s=sequence, b=block: s.block(288, b, None), ("keys", "values"))
                    cells.append(f"{keys[0]:.2f} / {keys[1]:.2f}, {values[0]:.2f} / {values[1]:.2f}")
                what = f"{family}, {bits or 16}-bit cache, {repeats} heads to a key/value head"
                print(f"{what:46}" + "".join(f"{cell:>28}" for cell in cells))


if __name__ == "__main__":
    linear()
    attention()
