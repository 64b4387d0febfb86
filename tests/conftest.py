"""Settings of the whole suite, made before MLX is imported."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

# MLX compiles CPU kernels with g++ at run time, seconds per kernel: only tests of compilation turn that on.
os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
# Timings of kernels are kept in a cache folder: the suite's own, so that a run neither reads nor leaves any.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="orthrus-mlx-tests-")
# What is chosen by measurement may differ from run to run: tests that want kernels ask for them.
os.environ["ORTHRUS_KERNELS"] = "off"
# No test may reach a hub, whatever a checkpoint or a library asks for.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from hypothesis import HealthCheck, settings

# A shell that starts the suite in the background has SIGINT ignored, and so would every program that the tests
# start and interrupt: a handler of our own is not inherited, being ignored is.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("suite")

_SUMMARY: list[str] = []


@pytest.fixture(autouse=True)
def random_state() -> None:
    """MLX seeds its global random state by the clock: a test's draws are its own, whatever ran before it."""
    import mlx.core as mx

    mx.random.seed(0)


@pytest.fixture(autouse=True)
def pass_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In mode "auto" no test measures the machine it runs on: wide passes are said to be cheap, so drafts are tried."""
    from orthrus_mlx.decoding import model_policy
    from orthrus_mlx.decoding.costs import VIEWS, CostTable, Pass

    passes = [Pass(view, rows, 0, ms) for view in VIEWS for rows, ms in ((1, 1.0), (32, 1.2))]
    monkeypatch.setattr(model_policy, "costs_of", lambda model, exactness: CostTable(passes))


@pytest.fixture(scope="session")
def summary() -> list[str]:
    """Lines that the run prints at its end, passing or not: counts and measurements worth seeing."""
    return _SUMMARY


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def pytest_terminal_summary(terminalreporter) -> None:
    for line in _SUMMARY:
        terminalreporter.write_line(line)


@pytest.fixture
def quick_timings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache folder, no setting, and one call per timing."""
    from orthrus_mlx.kernels import tuning

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ORTHRUS_KERNELS", raising=False)
    monkeypatch.setattr(tuning, "_CALLS", 1)
    monkeypatch.setattr(tuning, "_REPEATS", 1)
