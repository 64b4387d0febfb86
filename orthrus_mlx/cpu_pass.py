"""The pass of a block on the CPU: all layers in NumPy, between one way in and one way out.

What it replaces, layer by layer, is `TransformerBlock.parts`: the same arithmetic in float32, with NumPy's order of
sums. MLX's Linux wheel multiplies with a slow BLAS, and each of its operations wakes another thread. Every target pass
of a model runs here or none, prompts included, so a row has the same bits whether it was read or decoded (rule B;
orthrus_mlx.exactness probes it). Rows of the autoregressive view are multiplied one by one; drafts owe nobody their
bits, and their rows are multiplied together.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .cache import KVCache
from .kernels.blas_threads import one_thread
from .kernels.cpu_attention import CHUNK, causal_attention, full_attention
from .kernels.cpu_linear import COPY_LIMIT, Product, library, product_failure, supports
from .kernels.layers import linear_weight
from .kernels.tuning import Timing, timings
from .model import AR, DIFFUSION, Model, OrthrusModel, Part
from .numpy_floats import narrowed, numpy_view, widened
from .trees import depths, paths

MOST_ROWS = 64
"""Rows that go through all layers together: more take memory, and nothing is gained."""

_TIMED_ROWS = (1, 16)

_GROWTH = 1024
"""Rows by which buffers of keys and tables of rotations grow."""


class CpuPass:
    """Runs the parts of a pass, of any length. Built by `cpu_pass`.

    Weights are read once, and again after one of them was replaced.

    Raises:
        NotCovered: a layer has a bias or is of an unknown kind, or other ranks hold a part of it.
    """

    any_length = True

    def __init__(self, model: Model):
        attention = model.layers[0].self_attn
        if model.divided or attention.head_dim % 2:
            raise NotCovered
        # Weak, as the model holds its pass: weights then go with the last reference to the model.
        self._whose = weakref.ref(model)
        self._weights = _Weights(model)
        self._eps = model.args.rms_norm_eps
        self._heads, self._groups, self._size = attention.n_heads, attention.n_kv_heads, attention.head_dim
        self._like = mx.zeros((1, self._groups, 0, self._size), model.model.norm.weight.dtype)
        self._turns = _Turns(attention.rope, self._size)
        # Keys and values of one layer in float32. They belong to who is inside `one_thread`.
        self._seen = np.zeros((2, self._groups, 0, self._size), np.float32)

    @property
    def _model(self) -> Model:
        return cast(Model, self._whose())

    def takes(self, parts: Sequence[Part]) -> bool:
        """True but in training, where a gradient cannot follow into NumPy, or where the model's layers have become
        ones that this pass does not cover."""
        model = self._model
        if model.training:
            return False
        if not self._weights.current:
            try:
                self._weights = _Weights(model)
            except NotCovered:
                model.model.fused = model.fused_head = None
                return False
        return True

    def __call__(self, embedded: mx.array, parts: Sequence[Part]) -> mx.array:
        """Hidden states [1, N, hidden] after the final norm, float32, of embedded ids [1, N, hidden]."""
        with _computing():
            return mx.array(self._hidden(_float32(embedded)[0], parts)[None])

    def logits(
        self, ids: mx.array, parts: Sequence[Part], spans: Sequence[tuple[int, int]], drafts: bool
    ) -> list[mx.array]:
        """Logits [count, V], float32, of `count` rows from `first` on for every (first, count) of `spans`.

        From ids [N] to logits no operation is MLX's: each would wait for another thread, some 30 us of a pass of 1,400.

        Args:
            drafts: whether no row has to keep its bits.
        """
        with _computing():
            hidden = self._hidden(self._embedded(ids), parts)
            kept = [hidden[first : first + count] for first, count in spans]
            multiply = self._weights.head.together if drafts else self._weights.head.one_by_one
            logits = multiply(kept[0] if len(kept) == 1 else np.concatenate(kept))
        ends = accumulate(count for _, count in spans)
        return [mx.array(logits[end - count : end]) for end, (_, count) in zip(ends, spans, strict=True)]

    def _embedded(self, ids: mx.array) -> np.ndarray:
        """Rows float32 [N, hidden] of ids [N]."""
        table = self._weights.embedding
        if table is None:
            return _float32(self._model.model.embed_tokens(ids))
        return widened(table[np.array(ids, copy=False)], np.empty((ids.size, table.shape[1]), np.float32))

    def _hidden(self, h: np.ndarray, parts: Sequence[Part]) -> np.ndarray:
        """Hidden states [N, hidden] after the final norm of embedded ids [N, hidden], which it writes to."""
        for blocks in _side_by_side(parts):
            first, last = blocks[0].start, blocks[-1].stop
            h[first:last] = self._through(h[first:last], blocks, range(len(self._weights.layers[blocks[0].view])))
        return _normed(h, self._weights.norm, self._eps)

    def head(self, hidden: mx.array, drafts: bool = False) -> mx.array:
        """Logits [..., V], float32, of hidden states [..., hidden]; with `drafts` no row has to keep its bits."""
        return _applied(self._weights.head, hidden, drafts)

    def draft_head(self, layer: nn.Module) -> Callable[[mx.array], mx.array] | None:
        """Logits, float32, of `layer`, a head of some of the tokens, where no row has to keep its bits; None where it
        is of another kind than the model's layers."""
        weight = linear_weight(layer)
        if weight is None or not supports(weight):
            return None
        product = Product([weight], self._weights.room)
        return lambda hidden: _applied(product, hidden, True)

    def layer(self, index: int, h: mx.array, part: Part) -> mx.array:
        """Layer `index` alone: hidden states [L, hidden] of a block, float32."""
        rows = _float32(h)
        with _computing():
            return mx.array(self._through(rows, [_Block.of(part)], [index]))

    def product_failure(self) -> str | None:
        """What is wrong with this machine's products of the first layer or of the head; None if nothing."""
        first = self._weights.layers[AR][0]
        products = (first.qkv, first.out, first.gate_up, first.down, self._weights.head)
        return next((reason for product in products if (reason := product_failure(product))), None)

    def _through(self, h: np.ndarray, blocks: Sequence[_Block], layers: Sequence[int]) -> np.ndarray:
        """Hidden states [R, hidden] behind `layers` of the rows of `blocks`, which are of one view."""
        view, eps = blocks[0].view, self._eps
        multiply = Product.one_by_one if view == AR else Product.together
        turns = self._turns.at([position for block in blocks for position in block.positions])
        for index in layers:
            layer = self._weights.layers[view][index]
            x = multiply(layer.qkv, _normed(h, layer.before, eps))
            q, k, v = self._split(x, layer.heads, turns)
            attended, first = [], blocks[0].start
            for block in blocks:
                rows = slice(block.start - first, block.stop - first)
                attended.append(self._attended(index, block, q[rows], k[rows], v[rows]))
            h = h + multiply(layer.out, attended[0] if len(attended) == 1 else np.concatenate(attended))
            x = multiply(layer.gate_up, _normed(h, layer.between, eps))
            gate, up = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
            h += multiply(layer.down, gate / (1 + np.exp(-gate)) * up)
        return h

    def _split(self, x: np.ndarray, norms: np.ndarray, turns: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
        """Queries [R, H, D], scaled, and keys [R, G, D], both normed and turned, and values of x [R, (H + 2 G) D]."""
        R, H, both = len(x), self._heads, self._heads + self._groups
        x = x.reshape(R, -1, self._size)
        halves = _normed(x[:, :both], norms, self._eps).reshape(R, both, 2, -1)
        cosines, sines = turns
        turned = (halves * cosines + halves[:, :, ::-1] * sines).reshape(R, both, -1)
        return turned[:, :H], turned[:, H:], x[:, both:]

    def _attended(self, index: int, block: _Block, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Attention [L, H D] of a block's queries over its cache and its own keys and values, which go to the cache."""
        at, end = block.offset, block.offset + len(q)
        self._make_room(end)
        buffers = block.cache[index].as_numpy(block.reach, self._like)
        for own, buffer, seen in zip((k, v), buffers, self._seen, strict=True):
            narrowed(own.swapaxes(0, 1), buffer[0, :, at:end])
            widened(buffer[0, :, :end], seen[:, :end])
            # Weights of 0 make nothing of what is behind the last key, unless it is not a number.
            seen[:, end : -(-end // CHUNK) * CHUNK] = 0
        keys, values = self._seen
        if block.view == DIFFUSION:
            return full_attention(q, keys[:, :end], values[:, :end])
        if block.parents is None:
            return causal_attention(q, keys, values, at)
        # Each path is attended to as the chain that it is: that gives its nodes a chain's bits.
        attended, rows = np.empty((len(q), q[0].size), np.float32), self._seen[:, :, at:end].copy()
        for path in paths(block.parents):
            self._seen[:, :, at : at + len(path)] = rows[:, :, path]
            attended[path] = causal_attention(q[path], keys, values, at)
        return attended

    def _make_room(self, end: int) -> None:
        _, G, capacity, D = self._seen.shape
        if end > capacity:
            self._seen = np.zeros((2, G, -(-end // _GROWTH) * _GROWTH, D), np.float32)


@dataclass(frozen=True)
class _Block:
    """Rows start .. stop-1 of a pass that go through a layer at once, as `Part` describes them.

    Attributes:
        offset: the position in front of which the cache has been written.
        reach: rows behind the cache's prefix that the part writes, this block's the last of them or not.
    """

    start: int
    stop: int
    view: str
    cache: Sequence[Any]
    parents: tuple[int, ...] | None
    offset: int
    reach: int

    @classmethod
    def of(cls, part: Part, start: int | None = None, stop: int | None = None) -> _Block:
        start, stop = part.start if start is None else start, part.stop if stop is None else stop
        offset = part.cache[0].offset + start - part.start
        return cls(start, stop, part.view, part.cache, part.parents, offset, part.stop - part.start)

    @property
    def positions(self) -> Iterable[int]:
        steps = range(self.stop - self.start) if self.parents is None else depths(self.parents)
        return (self.offset + step for step in steps)


def _side_by_side(parts: Sequence[Part]) -> Iterator[list[_Block]]:
    """The rows of `parts` in the groups that go through the layers one after the other.

    Autoregressive rows keep their bits in any company, and go as many at once as there may be. Drafts go by
    themselves: multiplied together with others, their bits would hang on them.
    """
    waiting: list[_Block] = []
    for part in parts:
        whole = part.view == DIFFUSION or part.parents is not None
        step = part.stop - part.start if whole else MOST_ROWS
        for start in range(part.start, part.stop, step):
            block = _Block.of(part, start, min(start + step, part.stop))
            alone = block.view == DIFFUSION or start > part.start
            if waiting and (alone or waiting[0].view != block.view or block.stop - waiting[0].start > MOST_ROWS):
                yield waiting
                waiting = []
            waiting.append(block)
    if waiting:
        yield waiting


class _Turns:
    """Cosines and sines of rotary embedding by position, as the model's own module has them."""

    def __init__(self, rope: Callable[..., mx.array], size: int):
        self._rope, self._size = rope, size
        self._known = np.empty((2, 0, size // 2), np.float32)

    def at(self, positions: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Of rows at `positions`: what halves [R, heads, 2, D / 2] are multiplied by, and what the other halves are."""
        while max(positions) >= self._known.shape[1]:
            self._learn()
        cosines, sines = self._known[:, positions, None, None]
        return cosines, np.concatenate([-sines, sines], axis=2)

    def _learn(self) -> None:
        known, half = self._known.shape[1], self._size // 2
        # Turned, (1, 0) is (cosine, sine).
        ones = mx.concatenate([mx.ones((1, 1, _GROWTH, half)), mx.zeros((1, 1, _GROWTH, half))], axis=-1)
        turned = _float32(self._rope(ones, offset=known))[0, 0].reshape(_GROWTH, 2, half)
        self._known = np.concatenate([self._known, turned.swapaxes(0, 1)], axis=1)


class _Weights:
    """A model's weights as products.

    Attributes:
        embedding: of a dense one, its rows as `numpy_view` gives them; else None.
        layers: by view.
        room: bytes that are left of `COPY_LIMIT`.
    """

    def __init__(self, model: Model):
        self.room = COPY_LIMIT
        self._read: list[tuple[nn.Module, str, Any]] = []
        self.layers: dict[str, list[_Layer]] = {AR: [], DIFFUSION: []} if model.args.has_diffusion_view else {AR: []}
        for layer in model.layers:
            gate_up = self._product(layer.mlp, "gate_proj", "up_proj")
            down = self._product(layer.mlp, "down_proj")
            before, between = self._norm(layer, "input_layernorm"), self._norm(layer, "post_attention_layernorm")
            for view, layers in self.layers.items():
                attention = layer.self_attn
                qkv = self._product(attention, f"q_proj{view}", f"k_proj{view}", f"v_proj{view}")
                out = self._product(attention, f"o_proj{view}")
                # Scaled here, queries need not be scaled in every pass.
                queries = self._norm(attention, f"q_norm{view}") * np.float32(attention.scale)
                keys = self._norm(attention, f"k_norm{view}")
                heads = np.repeat([queries, keys], [attention.n_heads, attention.n_kv_heads], axis=0)
                layers.append(_Layer(before, qkv, heads, out, between, gate_up, down))
        # See `CpuPass`: these two hold it.
        whole, backbone = cast(Model, weakref.proxy(model)), cast(OrthrusModel, weakref.proxy(model.model))
        self.norm = self._norm(backbone, "norm")
        rows = linear_weight(self._module(backbone, "embed_tokens"))
        self.embedding = numpy_view(rows.w) if rows is not None and rows.scales is None and supports(rows) else None
        tied = model.args.tie_word_embeddings
        self.head = self._product(backbone, "embed_tokens") if tied else self._product(whole, "lm_head")

    @property
    def current(self) -> bool:
        """Whether the model still has what was read."""
        return all(parent.get(name) is value for parent, name, value in self._read)

    def _product(self, parent: nn.Module, *names: str) -> Product:
        weights = [linear_weight(self._module(parent, name)) for name in names]
        known = [weight for weight in weights if weight is not None and supports(weight)]
        if len(known) < len(weights):
            raise NotCovered
        product = Product(known, self.room)
        self.room -= product.copied
        return product

    def _norm(self, parent: nn.Module, name: str) -> np.ndarray:
        return _float32(self._module(parent, name).weight)

    def _module(self, parent: nn.Module, name: str) -> nn.Module:
        found = parent.get(name)
        if found is None:
            raise NotCovered
        self._read += [(parent, name, found), (found, "weight", found.get("weight"))]
        return found


@dataclass(frozen=True)
class _Layer:
    """One layer in one view: norms float32 [hidden], those of heads [H + G, D]."""

    before: np.ndarray
    qkv: Product
    heads: np.ndarray
    out: Product
    between: np.ndarray
    gate_up: Product
    down: Product


class NotCovered(Exception):
    """NumPy's pass does not cover the model."""


@contextmanager
def _computing() -> Iterator[None]:
    # Below -88 exp overflows to infinity, and silu is 0 as it should be. What is not a number shows in the logits.
    with one_thread(), np.errstate(over="ignore", invalid="ignore"):
        yield


def _float32(array: mx.array) -> np.ndarray:
    """A copy."""
    return np.array(array.astype(mx.float32))


def _normed(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """RMSNorm over the last axis; every row is summed by itself."""
    return x * (1 / np.sqrt(np.vecdot(x, x) / x.shape[-1] + eps))[..., None] * weight


def _applied(product: Product, hidden: mx.array, together: bool) -> mx.array:
    rows = _float32(hidden).reshape(-1, hidden.shape[-1])
    with _computing():
        logits = product.together(rows) if together else product.one_by_one(rows)
    return mx.array(logits).reshape(*hidden.shape[:-1], -1)


def cpu_pass(model: Model) -> CpuPass | None:
    """The pass of `model`; None where NumPy's does not cover it."""
    try:
        return CpuPass(model)
    except NotCovered:
        return None


def layer_timings(model: Model, found: CpuPass) -> Timing:
    """Milliseconds of a layer by "numpy" or "stock" and row count, the layers in turn, behind an empty cache.

    Stock MLX with many rows is left out where it has lost with one.
    """
    first, args = model.layers[0], model.args
    weights = linear_weight(first.self_attn.q_proj), linear_weight(first.mlp.gate_proj)
    formats = " ".join(f"{w.shape[0]}x{w.shape[1]} {w.format}" for w in weights if w is not None)
    cache = KVCache(len(model.layers))

    def calls(name: str, rows: int) -> list[Callable[[], mx.array]]:
        h, part = mx.ones((rows, args.hidden_size), model.model.norm.weight.dtype), Part(0, rows, AR, cache)
        if name == "stock":
            return [partial(layer.parts, h[None], [part], i) for i, layer in enumerate(model.layers)]
        return [partial(found.layer, i, h, part) for i in range(len(model.layers))]

    heads = f"{first.self_attn.n_heads}/{first.self_attn.n_kv_heads}x{first.self_attn.head_dim}"
    dtype = str(model.model.norm.weight.dtype).removeprefix("mlx.core.")
    what, ours = f"layer {heads} {formats} {dtype} on {library()}", [("numpy", rows) for rows in _TIMED_ROWS]

    def measured(kinds: list[tuple[str, int]]) -> Timing:
        return timings(what, {f"{name}/{rows}": calls(name, rows) for name, rows in kinds})

    times = measured([*ours, ("stock", 1)])
    if times["stock/1"] > sum(times[f"numpy/{rows}"] for rows in _TIMED_ROWS):
        # More rows can only take longer: a second and more, where MLX multiplies by quantised weights.
        return times
    return measured([*ours, *(("stock", rows) for rows in _TIMED_ROWS)])
