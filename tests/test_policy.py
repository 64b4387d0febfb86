"""Policies choose rows, nothing else: whatever they answer, tokens stay (see test_losslessness)."""

from __future__ import annotations

import pytest
import tiny

from orthrus_mlx import generation
from orthrus_mlx.decoding.loop import _Clock
from orthrus_mlx.decoding.policy import FixedPolicy, MeasuredPolicy, make_policy
from orthrus_mlx.decoding.stats import DecodeStats
from orthrus_mlx.generation import mlx_generate


def test_a_fixed_policy_never_changes_its_mind():
    policy = FixedPolicy(7)
    for seconds in (0.1, 10.0):
        policy.observe(7, 1, seconds)
        assert policy.rows() == 7


def test_modes_have_their_policies():
    assert make_policy("ar", 16).rows() == 1
    assert make_policy("diffusion", 16).rows() == 16
    assert isinstance(make_policy("auto", 16), MeasuredPolicy)
    # A model without a diffusion view has blocks of one row: nothing to choose.
    assert isinstance(make_policy("auto", 1), FixedPolicy)


def share_of_blocks(policy: MeasuredPolicy, tokens_per_block: int, block_seconds: float, cycles: int) -> float:
    """Share of the time spent in blocks, where a one-token step takes a second."""
    in_blocks = total = 0.0
    for _ in range(cycles):
        rows = policy.rows()
        seconds, tokens = (block_seconds, tokens_per_block) if rows > 1 else (1.0, 1)
        policy.observe(rows, tokens, seconds)
        total += seconds
        in_blocks += seconds * (rows > 1)
    return in_blocks / total


def test_the_measured_policy_goes_for_the_faster_lane():
    assert share_of_blocks(MeasuredPolicy(16), tokens_per_block=8, block_seconds=2.0, cycles=400) > 0.8
    assert share_of_blocks(MeasuredPolicy(16), tokens_per_block=1, block_seconds=3.0, cycles=2000) < 0.1


def test_the_measured_policy_follows_a_text_that_changes():
    policy = MeasuredPolicy(16)
    share_of_blocks(policy, tokens_per_block=1, block_seconds=3.0, cycles=300)
    assert policy.rows() == 1
    share_of_blocks(policy, tokens_per_block=12, block_seconds=2.0, cycles=3000)
    assert share_of_blocks(policy, tokens_per_block=12, block_seconds=2.0, cycles=100) > 0.8


def test_the_clock_leaves_out_the_time_the_consumer_holds_the_tokens():
    times = iter([0.0, 2.0, 3.0, 10.0, 11.0])
    clock = _Clock(lambda: next(times))
    assert clock.lap() == 2.0
    with clock.paused():  # from 3 to 10
        pass
    assert clock.lap() == 2.0


@pytest.mark.parametrize("rows", [1, 2, 31, 1000])
def test_a_policy_never_gets_more_rows_than_the_block_or_the_text_has(monkeypatch, rows):
    monkeypatch.setattr(generation, "make_policy", lambda mode, block_rows: FixedPolicy(rows))
    stats = DecodeStats()
    assert len(list(mlx_generate(tiny.tiny_model(0), [1, 2], None, 20, block_size=8, stats=stats))) == 20
    assert max(stats.target_rows) <= min(rows, 8)
