"""The kernels' calls. Shapes: L rows of one block, H query heads, G key/value heads, D head_dim."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import mlx.core as mx

from ..linear import LinearWeight

MAX_ROWS = 32

_THREADS = 256
_RING = {0: 64 << 10, 4: 48 << 10}
"""Bytes of weights on their way to a multiprocessor, by the bits of a weight (0: dense)."""

_SCALES = {0: 0, 4: 52 << 10}
"""Bytes of scales and biases on their way: those of two tiles of 16 rows of 25,984 weights in groups of 64."""

_PIECES = 33_792
"""Bytes of sums: `Workspace` of `product.cuh`."""

_PARAMETERS = 440
"""Most arrays of layers that a launch may be given: CUDA before 12.1 takes 4 KiB of parameters."""


def supports(weight: LinearWeight, dtype: mx.Dtype) -> bool:
    """True if the kernels take `weight` with inputs of `dtype`: 16-bit floats, dense or affine 4-bit."""
    N, K = weight.shape
    if dtype not in (mx.bfloat16, mx.float16) or N % 32:
        return False
    if weight.scales is None:
        return weight.w.dtype == dtype and K % 64 == 0
    settled = (weight.mode, weight.bits) == ("affine", 4) and weight.group_size in (32, 64, 128)
    # `scale_stride` of product.cuh is at most 5 words more than a row's scales take.
    fits = 2 * 32 * 4 * (K // weight.group_size // 2 + 5) <= _SCALES[4]
    return settled and fits and weight.scales.dtype == dtype and K % max(128, 2 * weight.group_size) == 0


def linear(x: mx.array, weight: LinearWeight) -> mx.array:
    """x [L, K] W^T -> [L, N], L <= 32."""
    dense = weight.scales is None
    bits = 0 if dense else weight.bits
    (y,) = _kernel("linear", ("x", "w", "scales", "biases"), ("y",), bits)(
        inputs=[x, weight.w, x if dense else weight.scales, x if dense else weight.biases],
        template=[
            ("T", x.dtype),
            ("BITS", bits),
            ("GROUP", weight.group_size),
        ],
        grid=(min(multiprocessors(), weight.shape[0] // 32) * _THREADS, 1, 1),
        threadgroup=(_THREADS, 1, 1),
        output_shapes=[(x.shape[0], weight.shape[0])],
        output_dtypes=[x.dtype],
    )
    return y


def settings(eps: float, scale: float, causal: bool, layers: int) -> mx.array:
    """What `layers` needs to know: the norms' epsilon, the factor on the scores, the mask, how many layers to run."""
    return mx.array([eps, scale * math.log2(math.e), float(causal), layers], dtype=mx.float32)


@dataclass(frozen=True)
class LayerShape:
    """What all layers of a model have in common."""

    hidden: int
    inner: int
    query_heads: int
    kv_heads: int
    head_dim: int
    bits: int
    """0: dense."""
    group_size: int


def layer_arrays(weights: Sequence[LinearWeight], norms: Sequence[mx.array]) -> list[mx.array]:
    """A layer's arrays in the order that `layers` takes.

    Args:
        weights: q/k/v, output, gate/up and down projection.
        norms: before attention, of queries, of keys, before the MLP.
    """
    parts = [a for weight in weights for a in (weight.w, weight.scales, weight.biases) if a is not None]
    return [mx.contiguous(a) for a in (*parts, *norms)]


