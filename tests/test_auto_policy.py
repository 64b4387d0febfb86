"""The policy of mode "auto" on invented machines and texts: never much slower than one-token steps, else fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.policy_curves import CURVES
from benchmarks.policy_replay import Machine, Trace, invented_trace, replay
from benchmarks.policy_workloads import WORKLOADS
from orthrus_mlx.decoding.auto_policy import INCOME, WIDTHS, AutoPolicy
from orthrus_mlx.decoding.belief import EXPECTED, RATES, Belief, Usual
from orthrus_mlx.decoding.calibration import Calibration, TextShift
from orthrus_mlx.decoding.options import MOST_READ_DEBT, Means, Options
from orthrus_mlx.decoding.policy import FixedPolicy
from orthrus_mlx.decoding.policy_memory import FIRST_CREDIT, NGramRates, PolicyMemory
from orthrus_mlx.decoding.steps import AR, CHAIN, NGRAM, TREE, Draft, Outcome, Situation, Step


def machine(cycle: float = 1.0, per_row: float = 0.02, noise: float = 0.0, row_class: int | None = None) -> Machine:
    """A pass of several rows costs `cycle` one-row passes and `per_row` more for every row."""

    def cost(view: str, rows: int, context: int) -> float:
        return 10.0 if rows == 1 else 10.0 * (cycle + per_row * rows)

    return Machine(cost, 0.2, noise, (lambda rows: row_class) if row_class else int)


def auto(on: Machine, memory: PolicyMemory | None = None, **settings) -> AutoPolicy:
    return AutoPolicy(on.table(), memory or PolicyMemory(), block_rows=32, padded=on.padded, **settings)


def draft_of(confidences: Sequence[Sequence[float]]) -> Draft:
    return Draft([[10 * i + j for j in range(len(c))] for i, c in enumerate(confidences)], confidences)


# Never slower ---------------------------------------------------------------------------------------


@cache
def texts(workload: str, count: int, length: int) -> list[Trace]:
    return next(w for w in WORKLOADS if w.name == workload).texts(count, length)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_auto_keeps_097_of_plain_speed_on_every_published_machine_and_workload(curve):
    on = curve.machine()
    trees = CURVES.index(curve) % 2 == 0
    for workload in WORKLOADS:
        for length, count in ((20, 24), (60, 8), (480, 1)):
            memory = PolicyMemory()
            runs = [
                replay(text, auto(on, memory, trees=trees), on, seed=i, ngrams=False)
                for i, text in enumerate(texts(workload.name, count, length))
            ]
            speedup = sum(run.plain_ms for run in runs) / sum(run.ms for run in runs)
            assert speedup >= 0.97, (workload.name, length)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.3, 0.7, 0.95, 1.0]), min_size=20, max_size=160),
    st.floats(1.0, 5.0),
    st.floats(0.0, 0.3),
    st.booleans(),
    st.integers(0, 99),
)
def test_whatever_the_text_the_loss_is_bounded(levels, cycle, per_row, trees, seed):
    on = machine(cycle, per_row)
    run = replay(invented_trace(levels, seed), auto(on, trees=trees), on, ngrams=False)
    assert run.ms <= run.plain_ms * (1 + INCOME) + most_lost()


def most_lost() -> float:
    """Milliseconds that texts behind one prompt may lose together besides a share of their time: the first credit,
    a debt, and a cycle's rounding up of passes."""
    return 10.0 * (FIRST_CREDIT + MOST_READ_DEBT + 0.1)


@settings(max_examples=20, deadline=None)
@given(st.floats(1.0, 5.0), st.floats(0.0, 0.3), st.booleans(), st.integers(1, 12), st.booleans())
def test_texts_that_look_predictable_and_refuse_every_draft_lose_no_more(cycle, per_row, trees, count, fresh):
    on, memory = machine(cycle, per_row), PolicyMemory()
    text = invented_trace([0.0] * 40)
    text = replace(text, certainties=[1.0] * 40, confidences={w: 0 * c + 0.99 for w, c in text.confidences.items()})
    runs = []
    for i in range(count):
        prompt = [i] if fresh else [0]
        runs.append(replay(text, auto(on, memory, trees=trees, prompt=prompt), on, ngrams=False))
    plain = sum(run.plain_ms for run in runs)
    assert sum(run.ms for run in runs) <= plain * (1 + INCOME) + (1 if fresh else 2) * most_lost()


