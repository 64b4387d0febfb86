"""Every kind of fault planted in a kernel is reported, with its line; sound kernels are not."""

from __future__ import annotations

import sys

import mlx.core as mx
import pytest

from tests.emulator import KernelFault, emulated_metal
from tests.emulator.compiler import find_compiler

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the emulator runs on Linux")

THREADS = 64
LANES = "uint i = thread_position_in_threadgroup.x; uint lane = thread_index_in_simdgroup;"

# name: (kind, body). The faulty line carries HERE. x: 256 floats 0, 1, 2, ...; y: 128 floats; n: 128 int32.
# Two threadgroups of 64 threads; g is the threadgroup, i the thread in it, lane the lane.
FAULTS = {
    "missing barrier": (
        "race",
        """
        threadgroup float a[64];
        a[i] = x[i];
        y[j] = a[63 - i]; // HERE
        """,
    ),
    "barrier without the threadgroup flag": (
        "race",
        """
        threadgroup float a[64];
        a[i] = x[i];
        threadgroup_barrier(mem_flags::mem_device);
        y[j] = a[63 - i]; // HERE
        """,
    ),
    "barrier without flags": (
        "race",
        """
        threadgroup float a[64];
        a[i] = x[i];
        threadgroup_barrier(mem_flags::mem_none);
        y[j] = a[63 - i]; // HERE
        """,
    ),
    "missing second barrier in a loop": (
        "race",
        """
        threadgroup float a[64];
        float sum = 0.0f;
        for (int k = 0; k < 3; ++k) {
          a[i] = x[i + k]; // HERE
          threadgroup_barrier(mem_flags::mem_threadgroup);
          sum += a[63 - i];
        }
        y[j] = sum;
        """,
    ),
    "simdgroup barrier where simdgroups share": (
        "race",
        """
        threadgroup float a[64];
        a[i] = x[i];
        simdgroup_barrier(mem_flags::mem_threadgroup);
        y[j] = a[63 - i]; // HERE
        """,
    ),
    "missing simdgroup barrier": (
        "race",
        """
        threadgroup float a[64];
        a[i] = x[i];
        y[j] = a[i ^ 1]; // HERE
        """,
    ),
    "all threads write one element of threadgroup memory": (
        "race",
        """
        threadgroup float a[1];
        a[0] = float(i); // HERE
        threadgroup_barrier(mem_flags::mem_threadgroup);
        y[j] = a[0];
        """,
    ),
    "race on an output in one threadgroup": (
        "race",
        """
        y[j] = x[i];
        y[g * 64 + (i + 1) % 64] += 1.0f; // HERE
        """,
    ),
    "race between threadgroups": (
        "race",
        """
        y[i] = x[i]; // HERE
        y[64 + i] = x[i];
        """,
    ),
    "plain read of what another thread adds to atomically": (
        "race",
        """
        device atomic<float>* total = (device atomic<float>*)y;
        atomic_fetch_add_explicit(&total[i % 2], 1.0f, memory_order_relaxed);
        float seen = y[0]; // HERE
        y[j] = seen;
        """,
    ),
    "barrier in a branch": (
        "divergence",
        """
        if (i < 32) {
          threadgroup_barrier(mem_flags::mem_none);
        }
        y[j] = 0.0f;
        """,
    ),
    "barrier in half a simdgroup": (
        "divergence",
        """
        y[j] = 0.0f;
        if (lane < 16) {
          threadgroup_barrier(mem_flags::mem_none);
        } else {
          threadgroup_barrier(mem_flags::mem_none); // HERE
        }
        """,
    ),
    "simd_sum in a branch": (
        "divergence",
        """
        y[j] = 0.0f;
        if (lane < 8) y[j] = simd_sum(x[i]);
        """,
    ),
    "simd_sum after some lanes returned": (
        "divergence",
        """
        y[j] = 0.0f;
        if (lane > 20) return;
        y[j] = simd_sum(x[i]); // HERE
        """,
    ),
    "barrier after some threads returned": (
        "divergence",
        """
        y[j] = 0.0f;
        if (i >= 32) return;
        threadgroup_barrier(mem_flags::mem_none); // HERE
        """,
    ),
    "loop of different length with a barrier": (
        "divergence",
        """
        y[j] = 0.0f;
        for (uint k = 0; k < 1 + lane / 16; ++k)
          threadgroup_barrier(mem_flags::mem_none); // HERE
        """,
    ),
    "different collective operations": (
        "divergence",
        """
        y[j] = lane < 16
          ? simd_max(x[i])
          : simd_min(x[i]); // HERE
        """,
    ),
    "different barrier flags": (
        "barrier flags",
        """
        y[j] = 0.0f;
        threadgroup_barrier(i < 32 ? mem_flags::mem_none : mem_flags::mem_device); // HERE
        """,
    ),
    "shuffle from a lane that does not exist": (
        "shuffle",
        """
        y[j] = simd_shuffle(x[i], ushort(lane + 1)); // HERE
        """,
    ),
    "broadcast from different lanes": (
        "shuffle",
        """
        y[j] = simd_broadcast(x[i], ushort(lane % 2)); // HERE
        """,
    ),
    "matrix loads from different addresses": (
        "shuffle",
        """
        simdgroup_matrix<float, 8, 8> a;
        simdgroup_load(a, x + lane, 8); // HERE
        y[j] = a.thread_elements()[0];
        """,
    ),
    "read past an input": (
        "out of bounds",
        """
        y[j] = x[i + 193]; // HERE
        """,
    ),
    "read before an input": (
        "out of bounds",
        """
        y[j] = x[int(i) - 1]; // HERE
        """,
    ),
    "read far outside": (
        "out of bounds",
        """
        y[j] = x[i + 100000000]; // HERE
        """,
    ),
    "vector read over the end of an input": (
        "out of bounds",
        """
        float4 v = *(const device float4*)(x + 4 * (i + 1)); // HERE
        y[j] = v.x;
        """,
    ),
    "write past an output": (
        "out of bounds",
        """
        y[2 * j + 1] = 1.0f; // HERE
        """,
    ),
    "read past a threadgroup array": (
        "out of bounds",
        """
        threadgroup float a[64];
        threadgroup float b[64];
        a[i] = b[i] = 0.0f;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        threadgroup float* p = a;
        y[j] = p[i + 1]; // HERE
        """,
    ),
    "write past a threadgroup array": (
        "out of bounds",
        """
        threadgroup float a[63];
        a[i] = 1.0f; // HERE
        y[j] = 1.0f;
        """,
    ),
    "index past a private array": (
        "out of bounds",
        """
        float a[4] = {x[0], x[1], x[2], x[3]};
        y[j] = a[lane % 5]; // HERE
        """,
    ),
    "helper reads past an input": (
        "out of bounds",
        """
        y[j] = last_of(x + 4 * i);
        """,
    ),
    "write to an input": (
        "write to input",
        """
        ((device float*)x)[i] = 1.0f; // HERE
        y[j] = 1.0f;
        """,
    ),
    "uninitialised threadgroup memory": (
        "uninitialised read",
        """
        threadgroup float a[64];
        if (i != 5) a[i] = 1.0f;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        y[j] = a[i]; // HERE
        """,
    ),
    "threadgroup memory of the threadgroup before": (
        "uninitialised read",
        """
        threadgroup float a[64];
        if (g == 0) a[i] = 1.0f;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        y[j] = a[i]; // HERE
        """,
    ),
    "accumulating into an output": (
        "uninitialised read",
        """
        y[j] += x[i]; // HERE
        """,
    ),
    "uninitialised accumulator": (
        "uninitialised read",
        """
        float sum;
        for (int k = 0; k < 3; ++k) sum += x[i + k]; // HERE
        y[j] = sum;
        """,
    ),
    "unwritten element": (
        "unwritten output",
        """
        if (i != 7) y[j] = 1.0f;
        """,
    ),
    "misaligned vector": (
        "misaligned",
        """
        float4 v = *(const device float4*)(x + i); // HERE
        y[j] = v.x + v.y + v.z + v.w;
        """,
    ),
    "misaligned word": (
        "misaligned",
        """
        y[j] = float(*(const device uint*)((const device uchar*)x + i)); // HERE
        """,
    ),
    "shift by the width": (
        "arithmetic",
        """
        y[j] = float(1u << i); // HERE
        """,
    ),
    "division by zero": (
        "arithmetic",
        """
        y[j] = float(64u / lane); // HERE
        """,
    ),
    "signed overflow": (
        "arithmetic",
        """
        y[j] = float(n[i] * 2000000000); // HERE
        """,
    ),
    "infinity to int": (
        "arithmetic",
        """
        y[j] = float(int(1.0f / x[i])); // HERE
        """,
    ),
    "too much threadgroup memory": (
        "threadgroup memory",
        """
        threadgroup float a[8000];
        threadgroup float b[200]; // HERE
        a[i] = b[i] = 0.0f;
        y[j] = 0.0f;
        """,
    ),
}

