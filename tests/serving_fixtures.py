"""Fixtures of the server's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_server import Running, ScriptedEngine, running, write_thinking_checkpoint

from orthrus_mlx import demo_folder, load
from orthrus_mlx.serving.engine import Engine
from orthrus_mlx.serving.service import Limits, Service

# Silence for a test to notice, not for a person.
LIMITS = Limits(keepalive=0.05)


@pytest.fixture(scope="session")
def demo_model() -> Any:
    return load(demo_folder())


@pytest.fixture(scope="session")
def demo(demo_model) -> Iterator[Running]:
    """The demo model, served."""
    service = Service(Engine(demo_model[0]), demo_model[1], ["demo", "default_model"], limits=LIMITS)
    with running(service) as server:
        yield server


@pytest.fixture(scope="session")
def thinking_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_thinking_checkpoint(tmp_path_factory.mktemp("serving") / "thinking")


@pytest.fixture(scope="session")
def thinking_model(thinking_folder) -> Any:
    """A tiny random model whose template knows thoughts and tools."""
    return load(thinking_folder)


@pytest.fixture(scope="session")
def thinking(thinking_model) -> Iterator[Running]:
    """That model, served."""
    service = Service(Engine(thinking_model[0]), thinking_model[1], ["tiny"], limits=LIMITS)
    with running(service) as server:
        yield server


@pytest.fixture
def scripted(thinking_model) -> Iterator[Callable[..., Running]]:
    """scripted(script, gate=..., limits=..., **build_app options): a server whose engine says `script`."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(script, *, gate=None, limits=LIMITS, defaults=None, **options) -> Running:
            say = script if callable(script) else lambda request: script
            engine = ScriptedEngine(thinking_model[1], say, gate=gate)
            service = Service(engine, thinking_model[1], ["tiny", "default_model"], defaults, limits)
            return stack.enter_context(running(service, **options))

        yield start
