"""The registers that the CUDA kernels' text takes, and whether they spill, by nvcc's `ptxas -v`.

    python -m benchmarks.cuda_registers              (nvcc on the path; no GPU)

The text is what MLX would compile, for the shapes of 1.7B and 8B. A thread block has 256 threads, so that up to 255
registers a thread fit on a multiprocessor.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

from orthrus_mlx.kernels.cuda import operations

SHAPES = {"1.7B": (2048, 6144, 2, 28), "8B": (4096, 12288, 4, 36)}
"""Hidden and inner width, query heads to a key/value head, layers."""

_START = """
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cstdint>
struct Shape {
  int sizes[8];
  __device__ int operator[](int i) const { return sizes[i]; }
};
"""


def layers_text(size: str, bits: int, dtype: str) -> str:
    hidden, inner, repeats, count = SHAPES[size]
    fields = 8 if bits == 0 else 16
    layers = operations.layers_per_launch(count, fields)
    stored = [f"stored_{kind}_{i}" for i in range(layers) for kind in ("keys", "values")]
    arrays = [f"array_{layer}_{i}" for layer in range(layers) for i in range(fields)]
    types = dict.fromkeys([*stored, *arrays, "h"], "T") | {"frequencies": "float", "settings": "float"}
    types |= dict.fromkeys(("paths", "depths", "offset"), "int") | {"meeting": "unsigned"}
    outputs = dict.fromkeys(("y", "qkv", "queries", "attended", "inner"), "T") | {"done": "unsigned"}
    outputs |= dict.fromkeys(("squares", "chunk_sums", "chunk_peaks", "chunk_masses"), "float")
    constants = {"HIDDEN": hidden, "INNER": inner, "G": 8, "REPEATS": repeats, "D": 128}
    constants |= {"BITS": bits, "GROUP": 64, "QKV_PANELS": 1, "OUT_PANELS": 2, "LAYERS": layers, "FIELDS": fields}
    return _kernel("layers", types, outputs, constants, operations.body("layers", list(types)), dtype)


def linear_text(bits: int, dtype: str) -> str:
    types = {"x": "T", "w": "T" if bits == 0 else "unsigned", "scales": "T", "biases": "T"}
    constants = {"BITS": bits, "GROUP": 64}
    return _kernel("linear", types, {"y": "T"}, constants, operations.body("linear", list(types)), dtype)


def _kernel(
    name: str, types: dict[str, str], outputs: dict[str, str], constants: dict[str, int], body: str, dtype: str
) -> str:
    parameters = []
    for parameter, kind in types.items():
        parameters.append(f"const {kind.replace('T', dtype) if kind == 'T' else kind}* {parameter}")
        if f"{parameter}_shape" in body:
            parameters.append(f"const __grid_constant__ Shape {parameter}_shape")
    parameters += [f"{dtype if kind == 'T' else kind}* {parameter}" for parameter, kind in outputs.items()]
    lines = [_START, operations.sizes(constants["BITS"]), operations._text("tiles.cuh"), operations.header()]
    lines += [f"__global__ void {name}("]
    lines += [",\n".join(parameters), ") {", f"using T = {dtype};"]
    lines += [f"constexpr int {key} = {value};" for key, value in constants.items()]
    return "\n".join([*lines, body, "}"])


def compiled(text: str, architecture: str) -> str:
    """Registers and spills of a kernel, as ptxas says it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.cu"
        source.write_text(text)
        command = [
            "nvcc",
            "-std=c++17",
            f"-arch={architecture}",
            "-cubin",
            "-Xptxas",
            "-v",
            "-o",
            "/dev/null",
            str(source),
        ]
        run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stderr)
    spills = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", run.stderr)
    used = re.search(r"Used (\d+) registers", run.stderr)
    assert spills and used, run.stderr
    return f"{used[1]} registers, {spills[2]} bytes spilled"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="sm_90")
    options = parser.parse_args()
    for bits in (0, 4):
        texts = {f"layers {size}": layers_text(size, bits, "__nv_bfloat16") for size in SHAPES}
        texts["linear"] = linear_text(bits, "__nv_bfloat16")
        for name, text in texts.items():
            print(f"{name}, {'4-bit' if bits else 'dense'}: {compiled(text, options.architecture)}", flush=True)
    print(f"layers 8B, dense, float16: {compiled(layers_text('8B', 0, '__half'), options.architecture)}")


if __name__ == "__main__":
    main()