SOUND = {
    "reduction through threadgroup memory": """
        threadgroup float part[2];
        float sum = simd_sum(x[j]);
        if (lane == 0) part[i / 32] = sum;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        y[j] = part[0] + part[1];
        """,
    "double buffering, one barrier a step": """
        threadgroup float a[2][64];
        float sum = 0.0f;
        for (int k = 0; k < 4; ++k) {
          a[k % 2][i] = x[i + k];
          threadgroup_barrier(mem_flags::mem_threadgroup);
          sum += a[k % 2][63 - i];
        }
        y[j] = sum;
        """,
    "exchange inside simdgroups behind a simdgroup barrier": """
        threadgroup float a[64];
        a[i] = x[i];
        simdgroup_barrier(mem_flags::mem_threadgroup);
        y[j] = a[i ^ 1];
        """,
    "outputs read back after a device barrier": """
        y[j] = x[i];
        threadgroup_barrier(mem_flags::mem_device);
        float other = y[g * 64 + 63 - i];
        threadgroup_barrier(mem_flags::mem_device);
        y[j] = other;
        """,
    "threads that return early": """
        y[j] = 0.0f;
        if (i % 3 == 0) return;
        y[j] = x[i];
        """,
    "uniform loop with collective operations": """
        float sum = 0.0f;
        for (uint k = 0; k < 1 + i / 32; ++k) sum += simd_max(x[i + k]);
        y[j] = sum;
        """,
    "vector and matrix accesses": """
        simdgroup_matrix<float, 8, 8> a, b, c(0.0f);
        simdgroup_load(a, x, 8);
        simdgroup_load(b, x + 64, 8, ulong2(0), true);
        simdgroup_multiply_accumulate(c, a, b, c);
        float4 v = *(const device float4*)(x + 4 * i);
        y[j] = c.thread_elements()[0] + v.w;
        """,
}


