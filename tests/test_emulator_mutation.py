"""Planted faults are told from survivors, bytes moved from bytes needed."""

from __future__ import annotations

import sys

import mlx.core as mx
import pytest

from tests.emulator import emulated_metal, run_source
from tests.emulator.mutation import dropped_barriers, exact, try_mutations

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the emulator runs on Linux")


def test_dropped_barriers_and_planted_faults_are_told_from_survivors():
    source = """
        threadgroup float a[64];
        uint i = thread_position_in_threadgroup.x;
        a[i] = x[i];
        threadgroup_barrier(mem_flags::mem_threadgroup);  // threadgroup_barrier(mem_flags::mem_none);
        float other = a[63 - i];
        threadgroup_barrier(mem_flags::mem_threadgroup);
        y[i] = other + 1;
    """

    x = mx.arange(64, dtype=mx.float32)

    def check():
        kernel = mx.fast.metal_kernel(name="reversed", input_names=["x"], output_names=["y"], source=source)
        shape = {"grid": (64, 1, 1), "threadgroup": (64, 1, 1), "output_shapes": [(64,)], "output_dtypes": [mx.float32]}
        (y,) = kernel(inputs=[x], **shape)
        assert y.tolist() == [64.0 - i for i in range(64)], "reversed plus one"

    with emulated_metal() as emulation:
        check()
    (launch,) = emulation.launches
    barriers = dropped_barriers(launch.text)
    assert len(barriers) == 2
    faults = [
        exact("wrong index", "a[63 - i]", "a[62 - i]"),
        exact("wrong sum", "other + 1", "other + 2"),
        exact("not C++", "float other", "floot other"),
        exact("nothing to replace", "not there", ""),
        exact("another kernel", "other + 1", "other + 2", kernel="unrelated"),
    ]
    verdicts = [outcome.verdict for outcome in try_mutations([*barriers, *faults], check)]
    # the second barrier guards nothing: it may survive
    assert verdicts == ["fault", "survived", "fault", "wrong", "refused", "not applied", "not applied"]


def test_traffic_tells_bytes_read_from_bytes_needed():
    # two threadgroups of 64 threads: each thread reads one element of x, and all 16 elements of w twice
    _, launch = run_source(
        """
        uint i = thread_position_in_grid.x;
        float sum = 0;
        for (int pass = 0; pass < 2; ++pass) {
          for (int k = 0; k < 16; ++k) sum += w[k] * x[i];
          threadgroup_barrier(mem_flags::mem_device);
        }
        y[i] = sum;
        """,
        inputs={"x": mx.ones(128), "w": mx.ones(16), "unused": mx.ones(32)},
        outputs={"y": ((128,), mx.float32)},
        grid=(128, 1, 1),
        threadgroup=(64, 1, 1),
        traffic=True,
    )
    traffic = launch.report.traffic
    assert traffic["w"].loaded == 128 * 2 * 16 * 4
    assert (traffic["w"].unique, traffic["w"].unique_per_threadgroup) == (64, 128)
    assert traffic["x"].unique == traffic["x"].unique_per_threadgroup == 512
    assert (traffic["unused"].loaded, traffic["y"].stored, traffic["y"].loaded) == (0, 512, 0)
