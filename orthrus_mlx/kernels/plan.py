"""Which kernels a model uses on this device: what passes the self-test and is not slower than stock MLX.

Losslessness asks for one kernel family per weight at every row count, one-token steps included, so a family is
chosen by its time over the row counts that decoding uses. Stock MLX is timed as rule B would have to use it: on a
GPU each pass padded to one row class, on the CPU as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..errors import RequestError
from . import attention as attention_kernels
from . import cpu_attention, cpu_linear
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
        notes: one line per decision, with times and reasons, for `orthrus-mlx info`.
    """

    linear: Mapping[str, str] = field(default_factory=dict)
    attention: str | None = None
    choice: bool = False
    notes: tuple[str, ...] = ()

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
    """True where there are kernels for the default device: Metal's, or on the CPU NumPy's products."""
    return mx.metal.is_available() or mx.default_device().type == mx.DeviceType.cpu


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
        return Plan(notes=("kernels: none, they are for Metal and for the CPU",))
    metal = mx.metal.is_available()

    classes: dict[str, list[LinearWeight]] = {}
    for weight in weights:
        classes.setdefault(weight_class(weight), []).append(weight)
    linear: dict[str, str] = {}
    notes: list[str] = []
    ours = stock = 0.0
    room = cpu_linear.COPY_LIMIT
    for name, members in classes.items():
        if metal:
            family, spent, stock_spent, note = _choose_linear(name, members, dtype)
        else:
            family, spent, stock_spent, note = _choose_cpu_linear(name, members, dtype, room, mode)
        notes.append(note)
        if family:
            linear[name] = family
            ours += spent * len(members)
            stock += stock_spent * len(members)
            room -= sum(map(cpu_linear.copied_bytes, members))
    if metal:
        attention, spent, stock_spent, note = _choose_attention(shape, dtype)
    else:
        attention, spent, stock_spent, note = _choose_cpu_attention(shape, dtype, mode)
    notes.append(note)
    if not metal:
        return Plan(linear, attention, notes=tuple(notes))
    ours, stock = ours + spent * shape.layers, stock + stock_spent * shape.layers
    failure = choice_failure(dtype)
    notes.append(f"choice of tokens: {'kernel' if failure is None else f'stock MLX: {failure}'}")
    if mode == "auto" and ours >= stock and (linear or attention):
        return Plan(notes=(*notes, f"kernels: none, stock MLX is faster here ({stock:.3g} ms against {ours:.3g} ms)"))
    return Plan(linear, attention, failure is None, tuple(notes))


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

    return _fastest(f"linear {name} {_name(dtype)}", failures, calls, (STOCK_ROWS,) * len(ROWS))


def _choose_cpu_linear(name: str, weights: list[LinearWeight], dtype: mx.Dtype, room: int, mode: str) -> _Decision:
    first = weights[0]
    if not cpu_linear.supports(first, dtype):
        return None, 0, 0, f"linear {name}: stock MLX, NumPy has no such numbers"
    copies = sum(map(cpu_linear.copied_bytes, weights))
    if copies > room:
        size = f"{copies / 1e6:.0f} MB, more than the {max(room, 0) / 1e6:.0f} MB left for them"
        return None, 0, 0, f"linear {name}: stock MLX, float32 copies for NumPy would take {size}"
    columns = [cpu_linear.columns(weight) for weight in weights]
    failures = {family: cpu_linear.tile_failure(columns[0], tile) for family, tile in cpu_linear.FAMILIES.items()}
    inputs = {rows: mx.ones((rows, first.shape[1]), dtype) for rows in ROWS}

    def calls(family: str | None, rows: int) -> list[Callable[[], mx.array]]:
        x = inputs[rows]
        if family is None:
            return [partial(linear_reference, x, weight) for weight in weights]
        return [partial(_product, x, cpu_linear.Product(each, cpu_linear.FAMILIES[family])) for each in columns]

    return _unless_slower(mode, _fastest(f"linear {name} {_name(dtype)}{_on_cpu()}", failures, calls, ROWS))


def _on_cpu() -> str:
    return f" on {cpu_linear.library()}"


def _unless_slower(mode: str, decision: _Decision) -> _Decision:
    """On the CPU every operation is chosen for itself: nothing has to be padded on account of another."""
    family, spent, stock, note = decision
    if family and mode == "auto" and spent >= stock:
        return None, 0, 0, note.replace(f": {family} (", ": stock MLX (", 1)
    return decision


def _product(x: mx.array, weight: cpu_linear.Product) -> mx.array:
    y = cpu_linear.cpu_linear(x, weight)
    assert y is not None
    return y


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

    return _fastest(name, failures, calls, (STOCK_ROWS,) * len(ROWS))


def _choose_cpu_attention(shape: AttentionShape, dtype: mx.Dtype, mode: str) -> _Decision:
    H, G, D = shape.heads, shape.kv_heads, shape.head_dim
    name = f"attention {H}/{G}x{D} {_name(dtype)}{_on_cpu()}"
    if not cpu_attention.supports(H, G, dtype):
        return None, 0, 0, f"{name}: stock MLX, there is no kernel for it"
    failures = {family: attention_failure(family, dtype, D, H // G) for family in cpu_linear.FAMILIES}
    cached = mx.zeros((1, G, _CONTEXT, D), dtype)

    def calls(family: str | None, rows: int) -> list[Callable[[], mx.array]]:
        q, own = mx.zeros((1, H, rows, D), dtype), mx.zeros((1, G, rows, D), dtype)
        args = (q, cached, cached, _CONTEXT, own, own)
        if family is None:
            return [partial(attention_reference, *args, scale=1.0)]
        tile = cpu_linear.FAMILIES[family]
        return [partial(_attended, *args, causal=True, scale=1.0, tile=tile)]

    return _unless_slower(mode, _fastest(name, failures, calls, ROWS))


def _attended(*args: Any, **options: Any) -> mx.array:
    y = cpu_attention.chunked_attention(*args, **options)
    assert y is not None
    return y


def _fastest(
    name: str,
    failures: Mapping[str, str | None],
    calls: Callable[[str | None, int], list[Callable[[], mx.array]]],
    stock_rows: Sequence[int],
) -> _Decision:
    """The fastest family that passed; `stock_rows` are the rows that stock MLX has to compute for `ROWS`."""
    passed = [family for family, failure in failures.items() if failure is None]
    failed = "".join(f"; {family} failed: {failure}" for family, failure in failures.items() if failure)
    if not passed:
        return None, 0, 0, f"{name}: stock MLX{failed}"
    variants = {f"{family}/{rows}": calls(family, rows) for family in passed for rows in ROWS}
    measured = timings(name, {**variants, **{f"stock/{rows}": calls(None, rows) for rows in stock_rows}})
    spent = {family: sum(measured[f"{family}/{rows}"] for rows in ROWS) for family in passed}
    best = min(passed, key=lambda family: spent[family])
    times = ", ".join(f"{variant} rows {ms:.3g} ms" for variant, ms in measured.items())
    return best, spent[best], sum(measured[f"stock/{rows}"] for rows in stock_rows), f"{name}: {best} ({times}){failed}"


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")
