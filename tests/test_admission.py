"""Memory: requests wait for it, what could never fit is refused at once, and the bound holds."""

from __future__ import annotations

import asyncio

import mlx.core as mx
import pytest
import tiny
from engine_cases import STEP, alone, answer_of, engine_of, events, request
from hypothesis import given
from hypothesis import strategies as st

from orthrus_mlx.cache import CHUNK
from orthrus_mlx.errors import RequestError
from orthrus_mlx.serving import admission as admission_module
from orthrus_mlx.serving.admission import Admission, Footprint, memory_limit
from orthrus_mlx.serving.engine import Capacity, Engine, TooLarge

FOOTPRINT = Footprint(weights=1000, token=2, scratch=500)


def test_a_request_that_could_never_fit_is_refused_and_one_that_must_wait_is_not():
    memory = Admission(FOOTPRINT, 1500 + FOOTPRINT.request(1000))
    need = memory.need(1000)
    assert memory.promise(need) and not memory.promise(memory.need(1))
    memory.give_back(need)
    assert memory.promise(memory.need(1))
    with pytest.raises(TooLarge, match=r"^max_tokens: .* 5000 tokens"):
        memory.need(5000)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4000)), max_size=60))
def test_promises_never_exceed_the_room_and_end_at_nothing(steps):
    memory, held = Admission(FOOTPRINT, 40_000), []
    for ask, tokens in steps:
        if ask:
            need = memory.need(tokens)
            if memory.promise(need):
                held.append(need)
        elif held:
            memory.give_back(held.pop())
        assert 0 <= sum(held) == memory.promised <= memory.room
    for need in held:
        memory.give_back(need)
    assert memory.promised == 0 and memory.free == memory.room


def test_a_limit_below_the_model_is_refused_with_the_way_out():
    with pytest.raises(RequestError, match=r"--memory-limit: .* raise the limit"):
        Admission(FOOTPRINT, 1500)
    with pytest.raises(RequestError, match="--memory-limit"):
        Engine(tiny.text_model(), Capacity(memory=10_000))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_footprint_bounds_what_a_cache_and_reading_a_prompt_take(dtype):
    settings = tiny.text_config()
    model = tiny.build(settings, tiny.weights(settings), dtype)
    footprint = Footprint.of(model, 512)
    assert footprint.weights == sum(p.nbytes for p in admission_module.parameters(model).values())
    with engine_of(model, prefill_step_size=512, prefixes=0) as engine:

        async def ask(asked) -> None:
            await events(engine.submit(asked))

        asyncio.run(ask(request()))
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        asyncio.run(ask(request(prompt=[65] * 1500, max_tokens=300, stop_tokens=frozenset())))
        assert mx.get_peak_memory() - before <= footprint.request(1800) + footprint.scratch


def test_requests_beyond_the_memory_wait_and_get_the_same_answers():
    model = tiny.text_model()
    footprint = Footprint.of(model, STEP)
    two = footprint.weights + footprint.scratch + 2 * footprint.request(CHUNK)
    asked = [request(prompt=(70 + i, 71), max_tokens=30) for i in range(8)]
    most = [0]
    with engine_of(model, memory=two) as engine:

        async def ask() -> list:
            tickets = [engine.submit(one) for one in asked]
            most[0] = 0

            async def listen(ticket):
                found = []
                async for event in ticket:
                    found.append(event)
                    most[0] = max(most[0], engine.metrics()["running"])
                return found

            return await asyncio.gather(*(listen(ticket) for ticket in tickets))

        found = asyncio.run(ask())
        assert most[0] == 2
        assert [answer_of(one) for one in found] == [alone(model, one) for one in asked]
        counts = engine.metrics()
        assert counts["promised_bytes"] == 0 and counts["prefix_bytes"] <= footprint.request(CHUNK)
        with pytest.raises(TooLarge, match="max_tokens"):
            asyncio.run(_submit(engine, request(max_tokens=3000)))


async def _submit(engine, asked):
    return engine.submit(asked)


def test_prefixes_make_room_for_requests():
    model = tiny.text_model()
    footprint = Footprint.of(model, STEP)
    memory = footprint.weights + footprint.scratch + footprint.request(1024)
    with engine_of(model, memory=memory, prefixes=2**30) as engine:

        async def ask(asked):
            return await events(engine.submit(asked))

        asyncio.run(ask(request(prompt=range(200), max_tokens=4)))
        assert engine.metrics()["prefix_bytes"] >= 200 * footprint.token
        large = request(prompt=(80, 81), max_tokens=900, stop_tokens=frozenset())

        async def watch() -> int:
            ticket = engine.submit(large)
            assert (await anext(ticket)).token == alone(model, request(prompt=(80, 81), max_tokens=1))[0][0]
            held = engine.metrics()["prefix_bytes"]
            ticket.cancel()
            await events(ticket)
            return held

        assert asyncio.run(watch()) <= memory - footprint.weights - footprint.scratch - footprint.request(902)


def test_the_machine_names_a_limit():
    assert 2**28 < memory_limit() < 2**50
