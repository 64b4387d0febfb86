"""The cost table: interpolation, what is not measured, corrections, the file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthrus_mlx.decoding.costs import AR, DIFFUSION, CostTable, Pass
from orthrus_mlx.errors import OrthrusError


def table(*passes: tuple[str, int, int, float], sync_ms: float = 0.0) -> CostTable:
    return CostTable([Pass(*p) for p in passes], sync_ms)


def test_measured_passes_cost_what_was_measured():
    costs = table((AR, 1, 0, 5.0), (AR, 16, 0, 8.0), (AR, 1, 1024, 7.0), (AR, 16, 1024, 12.0), (DIFFUSION, 16, 0, 9.0))
    assert costs.cost(AR, 1, 0) == 5.0
    assert costs.cost(AR, 16, 1024) == 12.0
    assert costs.cost(DIFFUSION, 16, 0) == 9.0


def test_between_measurements_costs_are_linear():
    costs = table((AR, 1, 0, 5.0), (AR, 17, 0, 13.0), (AR, 1, 1000, 7.0), (AR, 17, 1000, 17.0))
    assert costs.cost(AR, 9, 0) == pytest.approx(9.0)
    assert costs.cost(AR, 1, 250) == pytest.approx(5.5)
    assert costs.cost(AR, 9, 500) == pytest.approx(10.5)


def test_beyond_measurements_the_last_slope_goes_on():
    costs = table((AR, 1, 0, 5.0), (AR, 16, 0, 8.0), (AR, 1, 1000, 7.0), (AR, 16, 1000, 10.0))
    assert costs.cost(AR, 31, 0) == pytest.approx(11.0)
    assert costs.cost(AR, 1, 3000) == pytest.approx(11.0)


def test_noise_does_not_make_long_contexts_free():
    costs = table((AR, 1, 0, 5.0), (AR, 16, 0, 8.0), (AR, 1, 1000, 4.9), (AR, 16, 1000, 7.9))
    assert costs.cost(AR, 1, 100_000) == pytest.approx(4.9)


def test_what_a_long_context_adds_is_taken_from_the_rows_measured_there():
    costs = table((AR, 1, 0, 5.0), (AR, 16, 0, 8.0), (AR, 32, 0, 12.0), (AR, 1, 4096, 6.0), (AR, 32, 4096, 15.0))
    assert costs.cost(AR, 16, 4096) == pytest.approx(8.0 + 1.0 + 2.0 * 15 / 31)


def test_a_machine_on_which_only_one_row_was_measured_pays_by_the_row():
    costs = table((AR, 1, 0, 100.0))
    assert costs.cost(AR, 8, 0) == pytest.approx(800.0)
    assert costs.cost(DIFFUSION, 8, 0) == pytest.approx(800.0)


@pytest.mark.parametrize("ms", [0.0, -1.0, float("nan"), float("inf")])
def test_times_must_be_times(ms):
    with pytest.raises(OrthrusError):
        table((AR, 1, 0, ms))
    with pytest.raises(OrthrusError):
        CostTable([])


@given(
    st.lists(st.tuples(st.sampled_from([1, 4, 16, 32]), st.sampled_from([0, 1024]), st.floats(0.01, 1e4)), min_size=1)
)
def test_costs_are_positive_whatever_was_measured(measured):
    costs = CostTable([Pass(AR, rows, context, ms) for rows, context, ms in measured])
    assert all(costs.cost(AR, rows, context) > 0 for rows in (1, 2, 9, 32) for context in (0, 500, 20_000))


def test_a_pass_that_got_slower_is_learned_within_a_few_cycles():
    costs = table((AR, 1, 0, 5.0), (AR, 16, 0, 8.0), (DIFFUSION, 16, 0, 8.0))
    for _ in range(12):
        passes = [(AR, 16), (DIFFUSION, 16)]
        costs.observe(passes, 0, costs.cost(AR, 16, 0) + costs.cost(DIFFUSION, 16, 0), 24.0)
    assert costs.cost(AR, 16, 0) + costs.cost(DIFFUSION, 16, 0) == pytest.approx(24.0, rel=0.03)
    assert costs.cost(AR, 1, 0) < 5.0 * 1.15, "one-token steps were not slower"


def test_a_machine_that_throttles_slows_the_passes_that_run():
    costs = table((AR, 1, 0, 5.0), (AR, 16, 0, 8.0))
    for _ in range(20):
        costs.observe([(AR, 1)], 0, costs.cost(AR, 1, 0), 10.0)
    assert costs.cost(AR, 1, 0) == pytest.approx(10.0, rel=0.03)
    assert costs.cost(AR, 16, 0) > 8.0


def test_what_passes_take_behind_a_long_context_says_little_of_a_short_one():
    costs = table((AR, 1, 0, 5.0), (AR, 16, 0, 8.0), (AR, 1, 1024, 9.0), (AR, 16, 1024, 14.0))
    for _ in range(20):
        costs.observe([(AR, 1)], 1500, costs.cost(AR, 1, 1500), 6.0)
    assert costs.cost(AR, 1, 1500) == pytest.approx(6.0, rel=0.03)
    assert costs.cost(AR, 1, 0) == pytest.approx(5.0, rel=0.1)


def test_one_interruption_changes_little():
    costs = table((AR, 1, 0, 5.0))
    costs.observe([(AR, 1)], 0, 5.0, 5.0)
    costs.observe([(AR, 1)], 0, 5.0, 500.0)
    costs.observe([(AR, 1)], 0, 5.0, 5.0)
    assert costs.cost(AR, 1, 0) == pytest.approx(5.0)


def test_the_file_keeps_every_measurement():
    costs = table((AR, 1, 0, 5.0), (DIFFUSION, 16, 1024, 8.25), sync_ms=0.3)
    again = CostTable.from_dict(json.loads(json.dumps(costs.to_dict())))
    assert again.passes == costs.passes
    assert again.sync_ms == 0.3


@pytest.mark.parametrize(
    "entry",
    [{}, {"sync": 0.1}, {"ar/1/0": 1.0}, {"ar/x/0": 1.0, "sync": 0.1}, {"ar/1/0": -1.0, "sync": 0.1}, {"ar": 1.0}],
)
def test_a_damaged_entry_is_refused(entry):
    with pytest.raises(OrthrusError):
        CostTable.from_dict(entry)
