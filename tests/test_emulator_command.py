"""`python -m tests.emulator` runs and lints a kernel file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.emulator.__main__ import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the emulator runs on Linux")


@pytest.fixture
def kernel_file(tmp_path):
    path = tmp_path / "kernels" / "scale.metal"
    path.parent.mkdir()
    path.write_text("// y = 2 x\nuint i = thread_position_in_grid.x;\ny[i] = T(2.0f * float(x[i + OFF]));\n")
    return str(path)


ARGUMENTS = ["--input", "x=64:bfloat16:arange", "--output", "y=64:bfloat16", "--template", "T=bfloat16"]


def test_the_command_runs_a_kernel_body(kernel_file, tmp_path, capsys):
    run = ["run", kernel_file, *ARGUMENTS, "--grid", "64", "--threadgroup", "32,1,1"]
    assert main([*run, "--template", "OFF=0", "--traffic", "--save", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "y [64] bfloat16: [  0.   2.   4." in printed
    assert "x: loaded 128, distinct 128" in printed
    assert np.load(tmp_path / "out" / "y.npy").tolist() == [2.0 * i for i in range(64)]
    assert main([*run, "--template", "OFF=1", "--checked"]) == 1
    assert "kernels/scale.metal:3: out of bounds: read of x[64]" in capsys.readouterr().err


def test_the_command_runs_a_whole_kernel(tmp_path, capsys):
    path = tmp_path / "whole.metal"
    path.write_text(
        "#include <metal_stdlib>\nusing namespace metal;\ntemplate <typename T>\n"
        "[[kernel]] void twice(const device T* x [[buffer(0)]], device T* y [[buffer(1)]],\n"
        "                      uint i [[thread_position_in_grid]]) {\n  y[i] = 2 * x[i];\n}\n"
    )
    run = ["run", str(path), "--input", "x=8:float16:ones", "--output", "y=8:float16", "--grid", "8"]
    assert main([*run, "--threadgroup", "8", "--entry", "twice<half>", "--checked"]) == 0
    assert "y [8] float16: [2. 2. 2. 2. 2. 2. 2. 2.]" in capsys.readouterr().out
    assert main(["lint", str(path)]) == 0


def test_the_command_lints_a_kernel_body(kernel_file, capsys):
    pytest.importorskip("clang.cindex", reason="libclang is not installed")
    assert main(["lint", kernel_file, *ARGUMENTS, "--template", "OFF=0"]) == 0
    Path(kernel_file).write_text("uint i = thread_position_in_grid.x;\nfloat* p = x;\ny[i] = T(p[i]);\n")
    assert main(["lint", kernel_file, *ARGUMENTS]) == 1
    assert "kernels/scale.metal:2: address space" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "x"], "NAME=... is needed"),
        (["--input", "x=8:float8"], "NAME=SHAPE:DTYPE"),
        (["--input", "x=8:int32:abc"], "'abc' is none of"),
        (["--input", "x=gone.npy"], "gone.npy"),
        (["--template", "T=one"], "a dtype, true, false or an integer"),
    ],
)
def test_the_command_explains_what_it_does_not_understand(kernel_file, arguments, message, capsys):
    assert main(["run", kernel_file, "--grid", "1", "--threadgroup", "1", *arguments]) == 1
    assert message in capsys.readouterr().err