def test_where_nothing_can_win_nothing_is_drafted():
    on = machine(cycle=0.0, per_row=0.95)  # a row costs a row, as with a slow BLAS
    run = replay(invented_trace([1.0] * 300), auto(on, trees=True), on, ngrams=False)
    assert set(run.cycles) == {(AR, 1)}


def test_a_predictable_text_is_drafted_after_a_few_certain_steps():
    on = machine(cycle=1.5)
    # The cheapest cycle costs three one-row passes: more than a text may lose by what it starts with.
    run = replay(invented_trace([0.999] * 60), auto(on), on, ngrams=False)
    assert 0 < run.cycles[AR, 1] < 10 and run.speedup > 3


def test_texts_that_begin_alike_share_what_was_learned_and_others_do_not():
    memory = PolicyMemory()
    first, again, other = (memory.genre(beginning) for beginning in ((7, 1), (7, 1), (7, 2)))
    assert again is memory.genre((7, 1)) and again is not first
    assert other is first, "beginnings not met before are one genre"
    again.usual.learn([1.0] + [0.0] * (len(RATES) - 1))
    again.credit = 3.0
    assert other.usual.weights == Usual().weights and other.credit == FIRST_CREDIT
    for i in range(2000):
        memory.genre((i, i))
    assert memory.genre((7, 1)) is other, "the oldest genres are forgotten"


def test_what_texts_with_the_same_first_token_taught_is_used_once_it_is_known():
    on, memory = machine(cycle=1.5), PolicyMemory()
    text = invented_trace([0.999] * 60)
    cycles = []
    for _ in range(3):
        cycles.append(replay(text, auto(on, memory, prompt=text.prompt), on, ngrams=False).cycles[AR, 1])
    assert cycles[2] == 2 < cycles[0], "the first token, and the one that is asked for before it is read"


def test_many_short_answers_lose_no_more_than_long_ones():
    on, memory = machine(cycle=2.0), PolicyMemory()
    runs = [replay(invented_trace([0.0] * 25, i), auto(on, memory), on, ngrams=False) for i in range(60)]
    assert sum(run.plain_ms for run in runs) / sum(run.ms for run in runs) >= 0.97


# Fast where it pays ---------------------------------------------------------------------------------


def best_fixed(long: Sequence[Trace], on: Machine) -> float:
    """The speed-up of the best fixed number of rows over all the texts."""

    def milliseconds(rows: int) -> float:
        return sum(replay(text, FixedPolicy(rows), on, ngrams=False).ms for text in long)

    return milliseconds(1) / min(map(milliseconds, (1, 4, 8, 16, 32)))


@pytest.mark.parametrize("workload", WORKLOADS[:4], ids=lambda workload: workload.name)
@pytest.mark.parametrize("trees", [False, True], ids=["chains", "trees"])
def test_long_answers_are_about_as_fast_as_the_best_fixed_block(workload, trees):
    on = machine(cycle=1.0)
    memory = PolicyMemory()
    long = texts(workload.name, 3, 500)
    runs = [replay(text, auto(on, memory, trees=trees), on, ngrams=False) for text in long]
    assert sum(run.plain_ms for run in runs) / sum(run.ms for run in runs) >= 0.9 * best_fixed(long, on)


def test_a_text_that_turns_predictable_is_noticed():
    on = machine(cycle=1.3)
    run = replay(invented_trace([0.0] * 150 + [1.0] * 450), auto(on), on, ngrams=False)
    assert run.speedup > 1.7


def test_trees_are_used_where_second_candidates_are_often_right():
    on = machine(cycle=1.0, per_row=0.005)
    text = invented_trace([0.6] * 400, noise=0.3)
    chains, trees = (replay(text, auto(on, trees=trees), on, ngrams=False) for trees in (False, True))
    assert trees.speedup > chains.speedup
    assert any(kind == TREE for kind, _ in trees.cycles)


def test_a_repeating_text_is_copied_without_draft_passes():
    on = machine(cycle=1.0, per_row=0.3)
    answer = list(range(40)) * 8
    text = invented_trace([0.02] * len(answer))
    text = replace(text, prompt=[900, 901, 902], answer=answer)
    run = replay(text, auto(on), on)
    assert run.speedup > 2.0
    assert any(kind == NGRAM for kind, _ in run.cycles)


