"""Which kernels a model uses on this device: what passes the self-test and is not slower than stock MLX.

Losslessness asks for one kernel family per weight at every row count, one-token steps included, so a family is
chosen by its time over the row counts that decoding uses. Stock MLX is timed as rule B would have to use it, each
pass padded to one row class.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..errors import RequestError
from . import attention as attention_kernels
from . import linear as linear_kernels
from .attention import attention_reference, block_attention
from .layers import linear_weight, with_kernels
from .linear import LinearWeight, block_linear, linear_reference
from .self_test import attention_failure, choice_failure, linear_failure
from .tuning import timings

MODES = ("auto", "off", "force")
ROWS = (1, 16)
"""Row counts that weigh equally in a choice: a one-token step and a pass of a typical block."""

STOCK_ROWS = 16
"""The row class of stock MLX passes (facts of MLX 0.32.4: one kernel plan from 16 rows to 32)."""

_CONTEXT = 1024
"""Cached rows at which attention is timed."""


@dataclass(frozen=True)
class AttentionShape:
    """Query heads, key/value heads and head_dim of a model's attention, and how many layers have it."""

    heads: int
    kv_heads: int
    head_dim: int
    layers: int = 1


@dataclass(frozen=True)
class Plan:
    """The choice for one model.

    Attributes:
        linear: kernel family by weight class ("4096x2048 affine4g64"); absent means stock MLX.
        attention: kernel family, or None for stock MLX. Names as in `linear`.
        choice: True if tokens are chosen and verified by the kernels.
        whole: what takes passes through all layers instead: "cuda" (`orthrus_mlx.fused_pass`), "numpy"
            (`orthrus_mlx.cpu_pass`), or None for the layers themselves.
        notes: one line per decision, with times and reasons, for `orthrus-mlx info`.
    """

    linear: Mapping[str, str] = field(default_factory=dict)
    attention: str | None = None
    choice: bool = False
    whole: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> tuple[Any, ...]:
        """All that decides the bits of a pass and its time: what is kept on disk about either hangs on it."""
        return sorted(self.linear.items()), self.attention, self.choice, self.whole

    def attend(self) -> Callable[..., mx.array] | None:
        """`block_attention` in the chosen family, or None."""
        return None if self.attention is None else partial(block_attention, family=self.attention)

    def install(self, model: nn.Module) -> None:
        """Replace the linear layers of `model` that have a family by ones that use it, in place."""
        replaced = []
        for name, module in model.named_modules():
            weight = linear_weight(module)
            family = self.linear.get(weight_class(weight)) if weight else None
            if family:
                replaced.append((name, with_kernels(module, family)))
        model.update_modules(tree_unflatten(replaced))


def weight_class(weight: LinearWeight) -> str:
    """Names the weights that one decision is for: "4096x2048 affine4g64"."""
    N, K = weight.shape
    return f"{N}x{K} {weight.format}"


def available() -> bool:
    """True where the Metal kernels can run."""
    return mx.metal.is_available()


def requested_mode(mode: str | None = None) -> str:
    """`mode`, else `$ORTHRUS_KERNELS`, else "auto".

    Raises:
        RequestError: it is none of "auto", "off", "force".
    """
    origin, value = ("kernels", mode) if mode is not None else ("ORTHRUS_KERNELS", os.environ.get("ORTHRUS_KERNELS"))
    if not value:
        return "auto"
    if value not in MODES:
        raise RequestError(f"{origin} must be one of {', '.join(MODES)}, not {value!r}")
    return value


def model_weights(model: nn.Module, *, tied_head: bool) -> list[LinearWeight]:
    """The weights of every layer of `model` that could run on the kernels.

    Args:
        tied_head: True where the embedding is the head as well.
    """
    layers = [m for m in model.modules() if tied_head or not isinstance(m, (nn.Embedding, nn.QuantizedEmbedding))]
    return [weight for weight in map(linear_weight, layers) if weight is not None]


