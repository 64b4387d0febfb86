"""The engine: what shares a request's passes never shows, cancels and faults stay where they are, nothing leaks."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import resource
import threading
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import pytest
import tiny
from engine_cases import (
    STOPS,
    Thirds,
    alone,
    answer_of,
    engine_of,
    events,
    model_on_numpy,
    random_requests,
    request,
    together,
)
from hypothesis import given
from hypothesis import strategies as st

from orthrus_mlx.decoding.policy import FixedPolicy
from orthrus_mlx.decoding.steps import AR, CHAIN, Outcome, Situation, Step
from orthrus_mlx.errors import RequestError
from orthrus_mlx.exactness import Exactness
from orthrus_mlx.sampling import Sampling
from orthrus_mlx.serving import scheduler
from orthrus_mlx.serving.engine import CANCELLED, ERROR, NO_TOKEN, Busy, Event, TooLarge
from orthrus_mlx.serving.shared_rows import Load, SharedRows


def check_all_equal(model, asked, engine) -> None:
    answers = together(engine, asked)
    for i, (one, found) in enumerate(zip(asked, answers, strict=True)):
        assert found == alone(model, one), f"request {i}: {one}"


@pytest.mark.parametrize("make", [tiny.text_model, model_on_numpy])
def test_every_answer_under_load_is_the_answer_alone(make):
    model = make(0)
    with engine_of(model) as engine:
        check_all_equal(model, random_requests(40, seed=1), engine)
        counts = engine.metrics()
    assert counts["pass_rows"] > 2 * counts["passes"], "the requests did not share passes"
    assert counts["cached_tokens"] > 0, "no prefix was shared"


@pytest.mark.slow
@pytest.mark.parametrize("likeness", [2.0, 8.0])
def test_two_hundred_answers_under_load_are_the_answers_alone(likeness):
    model = tiny.text_model(3, likeness)
    with engine_of(model) as engine:
        check_all_equal(model, random_requests(200, seed=2, longest=60), engine)


@pytest.mark.parametrize("rows", [16, 32])
def test_in_a_row_class_no_pass_is_wider_than_its_rows_and_answers_stay_the_same(rows, monkeypatch):
    model = tiny.build(tiny.text_config(), tiny.weights(tiny.text_config(), 5))
    model._exactness = Exactness("row-class", rows)
    widths = []
    run_pass = scheduler.run_pass

    def recorded(model, blocks, padded):
        if any(block.view == "" for block in blocks):
            widths.append(sum(block.tokens.size for block in blocks))
        return run_pass(model, blocks, padded)

    monkeypatch.setattr(scheduler, "run_pass", recorded)
    with engine_of(model, prefixes=0) as engine:
        check_all_equal(model, random_requests(24, seed=rows), engine)
    assert 4 < max(widths) <= rows


def test_a_request_alone_drafts_as_its_policy_wants_and_a_crowd_takes_one_token_steps():
    model = tiny.text_model()
    one = request(max_tokens=24, mode="diffusion", block_size=16, stop_tokens=frozenset())
    with engine_of(model) as engine:

        async def ask(count: int) -> list[int]:
            tickets = [engine.submit(one) for _ in range(count)]
            for ticket in tickets:
                await events(ticket)
            return [ticket.usage.drafted for ticket in tickets]

        (drafted,) = asyncio.run(ask(1))
        assert drafted >= 15
        assert sum(asyncio.run(ask(32))) < 32 * drafted / 4


@given(st.integers(1, 64), st.integers(1, 32), st.integers(2, 32), st.integers(0, 31))
def test_together_requests_want_no_more_rows_than_a_pass_has_or_one_each(requests, wanted, drafted, ngram):
    class Greedy(FixedPolicy):
        learns = True

        def step(self, situation):
            self.situation = situation
            return Step(CHAIN, drafted, wanted)

    policy = SharedRows(Greedy(2), Load(requests=requests), 32)
    step = policy.step(Situation(100, 500, ngram, 3))
    assert policy.learns == (requests <= 8), "a crowd takes one-token steps"
    for rows in (step.draft_rows, step.verify_rows):
        assert rows == 1 or requests * rows <= 32 or requests == 1
    assert requests * policy._policy.situation.ngram <= 32 or requests == 1
    if requests == 1:
        assert step == Greedy(2).step(None) and policy._policy.situation == Situation(100, 500, ngram, 3)


def test_what_shared_cycles_took_is_kept_from_the_policy():
    seen = []

    class Listening(FixedPolicy):
        def observe(self, outcome):
            seen.append(outcome.seconds)

    load = Load(requests=1)
    policy = SharedRows(Listening(1), load, 32)
    outcome = Outcome(Step(AR), 10, 0, 1, 1, 0, (), 0, 0.5)
    for shared in (False, True, False, True):
        load.interruptions += shared
        policy.observe(outcome)
    assert seen == [0.5, 0.0, 0.5, 0.0]


def test_events_carry_log_probabilities_that_load_does_not_change():
    model = tiny.text_model()
    asked = [request(max_tokens=8, logprobs=3, mode=mode, prompt=(70, 71, 72)) for mode in ("ar", "diffusion")]
    with engine_of(model) as engine:

        async def ask(requests) -> list[list[Event]]:
            return await asyncio.gather(*(events(ticket) for ticket in [engine.submit(r) for r in requests]))

        (plain,), both = asyncio.run(ask(asked[:1])), asyncio.run(ask([*asked, *asked]))
    for found in both:
        assert [(e.logprob, e.top_logprobs) for e in found] == [(e.logprob, e.top_logprobs) for e in plain]
    for event in plain:
        assert len(event.top_logprobs) == 3 and event.top_logprobs[0][1] >= event.top_logprobs[1][1]
        assert event.logprob == dict(event.top_logprobs)[event.token], "greedy: the likeliest token"


# Ends ---------------------------------------------------------------------------------------------------


def test_a_cancelled_request_ends_and_its_memory_goes_to_the_next():
    model = tiny.text_model()
    endless = request(max_tokens=3000, stop_tokens=frozenset())
    with engine_of(model) as engine:

        async def ask() -> tuple[list[Event], list[Event]]:
            ticket = engine.submit(endless)
            found = []
            async for event in ticket:
                found.append(event)
                if len(found) == 5:
                    ticket.cancel()
            return found, await events(engine.submit(request()))

        found, after = asyncio.run(ask())
        assert found[-1] == Event(NO_TOKEN, finish_reason=CANCELLED)
        assert len(found) < 100
        assert answer_of(after) == alone(model, request())
        counts = engine.metrics()
        assert (counts["running"], counts["queued"], counts["promised_bytes"]) == (0, 0, 0)
        assert counts["finished"] == {"cancelled": 1, answer_of(after)[1]: 1}


def test_a_request_cancelled_in_the_queue_never_runs():
    with engine_of(tiny.text_model(), running=1) as engine:

        async def ask() -> list[list[Event]]:
            first = engine.submit(request(max_tokens=3000, stop_tokens=frozenset()))
            waiting = engine.submit(request())
            await anext(first)
            waiting.cancel()
            found = await events(waiting)
            first.cancel()
            return [found, await events(first)]

        waiting, _ = asyncio.run(ask())
        assert waiting == [Event(NO_TOKEN, finish_reason=CANCELLED)]


def test_the_end_of_the_context_ends_an_answer():
    settings = tiny.text_config(max_position_embeddings=32)
    model = tiny.build(settings, tiny.weights(settings))
    with engine_of(model) as engine:
        asked = request(prompt=range(65, 85), max_tokens=100, stop_tokens=frozenset())
        tokens, reason = together(engine, [asked], clients=1)[0]
        assert (len(tokens), reason) == (12, "context")
        with pytest.raises(TooLarge, match="context is 32"):
            asyncio.run(_submit(engine, request(prompt=range(65, 97))))


async def _submit(engine, asked):
    return engine.submit(asked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ()}, "prompt is empty"),
        ({"prompt": (1, 9999)}, "prompt: 9999"),
        ({"mode": "fast"}, "mode must be"),
        ({"block_size": 33}, "block_size must be"),
        ({"max_tokens": 0}, "max_tokens must be"),
    ],
)
def test_what_is_impossible_is_refused_at_once(changes, message):
    with engine_of(tiny.text_model()) as engine, pytest.raises(RequestError, match=message):
        asyncio.run(_submit(engine, request(**changes)))


def test_a_full_house_is_busy_and_says_when_to_return():
    with engine_of(tiny.text_model(), requests=2, running=1) as engine:

        async def ask() -> None:
            tickets = [engine.submit(request(max_tokens=3000, stop_tokens=frozenset())) for _ in range(2)]
            with pytest.raises(Busy) as refused:
                engine.submit(request())
            assert refused.value.retry_after >= 1
            for ticket in tickets:
                ticket.cancel()
            for ticket in tickets:
                await events(ticket)
            assert (await events(engine.submit(request())))[-1].finish_reason != ERROR

        asyncio.run(ask())


def test_closing_with_drain_finishes_what_runs_and_waits_and_takes_nothing_new():
    model = tiny.text_model()
    with engine_of(model, running=2) as engine:

        async def ask() -> list[list[Event]]:
            tickets = [engine.submit(request(prompt=(70 + i, 71), max_tokens=40)) for i in range(5)]
            closing = threading.Thread(target=engine.close, args=[True])
            closing.start()
            while True:
                try:
                    engine.submit(request()).cancel()
                except Busy:
                    break
                await asyncio.sleep(0.001)
            found = [await events(ticket) for ticket in tickets]
            closing.join(30)
            assert not closing.is_alive()
            return found

        for i, found in enumerate(asyncio.run(ask())):
            assert answer_of(found) == alone(model, request(prompt=(70 + i, 71), max_tokens=40))


# Faults -------------------------------------------------------------------------------------------------


class Planted(BaseException):
    """As a panic of a Rust library: no Exception."""


def failing_after(calls: int):
    counted = iter(range(calls))

    def processor(tokens: mx.array, logits: mx.array) -> mx.array:
        if next(counted, None) is None:
            raise Planted("a processor's own fault")
        return logits

    return processor


class FailingGrammar(Thirds):
    def __init__(self, where: str, calls: int):
        super().__init__()
        self._where, self._calls = where, calls

    def _maybe(self, where: str) -> None:
        if where == self._where:
            self._calls -= 1
            if self._calls < 0:
                raise Planted(f"a grammar's own fault in {where}")

    def allowed(self, drafts: Sequence[int]):
        self._maybe("allowed")
        return super().allowed(drafts)

    def advance(self, tokens: Sequence[int]) -> None:
        self._maybe("advance")
        super().advance(tokens)


def no_grammar():
    raise Planted("there is no grammar")


BAD = {
    "processor at once": {"logits_processors": (failing_after(0),)},
    "processor later": {"logits_processors": (failing_after(5),)},
    "grammar's beginning": {"constraint": no_grammar},
    "grammar's masks": {"constraint": lambda: FailingGrammar("allowed", 2)},
    "grammar's progress": {"constraint": lambda: FailingGrammar("advance", 1)},
    "processor of another shape": {"logits_processors": (lambda tokens, logits: logits[:, :0],)},
}


@pytest.mark.parametrize("mode", ["ar", "diffusion"])
def test_a_requests_own_fault_ends_that_request_alone(mode):
    model = tiny.text_model()
    good = random_requests(8, seed=4)
    bad = [request(max_tokens=40, mode=mode, stop_tokens=frozenset(), **fault) for fault in BAD.values()]
    with engine_of(model) as engine:

        async def ask() -> list[list[Event]]:
            order = [one for pair in zip(good, bad, strict=False) for one in pair] + good[len(bad) :]
            tickets = {id(one): engine.submit(one) for one in order}
            return [await events(tickets[id(one)]) for one in (*good, *bad)]

        found = asyncio.run(ask())
        for one, own in zip(good, found, strict=False):
            assert answer_of(own) == alone(model, one)
        for name, own in zip(BAD, found[len(good) :], strict=True):
            assert own[-1] == Event(NO_TOKEN, finish_reason=ERROR), name
        assert together(engine, good) == [alone(model, one) for one in good], "answers after the faults"


@pytest.mark.parametrize("stage", ["run_pass", "read_chunk"])
def test_a_pass_that_fails_ends_its_requests_and_not_the_engine(stage, monkeypatch):
    model = tiny.text_model()
    original, left = getattr(scheduler, stage), [3]

    def failing(*args):
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("[malloc] no memory for this pass")
        return original(*args)

    monkeypatch.setattr(scheduler, stage, failing)
    asked = [request(prompt=range(60 + i, 110), max_tokens=30, stop_tokens=frozenset()) for i in range(6)]
    with engine_of(model, prefixes=0) as engine:
        first = together(engine, asked, clients=6)
        reasons = [reason for _, reason in first]
        assert ERROR in reasons
        for one, (tokens, reason) in zip(asked, first, strict=True):
            whole, _ = alone(model, one)
            assert tokens == (whole if reason != ERROR else whole[: len(tokens)])
        assert together(engine, asked, clients=6) == [alone(model, one) for one in asked]
        assert engine.metrics()["promised_bytes"] == 0


def test_a_fault_of_the_engine_itself_fails_what_runs_and_not_what_comes(monkeypatch):
    model = tiny.text_model()
    broken = threading.Event()
    packed = scheduler.packed

    def failing(*args):
        if broken.is_set():
            broken.clear()
            raise RuntimeError("planted")
        return packed(*args)

    monkeypatch.setattr(scheduler, "packed", failing)
    with engine_of(model) as engine:

        async def ask() -> list[Event]:
            ticket = engine.submit(request(max_tokens=3000, stop_tokens=frozenset()))
            await anext(ticket)
            broken.set()
            return await events(ticket)

        assert asyncio.run(ask())[-1].finish_reason == ERROR
        assert together(engine, [request()], clients=1) == [alone(model, request())]


def test_a_reader_that_is_gone_does_not_stop_the_engine():
    model = tiny.text_model()
    with engine_of(model) as engine:

        async def leave() -> None:
            engine.submit(request(max_tokens=3000, stop_tokens=frozenset()))

        asyncio.run(leave())
        assert together(engine, [request()], clients=1) == [alone(model, request())]


def test_a_model_with_lazy_rotary_tables_runs_in_the_engines_thread():
    scaling = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 2048}
    settings = tiny.text_config(rope_scaling=scaling)
    model = tiny.build(settings, tiny.weights(settings))
    with engine_of(model) as engine:
        assert together(engine, [request()], clients=1) == [alone(model, request())]


@pytest.mark.parametrize("changes", [{}, {"logits_processors": (failing_after(20),)}])
def test_what_a_request_held_is_free_when_it_has_ended(changes, caplog):
    caplog.set_level(logging.CRITICAL, "orthrus_mlx")
    model = tiny.text_model()
    asked = request(max_tokens=600, stop_tokens=frozenset(), **changes)
    with engine_of(model, prefixes=0) as engine:
        together(engine, [request()], clients=1)
        gc.collect()
        gc.disable()
        try:
            before = engine.metrics()["memory_bytes"]
            together(engine, [asked] * 4, clients=4)
            assert engine.metrics()["memory_bytes"] - before < 2**18, "nothing may wait for Python's collector"
        finally:
            gc.enable()


# A long day ---------------------------------------------------------------------------------------------


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_a_long_day_of_requests_cancels_and_faults_leaves_nothing_behind(tmp_path, summary, caplog):
    # What is logged is kept for the report, and with a traceback all arrays in sight of it.
    caplog.set_level(logging.CRITICAL, "orthrus_mlx")
    model = tiny.text_model()
    limit = 2 * 2**20
    rng = random.Random(9)

    with engine_of(model, prefixes=limit, spill=tmp_path, spill_bytes=4 * limit, requests=40) as engine:

        async def client(asked) -> None:
            try:
                ticket = engine.submit(asked)
            except Busy:
                return
            after = rng.choice((None, None, None, 0, 3))
            found = 0
            async for event in ticket:
                found += 1
                if after is not None and found > after:
                    ticket.cancel()
                assert event.finish_reason != ERROR or asked.logits_processors

        async def crowd(count: int, seed: int) -> None:
            asked = random_requests(count, seed, longest=30)
            for i in range(0, count, 10):
                asked[i] = request(max_tokens=20, logits_processors=(failing_after(rng.randrange(8)),))
            for start in range(0, count, 50):
                await asyncio.gather(*(client(one) for one in asked[start : start + 50]))

        asyncio.run(crowd(200, 0))
        sizes = []
        for day in range(1, 4):
            asyncio.run(crowd(200, day))
            gc.collect()
            counts = engine.metrics()
            assert (counts["running"], counts["queued"], counts["promised_bytes"]) == (0, 0, 0)
            assert counts["prefix_bytes"] <= limit and counts["prefix_disk_bytes"] <= 4 * limit
            assert sum(f.stat().st_size for f in tmp_path.iterdir()) == counts["prefix_disk_bytes"]
            assert not engine._promises and not engine._running
            sizes.append((resident_bytes(), counts["memory_bytes"]))
        assert sizes[-1][0] - sizes[0][0] < 16 * 2**20, f"resident bytes: {sizes}"
        assert sizes[-1][1] - sizes[0][1] < 2 * 2**20, f"MLX's bytes: {sizes}"
        summary.append(f"soak: 800 requests, resident {[s[0] >> 20 for s in sizes]} MiB")


def test_sampling_settings_reach_the_tokens():
    model = tiny.text_model()
    asked = [request(sampling=Sampling(temperature=1.0, seed=seed), stop_tokens=STOPS) for seed in range(6)]
    with engine_of(model) as engine:
        assert len({tuple(tokens) for tokens, _ in together(engine, asked, clients=6)}) > 3