# Answers are allowed ones ---------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(2, 32), st.booleans(), st.integers(0, 40), st.integers(3, 16), st.data())
def test_steps_respect_room_and_widths(room, block_rows, trees, ngram, order, data):
    on = machine(cycle=1.1)
    policy = AutoPolicy(on.table(), PolicyMemory(), block_rows=block_rows, trees=trees)
    for _ in range(6):
        situation = Situation(100, room, ngram, order if ngram else 0)
        step = policy.step(situation)
        assert step.verify_rows in {*WIDTHS, block_rows} and step.verify_rows <= min(room, block_rows)
        assert (step.kind == AR) == (step.verify_rows == 1)
        if step.kind in (CHAIN, TREE):
            assert step.verify_rows <= step.draft_rows <= block_rows
            assert step.kind == CHAIN or (trees and step.look)
        if step.kind == NGRAM:
            assert step.verify_rows <= ngram + 1 and not step.look
        rows, confidences, tokens = step.verify_rows, [], [0] * 32
        if step.look:
            confidence = st.floats(0, 1)
            rows_of = st.lists(confidence, min_size=1, max_size=4).map(lambda c: sorted(c, reverse=True))
            drafted = data.draw(st.lists(rows_of, min_size=step.draft_rows - 1, max_size=step.draft_rows - 1))
            candidates = policy.shape(step, draft_of(drafted), situation)
            rows, tokens = len(candidates.tokens) + 1, list(candidates.tokens)
            assert rows in {*WIDTHS, block_rows} and rows <= step.verify_rows
            assert all(parent < i for i, parent in enumerate(candidates.parents))
            confidences = [0.5] * (rows - 1)
        accepted = data.draw(st.integers(0, rows - 1))
        drafts = min(rows - 1, accepted + 1)
        shares = confidences[:drafts], accepted, 0.02, tokens[:drafts]
        policy.observe(Outcome(step, 100, step.draft_rows, rows, accepted + 1, drafts, *shares))
        assert policy.prediction.tokens >= 1 and policy.prediction.ms > 0 and policy.prediction.plain_ms > 0


def test_a_draft_that_ends_with_the_text_is_verified_to_its_end():
    on = machine(cycle=1.0, per_row=0.001)
    policy = auto(on)
    policy.step(Situation(0, 40))
    policy._rate = 1.2 / 10.0
    drafted = draft_of([[0.999]] * 9)
    candidates = policy.shape(Step(CHAIN, 32, 32, look=True), drafted, Situation(0, 40))
    assert len(candidates.tokens) == 9, "although no pass of ten rows is among the widths"


def test_an_ngram_match_that_is_not_continued_says_nothing_of_drafts():
    on = machine(cycle=1.5)
    policy = auto(on)
    for _ in range(3):
        step = policy.step(Situation(100, 40))
        policy.observe(Outcome(step, 100, 0, 1, step.steps, 0, (), 0, 0.01, certainties=[1.0] * step.steps))
    certain = policy._certain
    policy._predictions.append(policy.prediction)
    policy.observe(Outcome(Step(NGRAM, 0, 4), 100, 0, 4, 1, 1, (0.0,), 0, 0.02))
    assert policy._certain == certain > 0


def test_shared_passes_and_short_runs_teach_nothing_about_costs():
    on = machine(cycle=1.1)
    costs = on.table()
    policy = AutoPolicy(costs, PolicyMemory(), block_rows=16)
    for seconds, tokens, corrections in ((0.0, 4, 0), (0.0, 4, 0), (0.5, 3, 0), (0.5, 4, 1)):
        step = policy.step(Situation(100, 40))
        policy.observe(Outcome(step, 100, step.draft_rows, 1, tokens, 0, (), 0, seconds))
        assert costs.version == corrections, (seconds, tokens)


def test_the_same_text_gives_the_same_steps():
    on = machine(noise=0.1)
    text = texts("code", 1, 200)[0]
    first, second = (replay(text, auto(on, trees=True), on, seed=3) for _ in range(2))
    assert first == second


# Against enumeration --------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0.01, 1), min_size=len(RATES), max_size=len(RATES)),
    st.floats(0.8, 4),
    st.floats(0, 0.3),
    st.integers(2, 32),
    st.floats(-20, 80),
    st.floats(0, 80),
)
def test_the_unread_chain_is_the_best_of_all(weights, cycle, per_row, room, credit, debt):
    weights = [weight / sum(weights) for weight in weights]
    on = machine(cycle, per_row)
    options = Options(on.table(), WIDTHS, int, False, context=0)
    costs = on.table()
    best = 0.0
    for drafted in WIDTHS[1:]:
        for rows in WIDTHS[1:]:
            ms = costs.cost("diffusion", drafted, 0) + costs.cost("ar", rows, 0) + on.sync_ms
            tokens = 1 + sum(w * sum(r**i for i in range(1, rows)) for w, r in zip(weights, RATES, strict=True))
            if rows <= min(drafted, room) and Means(credit, debt).cover(ms - 10.0, 10.0 * tokens - ms):
                best = max(best, tokens / ms)
    found = options.unread(options.expected(weights), room, Means(credit, debt))
    assert (found.rate if found else 0.0) == pytest.approx(best)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.02, 0.98), min_size=31, max_size=31), st.floats(0.8, 3), st.floats(0, 0.3))
