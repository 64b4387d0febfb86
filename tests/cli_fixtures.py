"""Fixtures of the command-line tests: checkpoints made once a run, and a child's environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_models import write_checkpoint


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, both views."""
    return write_checkpoint(tmp_path_factory.mktemp("cli") / "random")


@pytest.fixture(scope="session")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says "hello" for ever and drafts it too."""
    return write_checkpoint(tmp_path_factory.mktemp("cli") / "parrot", says="hello")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a child process: nothing of the caller's terminal settings, state in a folder of its own."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", "COLUMNS", "XDG_STATE_HOME")}
    state = tmp_path_factory.mktemp("state")
    return kept | {
        "MLX_DISABLE_COMPILE": "1",
        "TERM": "xterm",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "XDG_STATE_HOME": str(state),
        "PYTHONUNBUFFERED": "1",
    }
