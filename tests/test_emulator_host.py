"""Host code in the emulator: patching, tracing, buffers, messages, the compile cache."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest

from tests.emulator import CompileError, EmulatorError, KernelFault, emulated_metal, run_source
from tests.emulator import metal as emulator_metal
from tests.emulator.compiler import CACHE_VARIABLE, compile_kernel
from tests.emulator.preprocess import translate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the emulator runs on Linux")


def doubled(x: mx.array, kernel=None) -> mx.array:
    """Host code as a package would write it: builds its kernel on first use and keeps it."""
    if kernel is None:
        kernel = mx.fast.metal_kernel(
            name="doubled",
            input_names=["x"],
            output_names=["y"],
            source="uint i = thread_position_in_grid.x; y[i] = T(2 * x[i]);",
        )
    (y,) = kernel(
        inputs=[x],
        template=[("T", x.dtype)],
        grid=(x.size, 1, 1),
        threadgroup=(32, 1, 1),
        output_shapes=[x.shape],
        output_dtypes=[x.dtype],
    )
    return y


def test_on_a_mac_kernels_are_left_to_metal(monkeypatch: pytest.MonkeyPatch):
    built = []

    def metal_kernel(**kwargs):
        built.append(kwargs["name"])
        return lambda *, inputs, **call: [2 * inputs[0]]

    monkeypatch.setattr(mx.fast, "metal_kernel", metal_kernel)
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    with emulated_metal(checked=True, perturbed=True, seed=3) as emulation, emulated_metal():
        assert mx.fast.metal_kernel is metal_kernel
        assert doubled(mx.array([3.0])).tolist() == [6.0]
    assert built == ["doubled"]
    assert emulation.launches == []
    for settings in ({"traffic": True}, {"change": str.upper}, {"partly": ["y"]}):
        with pytest.raises(EmulatorError, match="this machine runs kernels on Metal"), emulated_metal(**settings):
            pass


def test_everything_is_restored_at_the_end():
    before = mx.fast.metal_kernel, mx.metal.is_available
    with pytest.raises(ZeroDivisionError), emulated_metal():
        assert mx.metal.is_available()
        with emulated_metal(checked=True):
            assert mx.fast.metal_kernel is not before[0]
        assert mx.metal.is_available()
        raise ZeroDivisionError
    assert (mx.fast.metal_kernel, mx.metal.is_available) == before


def test_a_kept_kernel_follows_the_block_it_is_called_in():
    with emulated_metal():
        kernel = mx.fast.metal_kernel(
            name="doubled",
            input_names=["x"],
            output_names=["y"],
            source="uint i = thread_position_in_grid.x; y[i] = x[i + 1];",
        )
        doubled(mx.zeros(60), kernel)
    with emulated_metal(checked=True), pytest.raises(KernelFault):
        doubled(mx.zeros(60), kernel)
    with pytest.raises(RuntimeError, match="No Metal back-end"):
        doubled(mx.zeros(60), kernel)


def test_mlx_is_asked_for_the_text_once_per_kind_of_call(monkeypatch):
    asked = []
    trace = emulator_metal.generated_text
    monkeypatch.setattr(emulator_metal, "generated_text", lambda *a: asked.append(1) or trace(*a))
    with emulated_metal() as emulation:
        kernel = mx.fast.metal_kernel(
            name="doubled", input_names=["x"], output_names=["y"], source="y[0] = x[0]; // thread_position_in_grid"
        )
        texts = []
        for x in (mx.ones(8), mx.ones((4, 5)), mx.ones(7), mx.ones(8, mx.float16), mx.ones(64)):
            doubled(x, kernel)
            texts.append(emulation.launches[-1].text)
    assert len(asked) == 3
    assert "const device float*" in texts[0] == texts[1] == texts[4]
    assert "const constant float*" in texts[2]
    assert "const device float16_t*" in texts[3]


def test_strided_inputs_arrive_as_mlx_would_bind_them():
    x = mx.arange(60, dtype=mx.bfloat16).reshape(3, 4, 5)[:, 1:3, ::2].transpose(2, 0, 1)
    source = """
        uint3 p = thread_position_in_grid;
        y[(p.x * x_shape[1] + p.y) * x_shape[2] + p.z] =
            float(x[p.x * x_strides[0] + p.y * x_strides[1] + p.z * x_strides[2]]) + 1000 * x_ndim;
    """
    for contiguous in (True, False):
        with emulated_metal(checked=True) as emulation:
            kernel = mx.fast.metal_kernel(
                name="strided",
                input_names=["x"],
                output_names=["y"],
                source=source,
                ensure_row_contiguous=contiguous,
            )
            (y,) = kernel(
                inputs=[x],
                grid=x.shape,
                threadgroup=(4, 4, 1),
                output_shapes=[x.shape],
                output_dtypes=[mx.float32],
            )
        assert mx.array_equal(y, x.astype(mx.float32) + 3000), emulation.launches[-1].text


def test_scalars_small_inputs_empty_inputs_and_initial_values():
    results, _ = run_source(
        "uint i = thread_position_in_grid.x; if (i < 4) y[i] = x[i % 3] + n + int(flag);",
        inputs={"x": mx.array([10, 20, 30]), "n": mx.array(7), "flag": mx.array(True), "none": mx.zeros((0, 4))},
        outputs={"y": ((6,), mx.int32), "z": ((0,), mx.float32)},
        grid=(6, 1, 1),
        threadgroup=(6, 1, 1),
        init_value=-1,
        checked=True,
    )
    assert results["y"].tolist() == [18, 28, 38, 18, -1, -1]
    assert results["z"].shape == (0,)


def test_unwritten_outputs_are_nan_in_the_fast_build():
    results, _ = run_source(
        "y[0] = T(1);",
        inputs={"x": mx.zeros(8)},
        outputs={"y": ((3,), mx.bfloat16)},
        grid=(1, 1, 1),
        threadgroup=(1, 1, 1),
        template=[("T", mx.bfloat16)],
    )
    assert mx.isnan(results["y"]).tolist() == [False, True, True]


def test_messages_name_the_file_that_the_text_came_from(tmp_path):
    helpers, body = tmp_path / "metal" / "helpers.h", tmp_path / "metal" / "body.metal"
    helpers.parent.mkdir()
    helpers.write_text("// a header\nMETAL_FUNC float next(const device float* p) {\n  return p[1];\n}\n")
    body.write_text("// a body\n\nuint i = thread_position_in_grid.x;\ny[i] = next(x + i);\n")
    call = {
        "inputs": {"x": mx.zeros(8)},
        "outputs": {"y": ((8,), mx.float32)},
        "grid": (8, 1, 1),
        "threadgroup": (8, 1, 1),
        "folders": [tmp_path / "metal"],
    }
    header = "\n" + helpers.read_text()
    with pytest.raises(KernelFault) as caught:
        run_source(body.read_text(), header=header, checked=True, **call)
    assert [(f.file, f.line) for f in caught.value.findings] == [("metal/helpers.h", 3)]
    with pytest.raises(CompileError, match=r"metal/body.metal:4:"):
        body.write_text(body.read_text().replace("next(", "nxt("))
        run_source(body.read_text(), header=header, **call)


def test_an_endless_kernel_is_ended():
    spin = (
        "device atomic<int>* a = (device atomic<int>*)y; while (atomic_load_explicit(a, memory_order_relaxed) == 0) {}"
    )
    with pytest.raises(EmulatorError, match="did not end within"):
        run_source(
            spin,
            inputs={"x": mx.zeros(8)},
            outputs={"y": ((1,), mx.int32)},
            grid=(1, 1, 1),
            threadgroup=(1, 1, 1),
            init_value=0,
            timeout=0.5,
        )
    with emulated_metal():
        assert doubled(mx.ones(8)).tolist() == [2.0] * 8


def test_endless_recursion_is_a_crash_with_a_reason():
    with pytest.raises(KernelFault, match="private memory exceeds 128 KiB"):
        run_source(
            "y[thread_position_in_grid.x] = down(x, 1);",
            header="float down(const device float* x, int n) {"
            " float a[64]; for (int k = 0; k < 64; ++k) a[k] = x[k % 8] + n;"
            " return a[n % 64] + (n ? down(x, n + 1) : 0.0f) * a[(n + 1) % 64]; }",
            inputs={"x": mx.ones(8)},
            outputs={"y": ((1,), mx.float32)},
            grid=(1, 1, 1),
            threadgroup=(1, 1, 1),
        )


def test_sizes_that_metal_refuses_are_refused():
    call = {"inputs": {"x": mx.zeros(8)}, "outputs": {"y": ((8,), mx.float32)}}
    with pytest.raises(EmulatorError, match="2048 threads"):
        run_source("y[0] = 0;", grid=(4096, 1, 1), threadgroup=(2048, 1, 1), **call)
    with pytest.raises(EmulatorError, match="at least 1"):
        run_source("y[0] = 0;", grid=(0, 1, 1), threadgroup=(1, 1, 1), **call)


def test_a_call_while_mlx_traces_says_what_to_do():
    with emulated_metal(), pytest.raises(EmulatorError, match="MLX_DISABLE_COMPILE"):
        mx.vmap(doubled)(mx.ones((4, 8)))


THREADGROUP_FORMS = """
    threadgroup float a[32], b[2][16];
    threadgroup vec<float, 2> pairs[(N > 2 ? 16 : 8)];  // threadgroup float not_this[4];
    threadgroup typename Holder<float>::type c
        [32];
    threadgroup uint counter;
    const threadgroup float* p = a;
    threadgroup float* q = &b[0][0];
    uint i = thread_position_in_grid.x;
    a[i] = x[i];
    q[i] = 2 * x[i];
    c[i] = 3 * x[i];
    if (i < 16) pairs[i] = float2(x[i], x[i + 16]);
    if (i == 0) counter = 5;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    y[i] = p[31 - i] + b[(31 - i) / 16][(31 - i) % 16] + c[31 - i] + pairs[(31 - i) % 16].y + counter + __LINE__;
"""


def test_every_form_of_threadgroup_declaration():
    x = np.arange(32, dtype=np.float32)
    results, launch = run_source(
        THREADGROUP_FORMS,
        header="template <typename T> struct Holder { typedef T type; };",
        inputs={"x": mx.array(x)},
        outputs={"y": ((32,), mx.float32)},
        template=[("N", 3)],
        grid=(32, 1, 1),
        threadgroup=(32, 1, 1),
        checked=True,
    )
    line = THREADGROUP_FORMS[: THREADGROUP_FORMS.index("__LINE__")].count("\n") + 1
    r = 31 - np.arange(32)
    np.testing.assert_array_equal(np.array(results["y"]), 6 * x[r] + x[r % 16 + 16] + 5 + line)
    assert launch.report.threadgroup_bytes == 4 * (32 + 32 + 32 + 32 + 1)


def test_processes_may_fill_one_cache_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    unit = translate("[[kernel]] void f(device float* y [[buffer(0)]]) { y[0] = 1; }").text
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: compile_kernel(unit, checked=False)[0], range(4)))
    (path,) = paths
    assert path.exists()
    assert not list((tmp_path / "cache").glob("*.part"))
