"""The lint finds what mixes address spaces or breaks a house rule, and nothing in sound text."""

from __future__ import annotations

import re
from pathlib import Path

import mlx.core as mx
import pytest

from tests.emulator.lint import lint, with_tiny_inputs

pytest.importorskip("clang.cindex", reason="libclang is not installed")

HEADER = """
struct Row {
  const device float* values;
  METAL_FUNC float first() const { return values[0]; }
};
template <typename T>
METAL_FUNC float total(const device T* p, int n) {
  float sum = 0.0f;
  for (int i = 0; i < n; ++i) sum += float(p[i]);
  return sum;
}
METAL_FUNC void put(threadgroup float* a, float v) { a[0] = v; }
METAL_FUNC void set(thread float& v) { v = 1.0f; }
"""

SIGNATURE = """
[[kernel]] void k(const device float* x [[buffer(0)]], const constant float* w [[buffer(1)]],
                  device float* y [[buffer(2)]], const constant int& n [[buffer(3)]],
                  uint i [[thread_position_in_grid]]) {
"""


def text(body: str, header: str = "") -> str:
    return f"{HEADER}{header}{SIGNATURE}{body}\n}}\n"


SOUND = """
  threadgroup float a[64];
  threadgroup atomic_uint count;
  Row row = {x};
  float v = row.first() + total(x, n) + w[0];
  set(v);
  put(a + 1, v);
  put(&a[2], 0.5f);
  if (i == 0) atomic_store_explicit(&count, 0u, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float4 f = float4(v, 1.0f, float2(x[0])) + vec<float, 4>(1.0f) * 2.0f;
  f.xy = f.zw;
  half2 h = half2(f.xy);
  bfloat b = bfloat(v);
  uint4 u = *reinterpret_cast<const device uint4*>(x + 4 * i);
  simdgroup_matrix<float, 8, 8> m, c(0.0f);
  simdgroup_load(m, a, 8);
  simdgroup_load(m, x, 8, ulong2(0, 8), true);
  simdgroup_multiply_accumulate(c, m, m, c);
  reinterpret_cast<thread float2&>(c.thread_elements()) = float2(h);
  simdgroup_store(c, y, 8);
  y[i] = simd_sum(v) + max(a[i], fast::exp2(v)) + float(b) + float(popcount(u.x)) + c.thread_elements()[0];
"""

FAULTY = {
    "device pointer passed as threadgroup": ("put(y, 1.0f);", "address space", "put"),
    "pointer without an address space": ("float* p = y;", "address space", "float *"),
    "write through constant": ("w[0] = 1.0f;", "address space", "read-only"),
    "write to an input": ("x[i] = 1.0f;", "address space", "read-only"),
    "threadgroup variable as a thread reference": ("threadgroup float a[2]; set(a[0]);", "address space", "set"),
    "device variable as a thread reference": ("set(y[i]);", "address space", "set"),
    "constant passed as device": ("y[0] = total(w, 2);", "address space", "total"),
    "reinterpret_cast to another space": (
        "threadgroup float* p = reinterpret_cast<threadgroup float*>(y); p[0] = 1.0f;",
        "address space",
        "reinterpret_cast",
    ),
    "C-style pointer cast": ("y[i] = ((const threadgroup float*)x)[i];", "house rule", "C-style"),
    "ambiguous max": ("y[i] = max(int(i), i);", "address space", "ambiguous"),
    "double": ("y[i] = float(double(x[i]));", "house rule", "double"),
    "literal without suffix": ("y[i] = x[i] * 0.5;", "house rule", "0.5f"),
    "std": ("y[i] = std::max(x[i], 0.0f);", "house rule", "std::"),
    "new": ("float* p = new float[4]; y[i] = p[0];", "house rule", "dynamic memory"),
    "structured binding": ("auto [a, b] = float2(1.0f);", "house rule", "structured"),
    "goto": ("goto end; end: y[i] = 0.0f;", "house rule", "goto"),
    "function pointer": ("float (*f)(float) = &exp; y[i] = f(1.0f);", "house rule", "points to a function"),
}


def test_sound_text_has_no_findings():
    assert lint(text(SOUND), tiny=["w"]) == []


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_line_is_found(name):
    line, kind, words = FAULTY[name]
    findings = lint(text(f"  y[0] = 0.0f;\n  {line}"), tiny=())
    where = text("").count("\n")
    assert any((f.kind, f.line) == (kind, where) and words in f.message for f in findings), findings


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("float plain(float v) { return v; }\n", "plain lacks METAL_FUNC"),
        ("METAL_FUNC int deep(int n) { return n ? deep(n - 1) : 0; }\n", "deep calls itself"),
        ("METAL_FUNC void local() { threadgroup float a[4]; a[0] = 1.0f; }\n", "outside the kernel's body"),
    ],
)
def test_a_helper_against_the_rules_is_found(header, words):
    findings = lint(text("y[i] = 0.0f;", header), tiny=())
    assert any(words in f.message and f.line == HEADER.count("\n") + 1 for f in findings), findings


def test_a_helper_that_takes_device_fails_for_tiny_inputs_only():
    body = text("y[i] = total(x, 4);")
    assert lint(body, tiny=()) == []
    (finding,) = lint(body)
    assert finding.message.endswith("(with an input of fewer than 8 elements)")
    assert "const constant float* x" in with_tiny_inputs(body)
    assert "total(const device T* p" in with_tiny_inputs(body)


def test_errors_inside_templates_are_found_when_they_are_instantiated():
    header = "template <typename T>\nMETAL_FUNC T later(T p) {\n  float* q = p;\n  return p;\n}\n"
    findings = lint(text("y[i] = later(x)[0];", header), tiny=())
    assert [f.line for f in findings if f.kind == "address space"] == [HEADER.count("\n") + 3]


def test_mlx_attention_has_no_address_space_finding():
    path = Path(mx.__file__).parent / "include/mlx/backend/metal/kernels/sdpa_vector.h"
    source = re.sub(r"\[\[function_constant\(\d+\)\]\];", "= 0;", path.read_text())
    source += '\ntemplate [[host_name("a")]] [[kernel]] decltype(sdpa_vector<half, 64>) sdpa_vector<half, 64>;\n'
    assert [f for f in lint(source, tiny=()) if f.kind == "address space"] == []
