"""Measuring pass costs: within its time on any machine, and right."""

from __future__ import annotations

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from orthrus_mlx.decoding import measure_costs as measuring
from orthrus_mlx.decoding.auto_policy import AutoPolicy
from orthrus_mlx.decoding.costs import AR, DIFFUSION
from orthrus_mlx.decoding.measure_costs import BUDGET, measure_costs
from orthrus_mlx.decoding.model_policy import costs_of, make_policy, memory_of
from orthrus_mlx.decoding.policy import FixedPolicy
from orthrus_mlx.exactness import Exactness
from orthrus_mlx.kernels import tuning

EXACT = Exactness("row-exact")


class Device:
    """A device with a clock of its own, on which the first run of a pass takes `compile` seconds more."""

    def __init__(self, one_row: float, per_row: float, per_token: float = 0.0, compile: float = 0.0):
        self.now, self.runs = 0.0, []
        self._one_row, self._per_row, self._per_token, self._compile = one_row, per_row, per_token, compile

    def seconds(self, rows: int, context: int) -> float:
        return self._one_row + self._per_row * (rows - 1) + self._per_token * context

    def run(self, view: str, rows: int, context: int) -> None:
        self.now += 1e-4
        if rows:
            self.now += self.seconds(rows, context) + self._compile * ((view, rows, context) not in self.runs)
            self.runs.append((view, rows, context))

    def measure(self, most_rows: int = 32, draft_rows: int = 32, **settings):
        costs, self.settled = measure_costs(
            self.run, most_rows=most_rows, draft_rows=draft_rows, now=lambda: self.now, **settings
        )
        return costs


def test_a_fast_device_is_measured_exactly():
    device = Device(0.003, 0.0002, 1e-6, compile=0.01)
    costs = device.measure()
    for rows in (1, 3, 7, 16, 32):
        assert costs.cost(AR, rows, 0) == pytest.approx(1e3 * device.seconds(rows, 0))
        assert costs.cost(DIFFUSION, rows, 2000) == pytest.approx(1e3 * device.seconds(rows, 2000))
    assert costs.sync_ms == pytest.approx(0.1)
    assert device.settled


@given(st.floats(1e-4, 0.15), st.floats(0, 1.0), st.floats(0, 1e-5), st.floats(0, 0.02))
def test_it_stays_within_its_time(one_row, relative, per_token, compile):
    device = Device(one_row, one_row * relative, per_token, compile)
    device.measure()
    # One-row and four-row passes are needed; what a wide one takes is known only when it ran.
    needed = device.seconds(1, 0) + device.seconds(4, 0) + 2 * compile
    assert device.now <= max(BUDGET, needed) + 0.05 + compile


def test_a_device_too_slow_for_wide_passes_is_extrapolated():
    device = Device(0.2, 0.2)
    costs = device.measure()
    assert max(rows for _, rows, _ in device.runs) == 4
    assert not device.settled, "one run may have met a busy moment: nothing to keep on disk"
    assert costs.cost(DIFFUSION, 32, 0) == pytest.approx(32 * 200, rel=0.01)


def test_in_a_row_class_only_its_passes_are_run():
    device = Device(0.003, 0.0)
    costs = device.measure(most_rows=16, padded=lambda rows: 16)
    assert {rows for view, rows, _ in device.runs if view == AR} == {16}
    assert costs.cost(AR, 16, 0) == pytest.approx(3.0)


def test_without_a_diffusion_view_no_draft_is_timed():
    device = Device(0.003, 0.0)
    device.measure(draft_rows=1)
    assert {view for view, _, _ in device.runs} == {AR}


def fresh_model():
    """The tiny model as if just loaded."""
    model = tiny.tiny_model(0)
    model.__dict__.pop("_policy_memory", None)
    model.pop("_pass_costs", None)
    return model


@pytest.fixture
def cache_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_model_is_measured_once_per_machine(monkeypatch, cache_home):
    first = costs_of(fresh_model(), EXACT)
    monkeypatch.setattr(measuring, "_milliseconds", lambda *args: pytest.fail("measured again"))
    again = costs_of(fresh_model(), EXACT)
    assert again.passes == first.passes


def test_a_damaged_file_costs_measuring_again(cache_home):
    first = costs_of(fresh_model(), EXACT)
    tuning.cache_file().write_text("{")
    assert {(p.view, p.rows) for p in costs_of(fresh_model(), EXACT).passes} >= {(AR, 1), (DIFFUSION, 4)}
    assert first.passes


def test_another_model_or_padding_is_not_mistaken_for_it(cache_home):
    model = fresh_model()
    costs_of(model, EXACT)
    costs_of(model, Exactness("row-class", 16))
    assert len(tuning._read(tuning.cache_file())) == 2
    assert {p.rows for p in costs_of(model, Exactness("row-class", 16)).passes if p.view == AR} == {16}


def test_modes_have_their_policies(cache_home):
    model = fresh_model()
    assert isinstance(make_policy(model, "ar", 16, EXACT, prompt=(), sampled=False), FixedPolicy)
    assert isinstance(make_policy(model, "diffusion", 16, EXACT, prompt=(), sampled=False), FixedPolicy)
    assert isinstance(make_policy(model, "auto", 1, EXACT, prompt=(), sampled=False), FixedPolicy)
    assert isinstance(make_policy(model, "auto", 16, EXACT, prompt=(), sampled=False), AutoPolicy)
    assert memory_of(model) is memory_of(model)
