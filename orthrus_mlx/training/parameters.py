"""A model's weights as one flat dictionary, the form training works on."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from ..model import Model

Parameters = dict[str, mx.array]


def flat_parameters(model: Model) -> Parameters:
    """Every weight by its checkpoint name."""
    return cast(Parameters, tree_flatten(model.parameters(), destination={}))


def load_parameters(model: Model, parameters: Parameters, convert: Callable[[mx.array], mx.array]) -> None:
    """Put `parameters` (all of the model's or some) into the model, each through `convert`."""
    model.update(tree_unflatten([(k, convert(v)) for k, v in parameters.items()]))
