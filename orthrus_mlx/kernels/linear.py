"""`block_linear`: y = x W^T for up to 32 rows, where a row's bits do not depend on the rows beside it.

Two kernel families, `metal/block_linear_fma.metal` (few rows) and `metal/block_linear_mma.metal` (many rows).
Either is row-exact by itself; the two differ from each other in the last bits, so one model uses one family per
weight at every row count.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from .source import kernel

MAX_ROWS = 32
FAMILIES = ("fma", "mma")

_ROW_CLASSES = {"fma": (1, 2, 4, 8, 16, 32), "mma": (8, 16, 32)}
_DENSE_DTYPES = (mx.float32, mx.float16, mx.bfloat16)
_SIMDGROUPS = 8
_MMA_COLUMNS = 32


@dataclass(frozen=True)
class LinearWeight:
    """A weight as MLX stores it.

    Attributes:
        w: dense [N, K], or packed uint32 [N, K * bits / 32].
        scales: [N, K / group_size]; None for a dense weight.
        biases: [N, K / group_size] in mode "affine", else None.
        group_size, bits, mode: as in `mx.quantize`; ignored for a dense weight.
    """

    w: mx.array
    scales: mx.array | None = None
    biases: mx.array | None = None
    group_size: int = 64
    bits: int = 4
    mode: str = "affine"

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        N, K = self.w.shape
        return N, K if self.scales is None else K * 32 // self.bits

    @property
    def format(self) -> str:
        """Names the kernels' variant: "bfloat16", "affine4g64", "mxfp4", ..."""
        if self.scales is None:
            return str(self.w.dtype).removeprefix("mlx.core.")
        return f"affine{self.bits}g{self.group_size}" if self.mode == "affine" else self.mode


def supports(weight: LinearWeight, dtype: mx.Dtype) -> bool:
    """True if the kernels have a variant for `weight` and inputs of `dtype`."""
    N, K = weight.shape
    if dtype not in _DENSE_DTYPES or N < 8 or K < 8:
        # MLX moves inputs of fewer than 8 elements to another address space.
        return False
    if weight.scales is None:
        return weight.w.dtype == dtype
    settings = (weight.bits, weight.group_size)
    if weight.mode == "affine":
        return settings[0] in (4, 8) and settings[1] in (32, 64, 128)
    return settings == {"mxfp4": (4, 32), "nvfp4": (4, 16)}.get(weight.mode)


def block_linear(x: mx.array, weight: LinearWeight, family: str) -> mx.array:
    """x [..., K] times W^T -> [..., N] in x's dtype, with 1 to 32 rows in x; `supports` must hold."""
    N, K = weight.shape
    rows = x.reshape(-1, K)
    M = rows.shape[0]
    capacity = next(c for c in _ROW_CLASSES[family] if c >= M)
    inputs = {"x": rows, "w": weight.w}
    template: list[tuple[str, object]] = [("T", x.dtype), ("ROWS", capacity)]
    if weight.scales is None:
        variant = "dense"
        template.append(("ALIGNED", K % 8 == 0))
    elif weight.biases is not None:
        variant = "affine"
        inputs |= {"scales": weight.scales, "biases": weight.biases}
        template += [("S", weight.scales.dtype), ("BITS", weight.bits), ("GROUP", weight.group_size)]
    else:
        variant = "fp4"
        inputs |= {"scales": weight.scales}
        template.append(("GROUP", weight.group_size))
    if family == "fma":
        columns = 4 if capacity <= 16 else 2
        template += [("COLUMNS", columns), ("SIMDGROUPS", _SIMDGROUPS)]
        columns *= _SIMDGROUPS
        helpers: tuple[str, ...] = ("lane_sums.h", "weights.h")
    else:
        columns = _MMA_COLUMNS
        helpers = ("matrix_tile.h", "weights.h")
    run = kernel(
        f"linear_{family}_{variant}",
        tuple(inputs),
        ("y",),
        (f"weights_{variant}.metal", f"block_linear_{family}.metal"),
        helpers,
    )
    (y,) = run(
        inputs=list(inputs.values()),
        template=template,
        grid=(-(-N // columns) * 256, 1, 1),
        threadgroup=(256, 1, 1),
        output_shapes=[(M, N)],
        output_dtypes=[x.dtype],
    )
    return y.reshape(*x.shape[:-1], N)


def linear_reference(x: mx.array, weight: LinearWeight) -> mx.array:
    """The same in plain MLX: what `block_linear` is tested against, and the fallback."""
    if weight.scales is None:
        return x @ weight.w.T
    return mx.quantized_matmul(
        x,
        weight.w,
        weight.scales,
        weight.biases,
        transpose=True,
        group_size=weight.group_size,
        bits=weight.bits,
        mode=weight.mode,
    )