def run(body: str, *, seed: int = 0, init_value: float | None = None):
    source = f"{LANES}\nuint j = thread_position_in_grid.x; uint g = threadgroup_position_in_grid.x;{body}"
    kernel = mx.fast.metal_kernel(
        name="planted",
        input_names=["x", "n"],
        output_names=["y"],
        source=source,
        header="METAL_FUNC float last_of(const device float* p) {\n  return p[4];\n}\n",
    )
    (y,) = kernel(
        inputs=[mx.arange(256, dtype=mx.float32), mx.arange(128, dtype=mx.int32)],
        grid=(2 * THREADS, 1, 1),
        threadgroup=(THREADS, 1, 1),
        output_shapes=[(128,)],
        output_dtypes=[mx.float32],
        init_value=init_value,
    )
    return y, source


def faulty_line(body: str) -> int | None:
    source = f"{LANES}\n.{body}"
    marked = [number for number, line in enumerate(source.split("\n"), 1) if "HERE" in line]
    return marked[0] if marked else None


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_reported_with_its_line(name):
    kind, body = FAULTS[name]
    if name == "misaligned vector" and find_compiler().clang:
        pytest.skip("clang does not check the alignment of copied structures; g++ does")
    with emulated_metal(checked=True), pytest.raises(KernelFault) as caught:
        run(body, init_value=0.0 if "atomically" in name else None)
    assert kind in caught.value.kinds, str(caught.value)
    if line := faulty_line(body):
        places = [(finding.file, finding.line) for finding in caught.value.findings if finding.kind == kind]
        assert ("planted (source)", line) in places, str(caught.value)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_kernel_is_not_reported(name, seed):
    with emulated_metal(checked=True, seed=seed):
        run(SOUND[name])


def test_a_fault_in_a_helper_names_the_helper_line():
    with emulated_metal(checked=True), pytest.raises(KernelFault) as caught:
        run(FAULTS["helper reads past an input"][1])
    (finding,) = caught.value.findings
    assert (finding.file, finding.line) == ("planted (header)", 2)
    assert finding.thread == (63, 0, 0)
    assert "x[256]" in finding.message


def test_the_same_race_is_reported_whatever_the_schedule():
    for seed in range(4):
        with emulated_metal(checked=True, seed=seed), pytest.raises(KernelFault) as caught:
            run(FAULTS["missing barrier"][1])
        assert "race" in caught.value.kinds


def test_a_crash_in_the_fast_build_is_an_exception_with_its_line_and_the_next_launch_works():
    body = """
        y[j] = x[i + 100000000]; // HERE
        """
    with emulated_metal():
        with pytest.raises(KernelFault) as caught:
            run(body)
        (finding,) = caught.value.findings
        assert (finding.kind, finding.line) == ("crash", faulty_line(body))
        y, _ = run("y[j] = x[i];")
        assert y[:64].tolist() == list(range(64))


def test_a_fast_launch_cannot_write_to_its_inputs():
    with emulated_metal(), pytest.raises(KernelFault, match="crash"):
        run(FAULTS["write to an input"][1])


def test_an_output_named_partly_may_stay_unwritten():
    with emulated_metal(checked=True, partly=["y"]):
        y, _ = run(FAULTS["unwritten element"][1])
    assert mx.isnan(y[7]).item() and y[8].item() == 1.0