def test_a_chain_is_cut_where_enumeration_cuts_it(confidences, cycle, per_row):
    on = machine(cycle, per_row)
    policy = auto(on)
    policy.step(Situation(0, 40))
    policy._credit = math.inf
    policy._rate = 1.2 / 10.0
    step = Step(CHAIN, 32, 32, look=True)
    candidates = policy.shape(step, draft_of([[c] for c in confidences]), Situation(0, 40))
    calibration = Calibration()
    costs = on.table()

    def worth(rows: int) -> float:
        path = [math.prod(map(calibration.probability, confidences[:i])) for i in range(1, rows)]
        return 1 + sum(path) - policy._rate * costs.cost("ar", rows, 0)

    assert worth(len(candidates.tokens) + 1) == pytest.approx(max(map(worth, WIDTHS)), abs=1e-9)


# Its parts ------------------------------------------------------------------------------------------


def test_expected_drafts_are_sums_of_powers():
    for k, rate in enumerate(RATES):
        assert EXPECTED[k, 5] == pytest.approx(sum(rate**i for i in range(1, 6)))


def test_belief_follows_the_text():
    belief = Belief(Usual())
    for _ in range(3):
        belief.observe(15, 15)
        belief.passed(16)
    assert sum(belief.weights) == pytest.approx(1.0)
    assert sum(w for w, r in zip(belief.weights, RATES, strict=True) if r > 0.9) > 0.6
    for _ in range(3):
        belief.observe(15, 0)
        belief.passed(1)
    assert sum(w for w, r in zip(belief.weights, RATES, strict=True) if r > 0.9) < 0.2
    for _ in range(100):
        belief.passed(10)
    assert belief.weights == pytest.approx(Usual().weights, abs=0.2), "passages end"


def test_certain_steps_speak_for_predictable_passages_and_doubtful_ones_against():
    certain, doubtful = Belief(Usual()), Belief(Usual())
    certain.chosen([1.0] * 8)
    doubtful.chosen([0.2] * 8)
    mean = [sum(w * r for w, r in zip(b.weights, RATES, strict=True)) for b in (doubtful, Belief(Usual()), certain)]
    assert mean[0] < mean[1] - 0.1 < mean[2] - 0.3


def test_a_draft_left_out_for_its_low_confidence_counts_against_the_text():
    whole, cut = Belief(Usual()), Belief(Usual())
    whole.observe(3, 3)
    cut.observe(3, 3, unseen=0.1)
    mean = [sum(w * r for w, r in zip(b.weights, RATES, strict=True)) for b in (whole, cut)]
    assert mean[1] < mean[0]


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=200))
def test_calibration_is_monotone_and_a_probability(drafts):
    calibration = Calibration()
    for confidence, accepted in drafts:
        calibration.observe([confidence], [accepted])
    curve = [calibration.probability(i / 50) for i in range(51)]
    assert all(0 < a <= b + 1e-12 and b < 1 for a, b in pairwise(curve))


def test_calibration_learns_overconfidence():
    calibration = Calibration()
    for i in range(400):
        calibration.observe([0.9], [i % 2 == 0])
    assert calibration.probability(0.9) == pytest.approx(0.5, abs=0.05)
    others = calibration.others([0.6, 0.3, 0.1], 0.6)
    assert len(others) == 2 and sum(others) <= 0.4 + 1e-9


def test_a_text_that_accepts_more_than_calibrated_shifts_upwards():
    shift = TextShift()
    assert shift.apply(0.5) == pytest.approx(0.5)
    for _ in range(30):
        shift.observe([0.5], [True])
    assert shift.apply(0.5) > 0.7


def test_ngram_rates_are_learned_by_order():
    rates = NGramRates()
    for _ in range(100):
        rates.observe(3, 4, 0)
        rates.observe(16, 4, 4)
    assert rates.accepted(3, 4)[4] < 0.2
    assert rates.accepted(16, 4)[4] > 3.5