def layers_per_launch(count: int, arrays: int) -> int:
    """How many of `count` layers, of `arrays` arrays each, one launch takes: all, or equal parts."""
    launches = -(-count * (arrays + 2) // _PARAMETERS)
    return -(-count // launches)


class Turns:
    """Puts launches of `layers` one behind the other, as each waits for all of its own thread blocks."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # MLX keeps arrays of up to 8 bytes in the host's memory.
        self.meeting = mx.zeros((32,), dtype=mx.uint32)
        self.last = mx.zeros((32,), dtype=mx.uint32)


def layers(
    h: mx.array,
    shape: LayerShape,
    arrays: Sequence[Sequence[mx.array]],
    stored: Sequence[tuple[mx.array, mx.array]],
    *,
    paths: mx.array,
    depths: mx.array,
    offset: mx.array,
    frequencies: mx.array,
    constants: mx.array,
    turns: Turns,
) -> mx.array:
    """Hidden states [L, hidden] of a block's rows behind some layers, L <= 32, queued; the cache is written IN PLACE.

    Args:
        h: [L, hidden].
        arrays: per layer, from `layer_arrays`; no more layers than `layers_per_launch`.
        stored: the cache's buffers per layer, keys and values [1, G, capacity, D]: rows below `offset` are the prefix,
            rows offset .. offset + L - 1 are written. MLX does not know: whatever reads them must depend on the result.
        paths: int32 [P, S], the block's rows on each path from the root, -1 behind a path's end. A chain is one path.
        depths: int32 [L], the rows' positions behind `offset`.
        offset: int32 [1], the block's first position and first row in the buffers.
        frequencies: float32 [D / 2], radians per position.
        constants: from `settings`.
    """
    L, (P, S) = h.shape[0], paths.shape
    G, D = shape.kv_heads, shape.head_dim
    repeats = shape.query_heads // G
    rows, chunks = repeats * S, chunks_for(stored[0][0].shape[2])
    names = [f"stored_{kind}_{i}" for i in range(len(stored)) for kind in ("keys", "values")]
    names += [f"array_{layer}_{i}" for layer in range(len(arrays)) for i in range(len(arrays[0]))]
    names += ["h", "paths", "depths", "offset", "frequencies", "settings", "meeting", "last"]
    outputs = ("y", "done", "qkv", "queries", "attended", "inner", "squares")
    run = _kernel("layers", tuple(names), (*outputs, "chunk_sums", "chunk_peaks", "chunk_masses"), shape.bits)
    with turns.lock:
        y, done, *_ = run(
            inputs=[a for pair in stored for a in pair]
            + [a for layer in arrays for a in layer]
            + [h, paths, depths, offset, frequencies, constants, turns.meeting, turns.last],
            template=[
                ("T", h.dtype),
                ("HIDDEN", shape.hidden),
                ("INNER", shape.inner),
                ("G", G),
                ("REPEATS", repeats),
                ("D", D),
                ("BITS", shape.bits),
                ("GROUP", shape.group_size),
                ("QKV_PANELS", _panels((shape.query_heads + 2 * G) * D)),
                ("OUT_PANELS", _panels(shape.hidden)),
                ("LAYERS", len(arrays)),
                ("FIELDS", len(arrays[0])),
            ],
            grid=(multiprocessors() * _THREADS, 1, 1),
            threadgroup=(_THREADS, 1, 1),
            output_shapes=[
                (L, shape.hidden),
                turns.last.shape,
                (L, (shape.query_heads + 2 * G) * D),
                (shape.query_heads, L, D),
                (L, shape.query_heads * D),
                (L, shape.inner),
                (L, shape.hidden // 16),
                (P, G, chunks, rows, D),
                (P, G, chunks, rows),
                (P, G, chunks, rows),
            ],
            output_dtypes=[h.dtype, mx.uint32, *[h.dtype] * 4, *[mx.float32] * 4],
        )
        # At once: the next launch, which waits for this one, may be another thread's.
        mx.async_eval(y, done)
        turns.last = done
    return y


def _panels(rows: int) -> int:
    """Tiles of 16 of a weight's `rows` rows that a thread block takes at once: two, if no block has more to do then."""
    turns = -(-rows // 16 // multiprocessors())
    return 2 if rows % 32 == 0 and 2 * -(-rows // 32 // multiprocessors()) <= turns else 1


def chunks_for(keys: int) -> int:
    """Chunks that `attention.cuh` cuts `keys` keys into."""
    if keys <= 4096:
        return -(-keys // 128)
    return 32 + -(-(keys - 4096) // 256) if keys <= 8192 else 48 + -(-(keys - 8192) // 512)


@cache
def multiprocessors() -> int:
    """Of the device that MLX uses; a launch of as many thread blocks has them all on the device at a time."""
    driver, count, device = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_int()
    attribute = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    if (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetAttribute(ctypes.byref(count), attribute, device)
    ):
        raise RuntimeError("the CUDA driver does not say how many multiprocessors the device has")
    return count.value


@cache
def _text(file: str) -> str:
    return (resources.files(__package__) / file).read_text()


def header() -> str:
    """Functions that the kernels call, without those of `tiles.cuh`, which come first, and without `sizes`."""
    return "\n".join(_text(f"{name}.cuh") for name in ("product", "rotate", "attention"))


def sizes(bits: int) -> str:
    """Of the memory that a launch over weights of `bits` bits asks for."""
    return f"constexpr int RING = {_RING[bits]}, SCALES = {_SCALES[bits]}, WORKSPACE = {_workspace(bits)};\n"


def _workspace(bits: int) -> int:
    return _RING[bits] + _PIECES + _SCALES[bits]


def body(name: str, inputs: Sequence[str]) -> str:
    """A kernel's text."""
    if name != "layers":
        return _text(f"{name}.cu")
    lines = ["__shared__ const void* arrays_at[LAYERS * FIELDS];", "__shared__ const T* stored_at[LAYERS * 2];"]
    for prefix, table in (("array_", "arrays_at"), ("stored_", "stored_at")):
        arrays = [name for name in inputs if name.startswith(prefix)]
        # By the first threads of all warps: one alone would be at it for microseconds.
        for warp in range(_THREADS // 32):
            mine = [f"{table}[{i}] = {array};" for i, array in enumerate(arrays) if i % (_THREADS // 32) == warp]
            lines += [f"if (threadIdx.x == {32 * warp}) {{", *mine, "}"]
    return "\n".join([*lines, "__syncthreads();", _text("layers.cu")])


@cache
def _kernel(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], bits: int) -> Any:
    """Built on first use: MLX refuses to where there is no CUDA."""
    return mx.fast.cuda_kernel(
        name=f"orthrus_{name}_{bits}",
        input_names=list(inputs),
        output_names=list(outputs),
        source=body(name, inputs),
        header=sizes(bits) + _text("tiles.cuh") + header(),
        shared_memory=_workspace(bits),
    )
