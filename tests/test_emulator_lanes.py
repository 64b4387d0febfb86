"""Positions, simdgroup operations, matrices and atomics behave as in Metal."""

from __future__ import annotations

import sys

import mlx.core as mx
import numpy as np
import pytest

from tests.emulator import run_source

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the emulator runs on Linux")

CHECKS = [{}, {"checked": True, "seed": 3}]


def lanes(body: str, inputs: dict, outputs: dict[str, mx.Dtype], threads: int = 64, **settings):
    """Outputs of one threadgroup; thread i writes element i."""
    results, _ = run_source(
        f"uint i = thread_position_in_grid.x; uint lane = thread_index_in_simdgroup;\n{body}",
        inputs=inputs,
        outputs={name: ((threads,), dtype) for name, dtype in outputs.items()},
        grid=(threads, 1, 1),
        threadgroup=(threads, 1, 1),
        **settings,
    )
    return {name: np.array(array) for name, array in results.items()}


def test_positions_in_a_grid_that_is_no_multiple_of_the_threadgroup():
    names = ["thread_position_in_grid", "thread_position_in_threadgroup", "threadgroup_position_in_grid"]
    names += [
        "threads_per_threadgroup",
        "dispatch_threads_per_threadgroup",
        "threadgroups_per_grid",
        "threads_per_grid",
    ]
    scalars = ["thread_index_in_threadgroup", "simdgroup_index_in_threadgroup", "thread_index_in_simdgroup"]
    scalars += ["simdgroups_per_threadgroup", "threads_per_simdgroup"]
    row = "".join(f"o[{3 * n} + c] = {name}[c];" for n, name in enumerate(names))
    width = 3 * len(names) + len(scalars)
    results, _ = run_source(
        f"""
        uint3 p = thread_position_in_grid;
        device uint* o = y + ((p.z * 5 + p.y) * 20 + p.x) * {width};
        for (uint c = 0; c < 3; ++c) {{ {row} }}
        {"".join(f"o[{3 * len(names) + n}] = {name};" for n, name in enumerate(scalars))}
        """,
        inputs={"x": mx.zeros(8)},
        outputs={"y": ((2, 5, 20, width), mx.uint32)},
        grid=(20, 5, 2),
        threadgroup=(8, 4, 1),
    )
    y = np.array(results["y"])
    for z, j, i in np.ndindex(2, 5, 20):
        group, inside = (i // 8, j // 4, z), (i % 8, j % 4, 0)
        size = (min(8, 20 - 8 * group[0]), min(4, 5 - 4 * group[1]), 1)
        index = inside[0] + inside[1] * size[0]
        count = -(-size[0] * size[1] // 32)
        expected = [i, j, z, *inside, *group, *size, 8, 4, 1, 3, 2, 2, 20, 5, 2]
        expected += [index, index // 32, index % 32, count, 32]
        assert y[z, j, i].tolist() == expected


def test_a_threadgroup_larger_than_the_grid_is_clamped():
    results, _ = run_source(
        "y[thread_position_in_grid.x] = threads_per_threadgroup.x;",
        inputs={"x": mx.zeros(8)},
        outputs={"y": ((5,), mx.uint32)},
        grid=(5, 1, 1),
        threadgroup=(64, 1, 1),
    )
    assert results["y"].tolist() == [5] * 5


@pytest.mark.parametrize("settings", CHECKS)
@pytest.mark.parametrize("threads", [64, 20])
def test_reductions_and_prefixes(threads, settings):
    values = np.random.default_rng(0).integers(-50, 50, threads).astype(np.int32)
    out = lanes(
        """
        a[i] = simd_sum(x[i]); b[i] = simd_max(x[i]); c[i] = simd_min(x[i]); d[i] = simd_xor(x[i]);
        e[i] = simd_prefix_inclusive_sum(x[i]); f[i] = simd_prefix_exclusive_sum(x[i]);
        g[i] = simd_all(x[i] > -100) + 2 * simd_any(x[i] > 100); h[i] = int(ulong(simd_ballot(x[i] > 0)));
        float2 v = simd_sum(float2(x[i], 1.0f)); k[i] = int(v.x + 1000 * v.y);
        """,
        {"x": mx.array(values)},
        dict.fromkeys("abcdefghk", mx.int32),
        threads,
        **settings,
    )
    for first in range(0, threads, 32):
        group = values[first : first + 32]
        span = slice(first, first + 32)
        count = len(group)
        assert (out["a"][span] == group.sum()).all()
        assert (out["b"][span] == group.max()).all()
        assert (out["c"][span] == group.min()).all()
        assert (out["d"][span] == np.bitwise_xor.reduce(group)).all()
        assert (out["e"][span] == group.cumsum()).all()
        assert (out["f"][span] == group.cumsum() - group).all()
        assert (out["g"][span] == 1).all()
        votes = sum(1 << n for n in range(count) if group[n] > 0)
        assert (out["h"][span].astype(np.uint32) == votes).all()
        assert (out["k"][span] == group.sum() + 1000 * count).all()


@pytest.mark.parametrize("settings", CHECKS)
def test_shuffles(settings):
    out = lanes(
        """
        a[i] = simd_shuffle(x[i], ushort((lane * 7 + 3) % 32)); b[i] = simd_shuffle_xor(x[i], ushort(5));
        c[i] = simd_shuffle_down(x[i], ushort(3)); d[i] = simd_shuffle_up(x[i], ushort(3));
        e[i] = simd_broadcast(x[i], ushort(9)); f[i] = simd_broadcast_first(x[i]);
        g[i] = simd_shuffle_rotate_down(x[i], ushort(30)); h[i] = simd_shuffle_and_fill_up(x[i], -x[i], ushort(4));
        k[i] = quad_shuffle_xor(x[i], ushort(1)) + quad_sum(x[i]) + quad_broadcast(x[i], ushort(2));
        half2 v = simd_shuffle_xor(half2(x[i], 1), ushort(1)); l[i] = float(v.x) + float(v.y);
        """,
        {"x": mx.arange(64, dtype=mx.float32)},
        dict.fromkeys("abcdefghkl", mx.float32),
        **settings,
    )
    i = np.arange(64)
    base, lane, quad = i // 32 * 32, i % 32, i // 4 * 4
    assert (out["a"] == base + (lane * 7 + 3) % 32).all()
    assert (out["b"] == i ^ 5).all()
    assert (out["c"] == np.where(lane < 29, i + 3, i)).all()
    assert (out["d"] == np.where(lane >= 3, i - 3, i)).all()
    assert (out["e"] == base + 9).all()
    assert (out["f"] == base).all()
    assert (out["g"] == base + (lane + 30) % 32).all()
    assert (out["h"] == np.where(lane >= 4, i - 4, -(base + (lane + 28) % 32))).all()
    assert (out["k"] == (i ^ 1) + 4 * quad + 6 + quad + 2).all()
    assert (out["l"] == (i ^ 1) + 1).all()


def test_a_bfloat_sum_is_rounded_once():
    x = mx.random.normal((32,)).astype(mx.bfloat16)
    out = lanes("y[i] = float(simd_sum(x[i]));", {"x": x}, {"y": mx.float32}, threads=32)
    total = mx.array(np.array(x.astype(mx.float32)).astype(np.float64).sum()).astype(mx.bfloat16)
    assert abs(out["y"][0] - total.item()) <= abs(total.item()) * 2**-8
    assert mx.array(out["y"]).astype(mx.bfloat16).astype(mx.float32).tolist() == out["y"].tolist()


def test_matrix_elements_lie_where_mlx_expects_them():
    out = lanes(
        """
        simdgroup_matrix<float, 8, 8> m, t;
        simdgroup_load(m, x, 8);
        simdgroup_load(t, x, 8, ulong2(0), true);
        a[i] = int(m.thread_elements()[0]); b[i] = int(m.thread_elements()[1]); c[i] = int(t.thread_elements()[1]);
        """,
        {"x": mx.arange(64, dtype=mx.float32)},
        dict.fromkeys("abc", mx.int32),
        threads=32,
    )
    for lane in range(32):
        quad = lane // 4  # mlx/backend/metal/kernels/steel/gemm/mma.h, get_coord
        row, column = (quad & 4) + lane // 2 % 4, (quad & 2) * 2 + lane % 2 * 2
        assert (out["a"][lane], out["b"][lane]) == (8 * row + column, 8 * row + column + 1)
        assert out["c"][lane] == 8 * (column + 1) + row


@pytest.mark.parametrize("settings", CHECKS)
@pytest.mark.parametrize(("name", "dtype"), [("float", mx.float32), ("half", mx.float16), ("bfloat", mx.bfloat16)])
def test_matrix_products(name, dtype, settings):
    rng = np.random.default_rng(1)
    a, b = (mx.array(rng.integers(-8, 8, (8, 24)).astype(np.float32)).astype(dtype) for _ in range(2))
    results, _ = run_source(
        f"""
        simdgroup_matrix<{name}, 8, 8> a, b;
        simdgroup_matrix<float, 8, 8> sum(1.0f);
        for (int k = 0; k < 24; k += 8) {{
          simdgroup_load(a, left, 24, ulong2(k, 0));
          simdgroup_load(b, right + k, 24, ulong2(0), true);
          simdgroup_multiply_accumulate(sum, a, b, sum);
        }}
        simdgroup_store(sum, y, 8);
        """,
        inputs={"left": a, "right": b},
        outputs={"y": ((8, 8), mx.float32)},
        grid=(32, 1, 1),
        threadgroup=(32, 1, 1),
        **settings,
    )
    expected = np.array(a.astype(mx.float32)) @ np.array(b.astype(mx.float32)).T + np.eye(8)
    np.testing.assert_array_equal(np.array(results["y"]), expected)


@pytest.mark.parametrize("settings", CHECKS)
def test_atomics_count_every_thread(settings):
    results, _ = run_source(
        """
        device atomic<int>* count = (device atomic<int>*)y;
        uint i = thread_position_in_grid.x;
        atomic_fetch_add_explicit(&count[i % 3], x[i], memory_order_relaxed);
        atomic_fetch_max_explicit(&count[3], x[i], memory_order_relaxed);
        threadgroup atomic_uint local;
        if (i % 64 == 0) atomic_store_explicit(&local, 0u, memory_order_relaxed);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        atomic_fetch_add_explicit(&local, 1u, memory_order_relaxed);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (i % 64 == 0) y[4 + i / 64] = int(atomic_load_explicit(&local, memory_order_relaxed));
        """,
        inputs={"x": mx.arange(192, dtype=mx.int32)},
        outputs={"y": ((7,), mx.int32)},
        grid=(192, 1, 1),
        threadgroup=(64, 1, 1),
        init_value=0,
        **settings,
    )
    values = np.arange(192)
    assert results["y"].tolist() == [values[r::3].sum() for r in range(3)] + [191, 64, 64, 64]


def test_a_seed_changes_the_order_of_threads_and_nothing_else():
    def order(seed):
        results, _ = run_source(
            """
            device atomic<int>* next = (device atomic<int>*)y;
            uint i = thread_position_in_grid.x;
            int place = atomic_fetch_add_explicit(&next[0], 1, memory_order_relaxed);
            y[1 + place] = int(i);
            """,
            inputs={"x": mx.zeros(8)},
            outputs={"y": ((257,), mx.int32)},
            grid=(256, 1, 1),
            threadgroup=(64, 1, 1),
            init_value=0,
            seed=seed,
        )
        return results["y"].tolist()[1:]

    assert order(0) == list(range(256))
    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2)) == list(range(256))
