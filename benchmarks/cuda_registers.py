"""What the CUDA kernels' text takes of a multiprocessor: registers, spills and shared memory, by nvcc's `ptxas -v`.

    python -m benchmarks.cuda_registers              (nvcc on the path; no GPU)

The kernels are those that layers of 1.7B and 8B call, in blocks of 1 to 32 rows, with the constants that MLX gets. A
launch needs registers for all threads of a block at once, of 65,536, and 48 KiB of static shared memory at most.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx

from orthrus_mlx.kernels import LinearWeight
from orthrus_mlx.kernels.cuda import operations

SHAPES = {"1.7B": (2048, 6144, 16), "8B": (4096, 12288, 32)}
"""Hidden and inner width, query heads. All have 8 key/value heads of 128."""

KV_HEADS, HEAD_DIM, VOCABULARY = 8, 128, 151936
CONTEXT = 1024

_TYPES = {mx.bfloat16: "__nv_bfloat16", mx.float32: "float", mx.int32: "int", mx.uint32: "unsigned"}

_START = """
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cstdint>
struct Shape {
  int sizes[8];
  __device__ int operator[](int i) const { return sizes[i]; }
};
"""


@contextmanager
def recorded() -> Iterator[dict[str, str]]:
    """Inside, the kernels' calls compute nothing: what they would compile is collected, text by description."""
    found: dict[str, str] = {}

    def kernel(name: str, inputs: Sequence[str], outputs: Sequence[str]) -> Callable[..., list[mx.array]]:
        def run(**call: Any) -> list[mx.array]:
            made = [mx.zeros(s, d) for s, d in zip(call["output_shapes"], call["output_dtypes"], strict=True)]
            constants = {key: int(value) for key, value in call["template"] if key != "T"}
            threads = call["threadgroup"][0]
            described = ", ".join([name, *(f"{key} {value}" for key, value in constants.items()), f"threads {threads}"])
            given = dict(zip(inputs, call["inputs"], strict=True))
            found[described] = _source(name, given, dict(zip(outputs, made, strict=True)), constants)
            return made

        return run

    original = operations._kernel
    operations._kernel = kernel  # type: ignore[assignment]
    try:
        yield found
    finally:
        operations._kernel = original


def call_kernels(size: str, bits: int) -> None:
    """Every kernel call of a layer and of the head of `size`, by all counts of row tiles and in both views."""
    hidden, inner, heads = SHAPES[size]
    buffer = mx.zeros((1, KV_HEADS, CONTEXT, HEAD_DIM), mx.bfloat16)
    constants, offset = operations.settings(1e-6, HEAD_DIM**-0.5), mx.array([CONTEXT // 2], mx.int32)
    norm, frequencies = mx.zeros((HEAD_DIM,), mx.bfloat16), mx.zeros((HEAD_DIM // 2,), mx.float32)
    for rows in (1, 16, 32):
        x = mx.zeros((rows, hidden), mx.bfloat16)
        qkv = operations.linear(x, _weight((heads + 2 * KV_HEADS) * HEAD_DIM, hidden, bits))
        depths = mx.zeros((rows,), mx.int32)
        queries = operations.rotate(qkv, norm, norm, frequencies, constants, depths, offset, buffer, buffer)
        for causal in (False, True):
            path = mx.zeros((1, rows), mx.int32)
            operations.attention(queries, buffer, buffer, path, offset, constants, causal=causal)
        attended = mx.zeros((rows, heads * HEAD_DIM), x.dtype)
        operations.linear(attended, _weight(hidden, heads * HEAD_DIM, bits), residual=x)
        operations.linear(x, _weight(2 * inner, hidden, bits), gated=True)
        operations.linear(mx.zeros((rows, inner), x.dtype), _weight(hidden, inner, bits), residual=x)
        operations.linear(x, _weight(VOCABULARY, hidden, bits))


def _weight(N: int, K: int, bits: int) -> LinearWeight:
    if bits == 16:
        return LinearWeight(mx.zeros((N, K), mx.bfloat16))
    groups = mx.zeros((N, K // 64), mx.bfloat16)
    return LinearWeight(mx.zeros((N, K * bits // 32), mx.uint32), groups, groups, 64, bits)


def _source(name: str, inputs: dict[str, mx.array], outputs: dict[str, mx.array], constants: dict[str, int]) -> str:
    body = operations._text(f"{name}.cu")
    parameters = []
    for parameter, a in inputs.items():
        parameters.append(f"const {_TYPES[a.dtype]}* {parameter}")
        if f"{parameter}_shape" in body:
            parameters.append(f"const __grid_constant__ Shape {parameter}_shape")
    parameters += [f"{_TYPES[a.dtype]}* {parameter}" for parameter, a in outputs.items()]
    lines = [_START, operations._text("tiles.cuh"), f"__global__ void {name}({', '.join(parameters)}) {{"]
    lines += ["using T = __nv_bfloat16;", *(f"constexpr int {key} = {value};" for key, value in constants.items())]
    return "\n".join([*lines, body, "}"])


def compiled(text: str, architecture: str) -> str:
    """Registers, spills and shared memory of a kernel, as ptxas says it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.cu"
        source.write_text(text)
        command = ["nvcc", "-std=c++17", f"-arch={architecture}", "-cubin", "-Xptxas", "-v", "-o", "/dev/null"]
        run = subprocess.run([*command, str(source)], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stderr)
    spills = re.search(r"(\d+) bytes spill stores", run.stderr)
    registers = re.search(r"Used (\d+) registers", run.stderr)
    shared = re.search(r"(\d+) bytes smem", run.stderr)
    assert spills and registers, run.stderr
    kib = int(shared[1]) / 1024 if shared else 0
    return f"{registers[1]} registers, {spills[1]} bytes spilled, {kib:.1f} KiB shared"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="sm_90")
    options = parser.parse_args()
    with recorded() as kernels:
        for size in SHAPES:
            for bits in (16, 4):
                call_kernels(size, bits)
    for described, text in kernels.items():
        print(f"{described}: {compiled(text, options.architecture)}", flush=True)


if __name__ == "__main__":
    main()
