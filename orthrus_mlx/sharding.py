"""Tensor parallelism inside a layer: what of a weight a rank keeps, and how the ranks' parts of a sum are added."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from .config import ModelArgs
from .errors import ConfigError

ROWS, COLUMNS = 0, -1
"""The axis a weight [out, in] is divided along: its outputs (q, k, v, gate, up) or its inputs (o, down)."""


def check_divisible(args: ModelArgs, ranks: int) -> None:
    """Refuse a number of ranks that heads or the MLP cannot be divided by. Raises ConfigError."""
    for what, size in (
        ("attention heads", args.num_attention_heads),
        ("key/value heads", args.num_key_value_heads),
        ("MLP columns", args.intermediate_size),
    ):
        if size % ranks:
            raise ConfigError(f"{size} {what} cannot be divided over {ranks} ranks; start a number that divides {size}")


def keep_part(linear: nn.Module, axis: int, rank: int, ranks: int) -> None:
    """Cut every parameter of a linear layer without a bias, quantised or not, down to `rank`'s part, in place.

    Raises:
        ConfigError: the cut would go through a quantisation group.
    """
    if axis == COLUMNS and "scales" in linear and linear["scales"].shape[-1] % ranks:
        groups = linear["scales"].shape[-1]
        raise ConfigError(
            f"{groups} quantisation groups of {linear.group_size} columns cannot be divided over {ranks} ranks; "
            "start fewer, or convert with smaller groups"
        )
    for name, parameter in linear.parameters().items():
        linear[name] = mx.split(parameter, ranks, axis)[rank]


def summed(x: mx.array, group: mx.distributed.Group | None) -> mx.array:
    """The sum of every rank's `x`, in the order of the ranks whatever the shape; `x` itself where there is one rank.

    MLX's ring reduces a buffer in as many pieces as there are ranks, each beginning at another rank: with three
    ranks or more the bits of a row would depend on where in the buffer, and in how large a pass, it stands (rule B).
    Two numbers have one sum, whichever comes first.
    """
    if group is None or group.size() == 1:
        return x
    if group.size() == 2:
        return mx.distributed.all_sum(x, group=group)
    parts = mx.distributed.all_gather(x[None], group=group).astype(mx.float32)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total.astype(x.dtype)
