"""The kernels' tests notice the faults that tests/kernels_mutation.py plants."""

from __future__ import annotations

import pytest

from tests import kernels_mutation
from tests.kernels_cases import emulator_only


@pytest.mark.slow
@emulator_only
def test_every_planted_fault_is_noticed_or_explained(summary: list[str]) -> None:
    lines: list[str] = []
    assert not kernels_mutation.run(lines.append)
    summary.append(f"kernel mutations: {lines[-1]}")
