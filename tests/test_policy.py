"""Policies choose rows, nothing else: whatever they answer, tokens stay (see test_losslessness)."""

from __future__ import annotations

import math

import pytest
import tiny

from orthrus_mlx import generation
from orthrus_mlx.decoding.loop import Decoder, _Clock
from orthrus_mlx.decoding.policy import FixedPolicy
from orthrus_mlx.decoding.stats import DecodeStats
from orthrus_mlx.decoding.steps import AR, CERTAINTIES, CHAIN, Situation, Step
from orthrus_mlx.generation import mlx_generate, stream_generate


def test_a_fixed_policy_always_takes_the_same_step():
    ar, block = (FixedPolicy(rows).step(Situation(0, 100)) for rows in (1, 16))
    assert ar.kind == AR
    assert (block.kind, block.draft_rows, block.verify_rows) == (CHAIN, 16, 16)


def test_the_clock_leaves_out_the_time_the_consumer_holds_the_tokens():
    times = iter([0.0, 2.0, 3.0, 10.0, 11.0])
    clock = _Clock(lambda: next(times))
    assert clock.lap() == 2.0
    with clock.paused():  # from 3 to 10
        pass
    assert clock.lap() == 2.0


@pytest.mark.parametrize("rows", [1, 2, 31, 1000])
def test_a_policy_never_gets_more_rows_than_the_block_or_the_text_has(monkeypatch, rows):
    monkeypatch.setattr(generation, "make_policy", lambda *args, **kwargs: FixedPolicy(rows))
    stats = DecodeStats()
    assert len(list(mlx_generate(tiny.tiny_model(0), [1, 2], None, 20, block_size=8, stats=stats))) == 20
    assert max(stats.target_rows) <= min(rows, 8)


@pytest.mark.parametrize("on_cpu", [True, False], ids=["host", "device"])
def test_runs_of_steps_are_reported_with_how_certain_the_target_was_of_the_last_of_them(monkeypatch, on_cpu):
    seen = []

    class Listening(FixedPolicy):
        learns = True

        def step(self, situation):
            return Step(AR, steps=6)

        def observe(self, outcome):
            seen.append(outcome)

    class Elsewhere(Decoder):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self._on_cpu = on_cpu

    monkeypatch.setattr(generation, "make_policy", lambda *args, **kwargs: Listening(1))
    monkeypatch.setattr(generation, "Decoder", Elsewhere)
    model, tokenizer = tiny.text_model(), tiny.text_tokenizer()
    tokenizer.eos_token_ids = []
    responses = list(stream_generate(model, tokenizer, [5, 6], 15))
    given = [math.exp(response.logprobs[response.token].item()) for response in responses]
    assert [outcome.tokens for outcome in seen] == [6, 6], "the third run was cut short"
    for outcome, first in zip(seen, (0, 6), strict=True):
        assert outcome.certainties == pytest.approx(given[first : first + 6][-CERTAINTIES:], rel=1e-4)
