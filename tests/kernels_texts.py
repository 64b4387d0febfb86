"""Writes every kernel as MLX generates it, one file each, for Apple's compiler: `python -m tests.kernels_texts FOLDER`.

    include=$(python -c "import mlx.core, pathlib; print(pathlib.Path(mlx.core.__file__).parent / 'include')")
    xcrun -sdk macosx metal -std=metal3.1 -fno-fast-math -I "$include" -c FOLDER/NAME.metal -o /dev/null

Nothing is run: MLX prints the texts while it traces the calls.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mlx.core as mx

from orthrus_mlx.kernels.source import kernel
from tests.emulator.tracing import generated_text
from tests.kernels_cases import DTYPES, FORMATS
from tests.test_kernels_rules import run_attention, run_linear, run_verify

PRELUDE = '#include "mlx/backend/metal/kernels/utils.h"\n'
"""What MLX puts before the texts, from the headers in its wheel."""


def every_text() -> dict[str, str]:
    """Texts by a name for a file."""
    texts: dict[str, str] = {}
    original = mx.fast.metal_kernel

    class Traced:
        def __init__(self, name: str, **parts) -> None:
            self.name, self.real = name, original(name=name, **parts)

        def __call__(self, **call) -> list[mx.array]:
            text = generated_text(self.real, call)
            if text not in texts.values():
                texts[f"{len(texts):03}_{self.name}"] = text
            return [mx.zeros(s, t) for s, t in zip(call["output_shapes"], call["output_dtypes"], strict=True)]

    kernel.cache_clear()
    mx.fast.metal_kernel = Traced
    try:
        for dtype in DTYPES:
            for family in ("fma", "mma"):
                for form in FORMATS:
                    run_linear(form, dtype, family)
                for D in (64, 128):
                    for bits in (0, 4, 8):
                        run_attention(D, bits, dtype, family)
            run_verify(dtype)
    finally:
        mx.fast.metal_kernel = original
        kernel.cache_clear()
    return texts


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in every_text().items():
        (folder / f"{name}.metal").write_text(PRELUDE + text)
    print(f"{len(list(folder.glob('*.metal')))} kernels in {folder}")
