"""The kernels' own text on an NVIDIA GPU: an independent check of what the emulator says.

    python -m benchmarks.cuda_kernels record cases.npz        on Linux with the development install
    python benchmarks/cuda_kernels.py run cases.npz           on a machine with a GPU, CuPy and NumPy
    compute-sanitizer --tool racecheck python3 benchmarks/cuda_kernels.py run cases.npz
                                                              (and memcheck, synccheck, initcheck)

It has not run on a GPU yet.

`record` runs small cases in the emulator and keeps each launch: the generated Metal text turned into CUDA, the
buffers before it, the outputs after it. `run` compiles that with NVRTC and compares. block_linear, the choices and
the path must have the emulator's bits; block_attention, whose exp2 differs, must agree within 1e-5 and give a row
of a block the bits of the row alone.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

HEADER = Path(__file__).with_name("cuda_dialect.h")
BUILT_INS = {
    "thread_position_in_grid": "uint3{blockIdx.x * blockDim.x + threadIdx.x, blockIdx.y, blockIdx.z}",
    "threadgroup_position_in_grid": "uint3{blockIdx.x, blockIdx.y, blockIdx.z}",
    "threadgroups_per_grid": "uint3{gridDim.x, gridDim.y, gridDim.z}",
    "thread_index_in_threadgroup": "threadIdx.x",
    "thread_index_in_simdgroup": "threadIdx.x % 32",
    "simdgroup_index_in_threadgroup": "threadIdx.x / 32",
}
ALL_BITS = ("linear", "choose", "accepted")

# Recording ------------------------------------------------------------------------------------------


def record(path: str) -> None:
    launches, equal = _emulated()
    arrays: dict[str, np.ndarray] = {}
    manifest = []
    for number, (text, buffers, grid, threadgroup) in enumerate(launches):
        entry: dict[str, Any] = {"grid": grid, "threadgroup": threadgroup, "buffers": []}
        entry["code"], entry["name"] = cuda_text(text, [buffer.name for buffer in buffers])
        for buffer in buffers:
            values = buffer.result if buffer.writable else buffer.values
            arrays[f"{number}/{buffer.name}"] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            entry["buffers"].append([buffer.name, buffer.writable, buffer.itemsize])
        manifest.append(entry)
    np.savez_compressed(path, manifest=json.dumps({"launches": manifest, "equal": equal}), **arrays)
    print(f"{path}: {len(launches)} launches, {Path(path).stat().st_size >> 10} KiB")


def _emulated() -> tuple[list, list]:
    """Launches (text, buffers, grid, threadgroup), and pairs of slices of outputs that must have equal bits."""
    import mlx.core as mx

    from orthrus_mlx.kernels.attention import block_attention, causal_mask, tree_mask
    from orthrus_mlx.kernels.linear import FAMILIES, block_linear
    from orthrus_mlx.kernels.verify import accepted_path, choose
    from tests.emulator import emulated_metal, metal
    from tests.kernels_cases import DTYPES, FORMATS, make_weight, normal

    launches: list = []
    original = metal.run_text

    def remembered(text, buffers, **settings):
        report = original(text, buffers, **settings)
        launches.append((text, buffers, settings["grid"], settings["threadgroup"]))
        return report

    equal = []
    rng = np.random.default_rng(0)
    metal.run_text = remembered
    try:
        with emulated_metal():
            for family in FAMILIES:
                for case, form in enumerate(FORMATS):
                    dtype = list(DTYPES.values())[case % 3]
                    K = 203 if form == "ragged" else 640
                    weight = make_weight(rng, 41, K, form, dtype)
                    for rows in ((1, 3), (2, 19), (7, 32))[case % 3]:
                        block_linear(normal(rng, (rows, K), dtype), weight, family)
                for case, (heads, rows, D, bits) in enumerate(
                    [(4, 2, 64, 0), (4, 11, 128, 0), (8, 19, 64, 0), (4, 2, 128, 4), (8, 9, 64, 8)]
                ):
                    dtype = list(DTYPES.values())[case % 3]
                    q = normal(rng, (1, heads, rows, D), dtype)
                    whole = [normal(rng, (1, 2, 512, D), dtype) for _ in range(2)]
                    parents = [-1, *(max(0, i - 1 - i % 3) for i in range(1, rows))]

                    def attend(q, offset, rows_at, mask, whole=whole, bits=bits, D=D, family=family):
                        def stored(a):
                            return mx.quantize(a, group_size=32, bits=bits) if bits else a

                        own = [stored(a[:, :, rows_at : rows_at + q.shape[2]]) for a in whole]
                        block_attention(q, *map(stored, whole), offset, *own, mask, scale=D**-0.5, family=family)

                    attend(q, 250, 250, tree_mask(parents))
                    attend(q, 250, 250, causal_mask(rows))
                    block = len(launches) - 2
                    attend(q[:, :, rows - 1 :], 250 + rows - 1, 250 + rows - 1, causal_mask(1))
                    alone = len(launches) - 2
                    repeats = heads // 2
                    for output, width in (("chunk_sums", D), ("chunk_peaks", 1), ("chunk_masses", 1)):
                        shape = [2, 2 if 250 + rows > 256 else 1]
                        equal.append(
                            {
                                "output": output,
                                "block": [block, [*shape, repeats, rows, width]],
                                "alone": [alone, [*shape, repeats, 1, width]],
                            }
                        )
            for dtype in DTYPES.values():
                keys = mx.array([[5, p] for p in range(9)], dtype=mx.uint32)
                logits = normal(rng, (9, 4999), dtype, 3)
                choose(logits, 0.7, keys)
                choose(logits, 0.0)
            tokens = mx.array([9, 1, 2, 3, 3, 5, 5, 7, 1], dtype=mx.uint32)
            chosen = mx.array([2, 3, 3, 5, 5, 0, 7, 6, 0], dtype=mx.uint32)
            accepted_path(tokens, chosen, mx.array([-1, 0, 0, 1, 2, 3, 4, 6, 7], dtype=mx.int32))
    finally:
        metal.run_text = original
    return launches, equal


def cuda_text(text: str, buffers: list[str]) -> tuple[str, str]:
    """(CUDA text, kernel name) of a generated Metal text whose buffers are named `buffers`, in order.

    Qualifiers go, threadgroup arrays become __shared__, and the kernel becomes a device function that a plain
    C kernel `entry` calls with the instance's template arguments.
    """
    from tests.emulator.preprocess import INSTANTIATION, KERNEL, uncommented

    code = uncommented(text)
    instance = INSTANTIATION.search(code)
    kernel = KERNEL.search(code)
    assert kernel is not None
    call = instance.group(2).strip() if instance else kernel.group(1)
    code = code[: instance.start()] if instance else code
    built_ins = re.findall(r"\[\[(\w+)\]\]", code[kernel.end() :])
    code = code[: kernel.start()] + "__device__ void " + kernel.group(1) + "(" + code[kernel.end() :]
    code = re.sub(r"\[\[[^\]]*\]\]", "", code)
    code = re.sub(r"#include <metal_\w+>", "", code)
    storage = r"(?m)^(\s*)threadgroup ([^*&;()]*(?:\([^;]*\)[^*&;()]*)?/?[^*&;]*;)"
    code = re.sub(storage, r"\1__shared__ \2", _storage(code))
    code = re.sub(r"\bconst constant\b", "const", code)
    code = re.sub(r"\b(device|thread|threadgroup|constant)\b(?!_)", "", code)
    parameters = ", ".join(f"void* b{i}" for i in range(len(buffers)))
    arguments = [f"Any{{b{i}}}" for i in range(len(buffers))] + [BUILT_INS[name] for name in built_ins]
    entry = (
        "struct Any {\n  void* p;\n  template <class T>\n"
        "  __device__ operator T*() const {\n    return (T*)p;\n  }\n};\n"
        f'extern "C" __global__ void entry({parameters}) {{\n  {call}({", ".join(arguments)});\n}}\n'
    )
    return code + entry, kernel.group(1)


def _storage(code: str) -> str:
    """Threadgroup arrays on one line each, marked for `cuda_text` (the house rules put one on a line)."""
    return re.sub(r"(?m)^(\s*)threadgroup (?=[^*&;]*\[)", r"\1__shared__ ", code)


# Running --------------------------------------------------------------------------------------------


def run(path: str) -> int:
    import cupy

    # one allocation per buffer, so that compute-sanitizer sees where each ends
    cupy.cuda.set_allocator(None)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    manifest = json.loads(str(arrays.pop("manifest")))
    results: list[dict[str, np.ndarray]] = []
    wrong: list[str] = []
    worst = 0.0
    for number, launch in enumerate(manifest["launches"]):
        module = cupy.RawModule(
            code=HEADER.read_text() + launch["code"],
            options=("--std=c++14", "--fmad=false", "--device-as-default-execution-space", "-lineinfo"),
        )
        memory = []
        for name, written, _ in launch["buffers"]:
            expected = arrays[f"{number}/{name}"]
            memory.append(cupy.empty(expected.size, np.uint8) if written else cupy.asarray(expected))
        blocks = tuple(-(-g // t) for g, t in zip(launch["grid"], launch["threadgroup"], strict=True))
        module.get_function("entry")(blocks, tuple(launch["threadgroup"]), tuple(memory))
        cupy.cuda.runtime.deviceSynchronize()
        outputs = {}
        for (name, written, itemsize), buffer in zip(launch["buffers"], memory, strict=True):
            if not written:
                continue
            got, expected = buffer.get(), arrays[f"{number}/{name}"]
            outputs[name] = got
            if any(kind in launch["name"] for kind in ALL_BITS):
                if name != "values" and not np.array_equal(got, expected):
                    wrong.append(f"{launch['name']}: {name}: bits differ from the emulator's")
            else:
                distance = _distance(got, expected, itemsize, launch["name"])
                worst = max(worst, distance)
                if not distance <= 1:
                    wrong.append(f"{launch['name']}: {name}: {distance:.3g} times the allowed error")
        results.append(outputs)
    for pair in manifest["equal"]:
        both = pair["block"], pair["alone"]
        block, alone = (results[i][pair["output"]].view(np.float32).reshape(s) for i, s in both)
        last = block[:, :, :, -1:]
        if not np.array_equal(last.view(np.uint32), alone.view(np.uint32)):
            wrong.append(f"{pair['output']} of launch {pair['block'][0]}: a row's bits differ from the row alone")
    device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    print("\n".join(wrong))
    print(
        f"{device}: {len(results)} launches, {len(manifest['equal'])} comparisons of a row alone, {len(wrong)} wrong; "
        f"block_attention within {worst:.2g} of the allowed error"
    )
    return 1 if wrong else 0


def _distance(got: np.ndarray, expected: np.ndarray, itemsize: int, name: str) -> float:
    """Largest error as a multiple of 1e-5 (1 ulp for 16-bit outputs) relative to values above 1."""
    if itemsize == 4:
        a, b, allowed = got.view(np.float32), expected.view(np.float32), 1e-5
    elif "bfloat16_t_float_float_float" in name:
        a, b = ((x.view(np.uint16).astype(np.uint32) << 16).view(np.float32) for x in (got, expected))
        allowed = 2.0**-7
    else:
        a, b, allowed = got.view(np.float16).astype(np.float32), expected.view(np.float16).astype(np.float32), 2.0**-10
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0, np.abs(a - b) / np.maximum(np.abs(b), 1))
    return float(error.max(initial=0) / allowed)


if __name__ == "__main__":
    commands = {"record": record, "run": run}
    if len(sys.argv) != 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    sys.exit(commands[sys.argv[1]](sys.argv[2]))
