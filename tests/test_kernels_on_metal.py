"""The kernels' tests can run on a Mac: what asks the emulator is skipped, the rest passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels_cases import emulator_only

ROOT = Path(__file__).parents[1]
FILES = sorted(p.name for p in (ROOT / "tests").glob("test_kernels_*.py") if p.stem != "test_kernels_cpu")


@pytest.mark.slow
@emulator_only
def test_where_mlx_has_metal_the_tests_run_on_it_or_say_why_not() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.pretended_metal", "-rs", *(f"tests/{name}" for name in FILES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "here kernels run on Metal" in done.stdout
