"""The pass of a block on the CUDA kernels: eight launches a layer, no copy of the cache, one trace for all layers.

What it replaces, layer by layer, is `TransformerBlock.parts`: the same arithmetic with the kernels' own order of sums.
Every target pass of a model runs here or none, so that rule B holds between them (orthrus_mlx.exactness probes it).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import mlx.core as mx
import mlx.nn as nn

from .cache import KVCache
from .config import MAX_BLOCK_SIZE
from .kernels import LinearWeight, cuda
from .kernels.layers import linear_weight
from .model import AR, DIFFUSION, Model, Part, TransformerBlock
from .trees import depths, paths

_Arrays = tuple[mx.array, ...]

_QUEUED_LAYERS = 4
"""Layers between two hand-overs to the device, which works on them while the host prepares the next ones."""


class FusedPass:
    """Runs the parts of a pass, one after the other. Built by `fused_pass`."""

    any_length = False

    def __init__(self, model: Model, layers: dict[str, list[_Layer]], head: LinearWeight):
        attention = model.layers[0].self_attn
        self._backbone = model.model
        self._layers, self._head = layers, head
        exponents = mx.arange(0, 1, 2 / attention.head_dim, dtype=mx.float32)
        frequencies = attention.rope.scale * mx.power(attention.rope.base, -exponents)
        self._shared = (frequencies, _on_device(cuda.settings(model.args.rms_norm_eps, attention.scale)))
        # An offset is a slice of this: an array made from Python would stay in the host's memory, and every kernel
        # that reads it would wait for the bus.
        self._positions = mx.arange(model.args.context_length + cuda.MAX_ROWS, dtype=mx.int32)
        mx.eval(self._shared, self._positions)

    def takes(self, parts: Sequence[Part]) -> bool:
        """Whether `parts` are for the kernels: longer ones are prompts, which MLX reads faster."""
        return all(part.stop - part.start <= MAX_BLOCK_SIZE for part in parts)

    def __call__(self, embedded: mx.array, parts: Sequence[Part]) -> mx.array:
        """Hidden states [1, N, hidden] after the final norm, of embedded ids [1, N, hidden]."""
        rows = embedded[0]
        blocks = [self._part(rows[part.start : part.stop] if len(parts) > 1 else rows, part) for part in parts]
        return (blocks[0] if len(blocks) == 1 else mx.concatenate(blocks))[None]

    def head(self, hidden: mx.array, drafts: bool = False) -> mx.array:
        """Logits [..., V] of hidden states [..., hidden], whether of `drafts` or not."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        groups = [rows[i : i + cuda.MAX_ROWS] for i in range(0, rows.shape[0], cuda.MAX_ROWS)]
        logits = [cuda.linear(group, self._head) for group in groups]
        return (logits[0] if len(logits) == 1 else mx.concatenate(logits)).reshape(*hidden.shape[:-1], -1)

    def layer(self, index: int, h: mx.array, part: Part) -> mx.array:
        """Layer `index` alone: hidden states [L, hidden] of a block."""
        layer = self._layers[part.view][index]
        return layer(h, self._where(part, h.shape[0]), part.cache[index].in_place(h.shape[0], layer.like), self._shared)

    def _part(self, h: mx.array, part: Part) -> mx.array:
        L = h.shape[0]
        where = self._where(part, L)
        for i, (layer, stored) in enumerate(zip(self._layers[part.view], part.cache, strict=True), start=1):
            h = layer(h, where, stored.in_place(L, layer.like), self._shared)
            if i % _QUEUED_LAYERS == 0:
                mx.async_eval(h)
        h = self._backbone.norm(h)
        part.cache[0].written(h)
        return h

    def _where(self, part: Part, L: int) -> _Arrays:
        start = part.cache[0].offset
        return self._positions[start : start + 1], *_geometry(part.parents or tuple(range(-1, L - 1)))


class _Layer:
    """One layer in one view."""

    def __init__(self, layer: TransformerBlock, view: str, eps: float):
        attention, mlp = layer.self_attn, layer.mlp
        linears = [
            _weight(attention, f"qkv_proj{view}"),
            _weight(attention, f"o_proj{view}"),
            _weight(mlp, "gate_up_proj"),
            _weight(mlp, "down_proj"),
        ]
        norms = (
            layer.input_layernorm.weight,
            attention[f"q_norm{view}"].weight,
            attention[f"k_norm{view}"].weight,
            layer.post_attention_layernorm.weight,
        )
        dtype = norms[0].dtype
        if any(norm.dtype != dtype for norm in norms) or not all(cuda.supports(w, dtype) for w in linears):
            raise _NotCovered
        self._weights = [norms, *(tuple(a for a in (w.w, w.scales, w.biases) if a is not None) for w in linears)]
        self._run = _compiled(tuple((w.group_size, w.bits) for w in linears), view == AR, eps)
        self.like = mx.zeros((1, attention.n_kv_heads, 0, attention.head_dim), dtype)

    def __call__(self, h: mx.array, where: _Arrays, stored: _Arrays, shared: _Arrays) -> mx.array:
        return self._run(h, where, stored, shared, self._weights)


