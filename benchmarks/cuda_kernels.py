"""The kernels' own text on an NVIDIA GPU: an independent check of what the emulator says.

    python -m benchmarks.cuda_kernels record cases.npz.xz      on Linux with the development install
    bash benchmarks/cuda_check.sh cases.npz.xz                 on a machine with a GPU, CuPy and compute-sanitizer

`record` runs small cases of every kernel and variant in the emulator and keeps each launch: the generated Metal text
turned into CUDA, the buffers before it, the outputs after it. `run` compiles that with NVRTC, runs it and compares:
block_linear, the choices and the path must have the emulator's bits; block_attention and the scores of the choices,
whose exp2 and log differ, must agree within 1e-5 (1 unit in the last place for 16-bit outputs). And a row must
have the same bits on the GPU whatever rows travel with it.

    python benchmarks/cuda_kernels.py run cases.npz.xz                   compare, print a table
    python benchmarks/cuda_kernels.py once cases.npz.xz                  each compiled text once, for compute-sanitizer
    python benchmarks/cuda_kernels.py planted cases.npz.xz out-of-bounds a planted fault, which its tool must report
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
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
PLANTED = {
    "out-of-bounds": ("if (m < M && n < N)", "if (true)"),
    "race": ("threadgroup_barrier(mem_flags::mem_threadgroup);", ";"),
    "divergence": (
        "threadgroup_barrier(mem_flags::mem_threadgroup);",
        "if (lane % 32 < 16) threadgroup_barrier(mem_flags::mem_threadgroup);",
    ),
    "uninitialised": ("y[size_t(m) * N + n] = T(sums[j]);", "y[size_t(m) * N + n] = T(sums[j] + float(y[0]));"),
}
"""Faults in a staged block_linear, by what a tool of compute-sanitizer must find: memcheck, racecheck, synccheck,
initcheck."""

# Recording ------------------------------------------------------------------------------------------


class Recording:
    """Launches of the emulator, and rows of their outputs that must have equal bits."""

    def __init__(self) -> None:
        self.launches: list[dict[str, Any]] = []
        self.equal: list[list] = []
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, text: str, buffers: list, grid: tuple, threadgroup: tuple) -> None:
        code, name, types = cuda_text(text, [buffer.name for buffer in buffers])
        kept = []
        for buffer in buffers:
            values = buffer.result if buffer.writable else buffer.values
            data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            digest = hashlib.sha256(data.tobytes()).hexdigest()[:16]
            self.arrays[digest] = data
            kept.append([buffer.name, types[buffer.name] if buffer.writable else "", digest])
        self.launches.append({"name": name, "code": code, "grid": grid, "threads": threadgroup, "buffers": kept})

    def same(self, a: tuple[int, list[int], int], b: tuple[int, list[int], int], axis: int, output: str) -> None:
        """Row `a[2]` along `axis` of `output` [a[1]] of launch a[0] must have the bits of row b[2] of launch b[0]."""
        self.equal.append([output, axis, a, b])

    @property
    def last(self) -> int:
        return len(self.launches) - 1


def record(path: str) -> None:
    from tests.emulator import emulated_metal, metal

    recording = Recording()
    original = metal.run_text

    def remembered(text, buffers, **settings):
        report = original(text, buffers, **settings)
        recording.add(text, buffers, settings["grid"], settings["threadgroup"])
        return report

    metal.run_text = remembered
    try:
        with emulated_metal():
            _record_linear(recording)
            _record_attention(recording)
            _record_choices(recording)
    finally:
        metal.run_text = original
    memory = io.BytesIO()
    manifest = json.dumps({"launches": recording.launches, "equal": recording.equal})
    np.savez(memory, manifest=manifest, **recording.arrays)
    Path(path).write_bytes(lzma.compress(memory.getvalue(), preset=1))
    distinct = len({launch["code"] for launch in recording.launches})
    print(f"{path}: {len(recording.launches)} launches of {distinct} texts, {Path(path).stat().st_size >> 10} KiB")


def _record_linear(recording: Recording) -> None:
    from orthrus_mlx.kernels.linear import block_linear
    from tests.kernels_cases import DTYPES, FORMATS, make_weight, normal

    rng = np.random.default_rng(0)
    batches = {"fma": (1, 2, 3, 7, 13, 32), "mma": (1, 13, 32)}  # one for each class of rows
    N = 41
    for case, form in enumerate(FORMATS):
        every = form in ("dense", "ragged")
        for dtype in DTYPES.values() if every else [list(DTYPES.values())[case % 3]]:
            K = 203 if form == "ragged" else 640
            weight = make_weight(rng, N, K, form, dtype)
            x = normal(rng, (32, K), dtype)
            for family, row_counts in batches.items():
                at = {}
                for rows in row_counts:
                    block_linear(x[:rows], weight, family)
                    at[rows] = recording.last
                for rows in row_counts[:-1]:
                    for row in {0, rows // 2, rows - 1}:
                        recording.same((at[rows], [rows, N], row), (at[32], [32, N], row), 0, "y")


def _record_attention(recording: Recording) -> None:
    import mlx.core as mx

    from orthrus_mlx.kernels.attention import block_attention, causal_mask, tree_mask
    from tests.kernels_cases import DTYPES, normal

    rng = np.random.default_rng(1)
    offset, G = 250, 2
    # query heads, block rows, head_dim, bits, group, dtype
    cases = [
        (2, 2, 64, 0, 0, "float32"),
        (4, 1, 128, 0, 0, "bfloat16"),
        (4, 11, 128, 0, 0, "float16"),
        (8, 19, 64, 0, 0, "bfloat16"),
        (8, 32, 128, 0, 0, "bfloat16"),
        (16, 9, 64, 0, 0, "float32"),
        (4, 2, 128, 4, 64, "float32"),
        (8, 9, 64, 8, 32, "float16"),
        (4, 32, 128, 4, 64, "bfloat16"),
    ]
    for heads, rows, D, bits, group, dtype in cases:
        q = normal(rng, (1, heads, rows, D), DTYPES[dtype])
        k, v = (normal(rng, (1, G, 320, D), DTYPES[dtype]) for _ in range(2))
        parents = [-1, *(max(0, i - 1 - i % 3) for i in range(1, rows))]

        def stored(a, bits=bits, group=group):
            return mx.quantize(a, group_size=group, bits=bits) if bits else a

        for family in ("fma", "mma"):

            def attend(q, k, v, at, mask, family=family, D=D, stored=stored):
                own = [stored(a[:, :, at : at + q.shape[2]]) for a in (k, v)]
                block_attention(q, stored(k), stored(v), at, *own, mask, scale=D**-0.5, family=family)
                return recording.last, list(q.shape)

            chain = attend(q, k, v, offset, causal_mask(rows))
            for i in {0, rows // 2, rows - 1}:
                step = attend(q[:, :, i : i + 1], k, v, offset + i, causal_mask(1))
                recording.same((*chain, i), (*step, 0), 2, "y")
            tree = attend(q, k, v, offset, tree_mask(parents))
            node, path = rows - 1, []
            while node >= 0:
                path.insert(0, node)
                node = parents[node]
            order = mx.array([*range(offset), *(offset + i for i in path), *range(offset + len(path), 320)])
            step = attend(q[:, :, -1:], k[:, :, order], v[:, :, order], offset + len(path) - 1, causal_mask(1))
            recording.same((*tree, rows - 1), (*step, 0), 2, "y")


def _record_choices(recording: Recording) -> None:
    import mlx.core as mx

    from orthrus_mlx.kernels.verify import accepted_path, choose
    from tests.kernels_cases import DTYPES, normal

    rng = np.random.default_rng(2)
    for dtype, V in zip(DTYPES.values(), (4999, 5000, 151936), strict=True):
        rows = 9 if V < 10000 else 2
        keys = mx.array([[5, p] for p in range(rows)], dtype=mx.uint32)
        logits = normal(rng, (rows, V), dtype, 3)
        for temperature in (0.7, 0.0):
            choose(logits, temperature, keys)
            whole = recording.last
            choose(logits[rows - 1 :], temperature, keys[rows - 1 :])
            recording.same((whole, [rows], rows - 1), (recording.last, [1], 0), 0, "chosen")
    tokens = mx.array([9, 1, 2, 3, 3, 5, 5, 7, 1], dtype=mx.uint32)
    chosen = mx.array([2, 3, 3, 5, 5, 0, 7, 6, 0], dtype=mx.uint32)
    accepted_path(tokens, chosen, mx.array([-1, 0, 0, 1, 2, 3, 4, 6, 7], dtype=mx.int32))
    accepted_path(tokens, chosen)


def cuda_text(text: str, buffers: list[str]) -> tuple[str, str, dict[str, str]]:
    """(CUDA text, kernel name, element type of each pointer) of a generated Metal text; `buffers` in order.

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
    declared = re.findall(r"template <([^>]*)>\s*$", code[: kernel.start()])
    names = [word.split()[-1] for word in declared[-1].split(",")] if declared else []
    arguments = dict(zip(names, re.split(r"\s*,\s*", call.partition("<")[2].rstrip("> ")), strict=False))
    signature = code[kernel.end() : code.index("{", kernel.end())]
    pointers = re.findall(r"(\w+)\s*\*\s*(\w+)", signature)
    types = {name: arguments.get(kind, kind) for kind, name in pointers}
    built_ins = re.findall(r"\[\[(\w+)\]\]", code[kernel.end() :])
    code = code[: kernel.start()] + "__device__ void " + kernel.group(1) + "(" + code[kernel.end() :]
    code = re.sub(r"\[\[[^\]]*\]\]", "", code)
    code = re.sub(r"#include <metal_\w+>", "", code)
    # threadgroup storage, one declaration on a line (a house rule): arrays first, then scalars
    code = re.sub(r"(?m)^(\s*)threadgroup (?=[^*&;]*\[)", r"\1__shared__ ", code)
    code = re.sub(r"(?m)^(\s*)threadgroup ([^*&;()]*;)", r"\1__shared__ \2", code)
    code = re.sub(r"\bconst constant\b", "const", code)
    code = re.sub(r"\b(device|thread|threadgroup|constant)\b(?!_)", "", code)
    parameters = ", ".join(f"void* b{i}" for i in range(len(buffers)))
    passed = [f"Any{{b{i}}}" for i in range(len(buffers))] + [BUILT_INS[name] for name in built_ins]
    entry = (
        "struct Any {\n  void* p;\n  template <class T>\n"
        "  __device__ operator T*() const {\n    return (T*)p;\n  }\n};\n"
        f'extern "C" __global__ void entry({parameters}) {{\n  {call}({", ".join(passed)});\n}}\n'
    )
    return re.sub(r"[ \t]+$", "", code + entry, flags=re.MULTILINE), kernel.group(1), types


