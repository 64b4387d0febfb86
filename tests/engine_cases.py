"""What the tests of the engine share: random requests of every kind, answers alone and together, a small grammar."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import tiny
from mlx_lm.sample_utils import make_logits_processors

from orthrus_mlx.acceleration import accelerate
from orthrus_mlx.generation import stream_generate
from orthrus_mlx.model import Model
from orthrus_mlx.sampling import Sampling
from orthrus_mlx.serving.engine import Capacity, Engine, EngineRequest, Event, Ticket

PATIENCE = 60.0
"""Seconds after which a test gives up waiting; none waits that long unless it fails."""

STOPS = frozenset([tiny.IM_END])
STEP = 16
"""Prompt tokens per pass: prompts of these tests take several."""

Answer = tuple[list[int], str | None]
"""Tokens and how they ended."""


class Thirds:
    """A grammar: the token behind n tokens leaves the remainder n on division by 3; it may end after any of them."""

    def __init__(self, vocabulary: int = tiny.TEXT_VOCABULARY):
        self._length, self._vocabulary = 0, vocabulary

    def allowed(self, drafts: Sequence[int]) -> tuple[int, np.ndarray]:
        fitting = 0
        while fitting < len(drafts) and drafts[fitting] % 3 == (self._length + fitting) % 3:
            fitting += 1
        ids = np.arange(-(-self._vocabulary // 32) * 32)
        rows = []
        for row in range(fitting + 1):
            free = (ids % 3 == (self._length + row) % 3) | (ids == tiny.IM_END)
            rows.append(np.packbits(free.reshape(-1, 32), axis=1, bitorder="little").view(np.uint32)[:, 0])
        return fitting, np.stack(rows)

    def advance(self, tokens: Sequence[int]) -> None:
        self._length += len(tokens)


@functools.cache
def model_on_numpy(seed: int = 0) -> Model:
    """The text model on NumPy's products and attention, which decode with other bits than MLX's."""
    settings = tiny.text_config()
    model = tiny.build(settings, tiny.weights(settings, seed), "bfloat16")
    accelerate(model, "force")
    assert model.kernels.whole == "numpy"
    return model


def text(rng: random.Random, length: int) -> tuple[int, ...]:
    return tuple(rng.randrange(tiny.BYTES) for _ in range(length))


def request(prompt: Sequence[int] = (65, 66, 67), max_tokens: int = 12, **changes: Any) -> EngineRequest:
    sampling = changes.pop("sampling", Sampling())
    return EngineRequest(tuple(prompt), max_tokens, sampling, changes.pop("stop_tokens", STOPS), **changes)


def random_requests(count: int, seed: int, longest: int = 24) -> list[EngineRequest]:
    """Requests of every kind: modes, block sizes, temperatures, filters, processors, grammars; many begin alike."""
    rng = random.Random(seed)
    stems = [text(rng, length) for length in (5, 19, 40, 70)]
    made = []
    for _ in range(count):
        stem = rng.choice(stems)
        prompt = stem[: rng.randint(1, len(stem))] + text(rng, rng.choice((0, 1, 3, 20)))
        temperature = rng.choice((0.0, 0.0, 0.7, 1.3))
        filters = rng.choice(({}, {}, {"top_p": 0.9}, {"top_k": 20}, {"min_p": 0.05})) if temperature else {}
        processors = rng.choice(((), (), ("repetition",), ("bias",)))
        options = {"repetition": {"repetition_penalty": 1.3}, "bias": {"logit_bias": {70: 2.0, 71: -3.0}}}
        made.append(
            request(
                prompt,
                rng.randint(1, longest),
                sampling=Sampling(temperature=temperature, seed=rng.randrange(2**32), **filters),
                mode=rng.choice(("ar", "diffusion", "diffusion", "auto")),
                block_size=rng.choice((None, 2, 5, 16, 32)),
                logits_processors=tuple(p for name in processors for p in make_logits_processors(**options[name])),
                constraint=rng.choice((None, None, None, Thirds)),
                logprobs=rng.choice((0, 0, 2)),
            )
        )
    return made


def alone(model: Model, asked: EngineRequest) -> Answer:
    """What the request gets from `stream_generate`, which knows neither engine nor prefixes."""
    tokens, reason = [], None
    options = asdict(asked.sampling)
    for response in stream_generate(
        model,
        tiny.text_tokenizer(),
        list(asked.prompt),
        asked.max_tokens,
        mode=asked.mode,
        block_size=asked.block_size,
        logits_processors=asked.logits_processors,
        constraint=asked.constraint() if asked.constraint else None,
        **options,
    ):
        tokens.append(response.token)
        reason = response.finish_reason
    return tokens, reason


@contextmanager
def engine_of(model: Model, **capacity: Any) -> Iterator[Engine]:
    """An engine that is closed behind the block."""
    engine = Engine(model, Capacity(**{"prefill_step_size": STEP, **capacity}))
    try:
        yield engine
    finally:
        engine.close(drain=False)


async def events(ticket: Ticket) -> list[Event]:
    async with asyncio.timeout(PATIENCE):
        return [event async for event in ticket]


def answer_of(found: Sequence[Event]) -> Answer:
    return [event.token for event in found if event.token >= 0], found[-1].finish_reason


def together(engine: Engine, asked: Sequence[EngineRequest], clients: int = 32, seed: int = 0) -> list[Answer]:
    """The answers to `asked` where `clients` clients ask at once, each coming at some random moment."""
    rng = random.Random(seed)
    answers: list[Answer | None] = [None] * len(asked)
    queue = iter(range(len(asked)))

    async def client(arrival: int, clock: list[int]) -> None:
        # Time is counted in tokens of all, so that a slow machine sees the same crowd.
        while clock[0] < arrival and clock[1]:
            await asyncio.sleep(0.001)
        for i in queue:
            clock[1] += 1
            found = []
            async for event in engine.submit(asked[i]):
                found.append(event)
                clock[0] += 1
            clock[1] -= 1
            answers[i] = answer_of(found)

    async def all_clients() -> None:
        clock = [0, 0]
        async with asyncio.timeout(20 * PATIENCE):
            await asyncio.gather(*(client(i and rng.randrange(4 * clients), clock) for i in range(clients)))

    asyncio.run(all_clients())
    return [answer for answer in answers if answer is not None]
