"""Settings of the whole suite, made before MLX is imported."""

from __future__ import annotations

import os

# MLX compiles CPU kernels with g++ at run time, seconds per kernel: only tests of compilation turn that on.
os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
# No test may reach a hub, whatever a checkpoint or a library asks for.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("suite")

_SUMMARY: list[str] = []


@pytest.fixture(scope="session")
def summary() -> list[str]:
    """Lines that the run prints at its end, passing or not: counts and measurements worth seeing."""
    return _SUMMARY


def pytest_terminal_summary(terminalreporter) -> None:
    for line in _SUMMARY:
        terminalreporter.write_line(line)