# Running --------------------------------------------------------------------------------------------


class Recorded:
    def __init__(self, path: str) -> None:
        with np.load(io.BytesIO(lzma.decompress(Path(path).read_bytes()))) as file:
            self.arrays = {name: file[name] for name in file.files}
        manifest = json.loads(str(self.arrays.pop("manifest")))
        self.launches, self.equal = manifest["launches"], manifest["equal"]

    def first_of_each(self) -> list[dict]:
        """The first launch of each text."""
        return list({launch["code"]: launch for launch in reversed(self.launches)}.values())[::-1]


def compiled(code: str) -> Any:
    import cupy

    module = cupy.RawModule(
        code=HEADER.read_text() + code,
        options=("--std=c++17", "--fmad=false", "--device-as-default-execution-space", "-lineinfo"),
    )
    return module.get_function("entry")


def launched(
    kernel: Any, launch: dict, arrays: dict[str, np.ndarray], poison: bool, given: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Outputs by name, as bytes.

    Without `poison` their memory stays uninitialised, which initcheck looks for. `given` are inputs that replace
    the recorded ones.
    """
    import cupy

    memory = []
    for name, written, digest in launch["buffers"]:
        expected = arrays[digest]
        if not written:
            memory.append(cupy.asarray(given.get(name, expected)))
        elif poison:
            memory.append(cupy.asarray(np.full(expected.size, 0xFF, np.uint8)))
        else:
            memory.append(cupy.empty(expected.size, np.uint8))
    blocks = tuple(-(-g // min(t, g)) for g, t in zip(launch["grid"], launch["threads"], strict=True))
    threads = tuple(min(t, g) for g, t in zip(launch["grid"], launch["threads"], strict=True))
    kernel(blocks, threads, tuple(memory))
    cupy.cuda.runtime.deviceSynchronize()
    return {name: m.get() for (name, written, _), m in zip(launch["buffers"], memory, strict=True) if written}


def start() -> str:
    """The device's name. One allocation per buffer, so that compute-sanitizer sees where each ends."""
    import cupy

    cupy.cuda.set_allocator(None)
    return cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()


def run(path: str) -> int:
    device, recorded = start(), Recorded(path)
    texts = list({launch["code"] for launch in recorded.launches})
    began = time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        kernels = dict(zip(texts, pool.map(compiled, texts), strict=True))
    print(f"{device}: {len(texts)} texts compiled in {time.perf_counter() - began:.0f} s")
    results: list[dict[str, np.ndarray]] = []
    wrong: list[str] = []
    table: dict[str, list] = {}
    for number, launch in enumerate(recorded.launches):
        # chunks are merged as this device computed them
        merged = "attention_merge" in launch["name"]
        given = {name.removeprefix("chunk_"): a for name, a in results[-1].items()} if merged else {}
        outputs = launched(kernels[launch["code"]], launch, recorded.arrays, poison=True, given=given)
        results.append(outputs)
        operation = _operation(launch["name"])
        row = table.setdefault(operation, [set(), 0, 0, 0, 0.0])
        row[0].add(launch["code"])
        row[1] += 1
        for name, kind, digest in launch["buffers"]:
            if not kind:
                continue
            got, expected = outputs[name], recorded.arrays[digest]
            row[2] += 1
            row[3] += np.array_equal(got, expected)
            distance = _distance(got, expected, kind)
            row[4] = max(row[4], distance)
            exact = kind.startswith(("int", "uint")) or operation.startswith("linear")
            if not (np.array_equal(got, expected) if exact else distance <= 1):
                wrong.append(f"launch {number}, {launch['name']}: {name}: {distance:.3g} times the allowed error")
    for output, axis, (a, a_shape, i), (b, b_shape, j) in recorded.equal:
        rows = [
            results[launch][output].reshape([*shape, -1]).take(row, axis)
            for launch, shape, row in ((a, a_shape, i), (b, b_shape, j))
        ]
        if not np.array_equal(*rows):
            wrong.append(
                f"launches {a} and {b}, {recorded.launches[a]['name']}: row {i} of one is not row {j} of the other"
            )
    print("\n".join(wrong))
    print(f"{'kernel':22} {'texts':>5} {'launches':>8} {'outputs':>7} {'same bits':>9} {'error/allowed':>13}")
    for operation, (codes, launches, outputs, same, worst) in table.items():
        print(f"{operation:22} {len(codes):5} {launches:8} {outputs:7} {same:9} {worst:13.2g}")
    print(f"{device}: {len(results)} launches, {len(recorded.equal)} rows compared between batches, {len(wrong)} wrong")
    return 1 if wrong else 0


def once(path: str) -> int:
    device, recorded = start(), Recorded(path)
    launches = recorded.first_of_each()
    for launch in launches:
        launched(compiled(launch["code"]), launch, recorded.arrays, poison=False, given={})
    print(f"{device}: {len(launches)} texts, each launched once")
    return 0


def planted(path: str, fault: str) -> int:
    start()
    recorded = Recorded(path)
    old, new = PLANTED[fault]
    launch = next(x for x in recorded.first_of_each() if "linear_fma_dense__float_4_" in x["name"] and old in x["code"])
    launched(compiled(launch["code"].replace(old, new, 1)), launch, recorded.arrays, poison=False, given={})
    return 0


def _operation(name: str) -> str:
    return (
        name.removeprefix("custom_kernel_orthrus_").partition("__")[0].partition("_uint32_t")[0].partition("_float_")[0]
    )


def _distance(got: np.ndarray, expected: np.ndarray, kind: str) -> float:
    """Largest error as a multiple of what is allowed, relative to values above 1."""
    if kind.startswith(("int", "uint")):
        return 0.0 if np.array_equal(got, expected) else float("inf")
    if kind == "bfloat16_t":
        a, b = ((x.view(np.uint16).astype(np.uint32) << 16).view(np.float32) for x in (got, expected))
        allowed = 2.0**-7
    elif kind == "float16_t":
        a, b = (x.view(np.float16).astype(np.float32) for x in (got, expected))
        allowed = 2.0**-10
    else:
        a, b, allowed = got.view(np.float32), expected.view(np.float32), 1e-5
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0, np.abs(a - b) / np.maximum(np.abs(b), 1))
    worst = float(error.max(initial=0))
    return worst / allowed if worst == worst else float("inf")


if __name__ == "__main__":
    commands = {"record": record, "run": run, "once": once, "planted": planted}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    sys.exit(commands[sys.argv[1]](*sys.argv[2:]))
