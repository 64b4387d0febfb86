"""From `--model` to a loaded model, with signs of life while it loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import distributed
from ..errors import CheckpointError, RequestError
from ..exactness import exactness_of
from ..hub import resolve
from ..loading import demo_folder, load
from ..model import Model
from .options import REAL_MODEL
from .progress import spinner


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer; `name` is what the user called it, `ranks` how many processes hold it."""

    model: Model
    tokenizer: Any
    name: str
    ranks: int = 1


def model_folder(name: str | None, revision: str | None) -> Path:
    """The folder of the model called `name`, downloaded if need be; None is the demo model.

    Raises:
        CheckpointError: there is no such model.
        RequestError: a revision of the demo model.
    """
    if name is not None:
        return resolve(name, revision)
    if revision is not None:
        raise RequestError("--revision needs --model: the demo model has none")
    folder = demo_folder()
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: the demo model is not there; give a model, as in --model {REAL_MODEL}")
    return folder


def open_model(name: str | None, revision: str | None) -> LoadedModel:
    """Load the model and probe its exactness. Under `mlx.launch` only rank 0 returns: the others follow it and exit."""
    ranks = distributed.join()
    shown = name or "demo"
    with spinner(f"Loading {shown}"):
        if ranks is None:
            model, tokenizer = load(model_folder(name, revision))
        else:
            source = model_folder(None, revision) if name is None else name
            model, tokenizer = distributed.load(source, ranks, revision=revision)
    with spinner("Comparing the bits of passes of different widths"):
        exactness_of(model)
    return LoadedModel(model, tokenizer, shown, 1 if ranks is None else ranks.size)