@cache
def _compiled(formats: tuple[tuple[int, int], ...], causal: bool, eps: float) -> Callable[..., mx.array]:
    """A layer as a function of its weights, so that one trace serves all layers."""

    def layer(h: mx.array, where: _Arrays, stored: _Arrays, shared: _Arrays, weights: list[_Arrays]) -> mx.array:
        (offset, below, ways), (keys, values), (frequencies, constants) = where, stored, shared
        (before, query_norm, key_norm, between), *arrays = weights
        qkv, out, gate_up, down = (_rebuilt(a, *form) for a, form in zip(arrays, formats, strict=True))
        x = cuda.linear(mx.fast.rms_norm(h, before, eps), qkv)
        queries = cuda.rotate(x, query_norm, key_norm, frequencies, constants, below, offset, keys, values)
        attended = cuda.attention(queries, keys, values, ways, offset, constants, causal=causal)
        h = cuda.linear(attended, out, residual=h)
        x = cuda.linear(mx.fast.rms_norm(h, between, eps), gate_up, gated=True)
        return cuda.linear(x, down, residual=h)

    return mx.compile(layer)


def _rebuilt(arrays: _Arrays, group_size: int, bits: int) -> LinearWeight:
    scales, biases = arrays[1:] if len(arrays) == 3 else (None, None)
    return LinearWeight(arrays[0], scales, biases, group_size, bits)


@lru_cache(maxsize=256)
def _geometry(parents: tuple[int, ...]) -> tuple[mx.array, mx.array]:
    """(the rows' depths [L], their paths [P, S]) on the device."""
    ways = paths(parents)
    longest = max(map(len, ways))
    padded = [way + [-1] * (longest - len(way)) for way in ways]
    arrays = _on_device(mx.array(depths(parents), dtype=mx.int32)), _on_device(mx.array(padded, dtype=mx.int32))
    mx.eval(arrays)
    return arrays


def _on_device(a: mx.array) -> mx.array:
    """What an operation computes lies in the device's memory; see `FusedPass`."""
    return a + mx.zeros_like(a)


class _NotCovered(Exception):
    pass


def _weight(parent: nn.Module, name: str) -> LinearWeight:
    weight = linear_weight(parent[name]) if name in parent else None
    if weight is None:
        raise _NotCovered
    return weight


def fused_pass(model: Model) -> FusedPass | None:
    """The pass of `model`, once packed (`acceleration.pack`); None where the kernels do not cover it."""
    attention = model.layers[0].self_attn
    if type(attention.rope) is not nn.RoPE or attention.head_dim not in (64, 128):
        return None
    views = (AR, DIFFUSION) if model.args.has_diffusion_view else (AR,)
    head = model.model.embed_tokens if model.args.tie_word_embeddings else model.lm_head
    try:
        layers = {view: [_Layer(layer, view, model.args.rms_norm_eps) for layer in model.layers] for view in views}
    except _NotCovered:
        return None
    weight = linear_weight(head)
    if weight is None or not cuda.supports(weight, model.model.norm.weight.dtype):
        return None
    return FusedPass(model, layers, weight)


_TIMED_ROWS = (1, 16)


def fused_timings(model: Model, fused: FusedPass) -> tuple[dict[int, float], dict[int, float]]:
    """Milliseconds of a pass by rows, on the kernels and on MLX: the best of a few, behind a short text."""
    found: list[dict[int, float]] = []
    for candidate in (fused, None):
        model.model.fused = candidate
        times = {}
        for rows in _TIMED_ROWS:
            store = KVCache(len(model.layers))
            ids = mx.zeros((rows,), dtype=mx.int32)
            seconds = []
            for _ in range(6):
                start = time.perf_counter()
                mx.eval(model.model.parts(ids, [Part(0, rows, AR, store)]))
                seconds.append(time.perf_counter() - start)
            times[rows] = 1e3 * min(seconds)
        found.append(times)
    model.model.fused = None
    return found[0], found[1]