def make_plan(weights: Iterable[LinearWeight], shape: AttentionShape, dtype: mx.Dtype, mode: str | None = None) -> Plan:
    """Choose kernels for a model with these linear `weights` and attention `shape`, computing in `dtype`.

    Args:
        mode: "auto" uses kernels that pass the self-test where they beat stock MLX; "force" where they pass; "off"
            none. None reads `$ORTHRUS_KERNELS`.
    """
    mode = requested_mode(mode)
    if mode == "off":
        return Plan(notes=("kernels: off by request",))
    if not available():
        return Plan(notes=("kernels: none for this device",))
    classes: dict[str, list[LinearWeight]] = {}
    for weight in weights:
        classes.setdefault(weight_class(weight), []).append(weight)
    linear: dict[str, str] = {}
    notes: list[str] = []
    ours = stock = 0.0
    for name, members in classes.items():
        family, spent, stock_spent, note = _choose_linear(name, members, dtype)
        notes.append(note)
        if family:
            linear[name] = family
            ours += spent * len(members)
            stock += stock_spent * len(members)
    attention, spent, stock_spent, note = _choose_attention(shape, dtype)
    notes.append(note)
    ours, stock = ours + spent * shape.layers, stock + stock_spent * shape.layers
    failure = choice_failure(dtype)
    notes.append(f"choice of tokens: {'kernel' if failure is None else f'stock MLX: {failure}'}")
    if mode == "auto" and ours >= stock and (linear or attention):
        return Plan(notes=(*notes, f"kernels: none, stock MLX is faster here ({stock:.3g} ms against {ours:.3g} ms)"))
    return Plan(linear, attention, failure is None, notes=tuple(notes))


_Decision = tuple[str | None, float, float, str]
"""Family, its milliseconds over `ROWS`, stock MLX's, and a line for the report."""


def _choose_linear(name: str, weights: list[LinearWeight], dtype: mx.Dtype) -> _Decision:
    first = weights[0]
    if not linear_kernels.supports(first, dtype):
        return None, 0, 0, f"linear {name}: stock MLX, there is no kernel for it"
    variant = (dtype, first.scales is not None, first.shape[1] % 8 == 0, first.group_size, first.bits, first.mode)
    failures = {family: linear_failure(family, *variant) for family in linear_kernels.FAMILIES}
    inputs = {rows: mx.ones((rows, first.shape[1]), dtype) for rows in {*ROWS, STOCK_ROWS}}

    def calls(family: str | None, rows: int) -> list[Callable[[], mx.array]]:
        x = inputs[rows]
        if family is None:
            return [partial(linear_reference, x, weight) for weight in weights]
        return [partial(block_linear, x, weight, family) for weight in weights]

    return _fastest(f"linear {name} {_name(dtype)}", failures, calls)


def _choose_attention(shape: AttentionShape, dtype: mx.Dtype) -> _Decision:
    H, G, D = shape.heads, shape.kv_heads, shape.head_dim
    name = f"attention {H}/{G}x{D} {_name(dtype)}"
    if not attention_kernels.supports(H, G, D, dtype, 1):
        return None, 0, 0, f"{name}: stock MLX, there is no kernel for it"
    failures = {family: attention_failure(family, dtype, D, H // G) for family in attention_kernels.FAMILIES}
    cached = mx.zeros((1, G, _CONTEXT, D), dtype)

    def calls(family: str | None, rows: int) -> list[Callable[[], mx.array]]:
        q, own = mx.zeros((1, H, rows, D), dtype), mx.zeros((1, G, rows, D), dtype)
        args = (q, cached, cached, _CONTEXT, own, own)
        if family is None:
            return [partial(attention_reference, *args, scale=1.0)]
        return [partial(block_attention, *args, scale=1.0, family=family)]

    return _fastest(name, failures, calls)


def _fastest(
    name: str, failures: Mapping[str, str | None], calls: Callable[[str | None, int], list[Callable[[], mx.array]]]
) -> _Decision:
    """The fastest family that passed; stock MLX has to compute `STOCK_ROWS` rows for any of `ROWS`."""
    passed = [family for family, failure in failures.items() if failure is None]
    failed = "".join(f"; {family} failed: {failure}" for family, failure in failures.items() if failure)
    if not passed:
        return None, 0, 0, f"{name}: stock MLX{failed}"
    variants = {f"{family}/{rows}": calls(family, rows) for family in passed for rows in ROWS}
    measured = timings(name, {**variants, f"stock/{STOCK_ROWS}": calls(None, STOCK_ROWS)})
    spent = {family: sum(measured[f"{family}/{rows}"] for rows in ROWS) for family in passed}
    best = min(passed, key=lambda family: spent[family])
    times = ", ".join(f"{variant} rows {ms:.3g} ms" for variant, ms in measured.items())
    stock = len(ROWS) * measured[f"stock/{STOCK_ROWS}"]
    return best, spent[best], stock, f"{name}: {best} ({times}){failed}"


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")
