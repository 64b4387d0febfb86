"""The pass of a block on the CUDA kernels: all layers in one launch, no copy of the cache.

What it replaces, layer by layer, is `TransformerBlock.parts`: the same arithmetic with the kernels' own order of sums.
Every target pass of a model runs here or none, so that rule B holds between them (orthrus_mlx.exactness probes it).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache, lru_cache

import mlx.core as mx
import mlx.nn as nn

from .cache import KVCache
from .config import MAX_BLOCK_SIZE
from .kernels import LinearWeight, cuda
from .kernels.layers import linear_weight
from .model import AR, DIFFUSION, Model, Part, TransformerBlock
from .trees import depths, paths


class FusedPass:
    """Runs the parts of a pass, one after the other. Built by `fused_pass`."""

    any_length = False

    def __init__(
        self, model: Model, shape: cuda.LayerShape, layers: dict[str, list[_LayerWeights]], head: LinearWeight
    ):
        attention = model.layers[0].self_attn
        self._backbone = model.model
        self._shape, self._head = shape, head
        self._arrays = {view: [cuda.layer_arrays(*layer) for layer in weights] for view, weights in layers.items()}
        self._group = cuda.layers_per_launch(len(model.layers), len(self._arrays[AR][0]))
        eps, scale = model.args.rms_norm_eps, attention.scale
        self._constants = {
            (view, count): _on_device(cuda.settings(eps, scale, view == AR, count))
            for view in layers
            for count in range(1, self._group + 1)
        }
        exponents = mx.arange(0, 1, 2 / attention.head_dim, dtype=mx.float32)
        self._frequencies = attention.rope.scale * mx.power(attention.rope.base, -exponents)
        self._like = mx.zeros((1, attention.n_kv_heads, 0, attention.head_dim), model.model.norm.weight.dtype)
        # An offset is a slice of this: an array made from Python would stay in the host's memory, and every kernel
        # that reads it would wait for the bus.
        self._positions = mx.arange(model.args.context_length + cuda.MAX_ROWS, dtype=mx.int32)
        mx.eval(self._arrays, list(self._constants.values()), self._frequencies, self._positions)

    def takes(self, parts: Sequence[Part]) -> bool:
        """Whether `parts` are for the kernels: longer ones are prompts, which MLX reads faster, and in training a
        gradient cannot follow into them."""
        return not self._backbone.training and all(part.stop - part.start <= MAX_BLOCK_SIZE for part in parts)

    def __call__(self, embedded: mx.array, parts: Sequence[Part]) -> mx.array:
        """Hidden states [1, N, hidden] after the final norm, of embedded ids [1, N, hidden]."""
        rows = embedded[0]
        blocks = [self._part(rows[part.start : part.stop] if len(parts) > 1 else rows, part) for part in parts]
        return self._backbone.norm(blocks[0] if len(blocks) == 1 else mx.concatenate(blocks))[None]

    def head(self, hidden: mx.array, drafts: bool = False) -> mx.array:
        """Logits [..., V] of hidden states [..., hidden], whether of `drafts` or not."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        groups = [rows[i : i + cuda.MAX_ROWS] for i in range(0, rows.shape[0], cuda.MAX_ROWS)]
        logits = [cuda.linear(group, self._head) for group in groups]
        return (logits[0] if len(logits) == 1 else mx.concatenate(logits)).reshape(*hidden.shape[:-1], -1)

    def layer(self, index: int, h: mx.array, part: Part) -> mx.array:
        """Layer `index` alone: hidden states [L, hidden] of a block."""
        stored = part.cache[index].in_place(h.shape[0], self._like)
        return self._run(h, part, [self._arrays[part.view][index]] * self._group, [stored] * self._group, 1)

    def _part(self, h: mx.array, part: Part) -> mx.array:
        stored = [layer.in_place(h.shape[0], self._like) for layer in part.cache]
        for start in range(0, len(stored), self._group):
            group = slice(start, start + self._group)
            h = self._run(h, part, self._arrays[part.view][group], stored[group], len(stored[group]))
        return h

    def _run(
        self,
        h: mx.array,
        part: Part,
        arrays: Sequence[Sequence[mx.array]],
        stored: Sequence[tuple[mx.array, mx.array]],
        count: int,
    ) -> mx.array:
        """The first `count` of the layers that are given."""
        start = part.cache[0].offset
        depths, paths = _geometry(part.parents or tuple(range(-1, h.shape[0] - 1)))
        return cuda.layers(
            h,
            self._shape,
            arrays,
            stored,
            paths=paths,
            depths=depths,
            offset=self._positions[start : start + 1],
            frequencies=self._frequencies,
            constants=self._constants[part.view, count],
            turns=_turns(),
        )


@cache
def _turns() -> cuda.Turns:
    return cuda.Turns()


_LayerWeights = tuple[list[LinearWeight], list[mx.array]]


def _weights(layer: TransformerBlock, view: str) -> _LayerWeights:
    """A layer's weights and norms in a view, in the order of `cuda.layer_arrays`."""
    attention, mlp = layer.self_attn, layer.mlp
    weights = [
        _weight(attention, f"qkv_proj{view}"),
        _weight(attention, f"o_proj{view}"),
        _weight(mlp, "gate_up_proj"),
        _weight(mlp, "down_proj"),
    ]
    norms = [
        layer.input_layernorm.weight,
        attention[f"q_norm{view}"].weight,
        attention[f"k_norm{view}"].weight,
        layer.post_attention_layernorm.weight,
    ]
    dtype = norms[0].dtype
    if any(norm.dtype != dtype for norm in norms) or not all(cuda.supports(w, dtype) for w in weights):
        raise _NotCovered
    return weights, norms


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
    """`a` in the device's memory: what an operation computes lies there, if it has more than 8 bytes."""
    flat = mx.concatenate([a.reshape(-1), mx.zeros((8,), a.dtype)])
    return flat[: a.size].reshape(a.shape)


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
        layers = {view: [_weights(layer, view) for layer in model.layers] for view in views}
    except _NotCovered:
        return None
    weight = linear_weight(head)
    formats = {_format(w) for rows in layers.values() for weights, _ in rows for w in weights}
    if weight is None or not cuda.supports(weight, model.model.norm.weight.dtype) or len(formats) > 1:
        return None
    bits, group_size = formats.pop()
    shape = cuda.LayerShape(
        model.args.hidden_size,
        layers[AR][0][0][3].shape[1],
        attention.n_heads,
        attention.n_kv_heads,
        attention.head_dim,
        bits,
        group_size,
    )
    return FusedPass(model, shape, layers, weight)


def _format(weight: LinearWeight) -> tuple[int, int]:
    return (0, 0) if weight.scales is None else (weight.bits, weight.group_size)


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
