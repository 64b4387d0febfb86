"""Qwen3 with two attention views over one KV cache (Orthrus, arXiv 2605.12825, section 3).

The autoregressive (AR) view is plain Qwen3: causal attention, keys and values go to the cache. The diffusion
view has its own attention weights (`*_diff`) in every layer and shares all else; a block's rows attend to the
cached prefix and to each other in both directions. Neither view knows how its rows are used: that is decoding.

Shapes: B batch, L rows, H query heads, G key/value heads, D head_dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.activations import swiglu
from mlx_lm.models.base import create_attention_mask, scaled_dot_product_attention
from mlx_lm.models.rope_utils import initialize_rope

from .config import ModelArgs
from .draft_vocabulary import DraftVocabulary
from .sharding import COLUMNS, ROWS, check_divisible, keep_part, summed
from .trees import depths, paths
from .weights import AR, DIFFUSION


@dataclass(frozen=True)
class Part:
    """Rows start .. stop-1 of a pass: a block of one sequence, which attends to that sequence's cache and to itself.

    Attributes:
        view: the rows' view. Autoregressive rows see the block's earlier rows, diffusion rows all of them.
        cache: the sequence's cache, an entry per layer.
        parents: of a tree of autoregressive rows, parents[i] < i, the root's is -1; a row sees its ancestors and
            stands at its depth behind the prefix. None for a chain.
        rows: the row count at which attention has to run for rule B (orthrus_mlx.exactness); None for any.
    """

    start: int
    stop: int
    view: str
    cache: Sequence[Any]
    parents: tuple[int, ...] | None = None
    rows: int | None = None


class Attention(nn.Module):
    block_attention: Callable[..., mx.array] | None = None
    """A kernel for the parts of a pass (`orthrus_mlx.acceleration`); None is stock MLX."""

    group: mx.distributed.Group | None = None
    """The ranks that each hold some of the heads; None holds them all."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        dim, head_dim = args.hidden_size, args.head_dim
        self.head_dim = head_dim
        self.n_heads = args.num_attention_heads
        self.n_kv_heads = args.num_key_value_heads
        self.scale = head_dim**-0.5
        for view in (AR, DIFFUSION) if args.has_diffusion_view else (AR,):
            self[f"q_proj{view}"] = nn.Linear(dim, self.n_heads * head_dim, bias=False)
            self[f"k_proj{view}"] = nn.Linear(dim, self.n_kv_heads * head_dim, bias=False)
            self[f"v_proj{view}"] = nn.Linear(dim, self.n_kv_heads * head_dim, bias=False)
            self[f"o_proj{view}"] = nn.Linear(self.n_heads * head_dim, dim, bias=False)
            self[f"q_norm{view}"] = nn.RMSNorm(head_dim, eps=args.rms_norm_eps)
            self[f"k_norm{view}"] = nn.RMSNorm(head_dim, eps=args.rms_norm_eps)
        self.rope = initialize_rope(
            head_dim,
            base=args.rope_theta,
            traditional=False,
            scaling_config=args.rope_scaling,
            max_position_embeddings=args.max_position_embeddings,
        )

    def qkv(self, x: mx.array, offset: Any, view: str) -> tuple[mx.array, mx.array, mx.array]:
        """Queries [B, H, L, D], keys and values [B, G, L, D] of `x` [B, L, hidden], rotated to position `offset`.

        `offset` is an int, or an int array [B] with one first position per batch row.
        """
        q, k, v = self.project(x, view)
        return self.rope(q, offset=offset), self.rope(k, offset=offset), v

    def project(self, x: mx.array, view: str) -> tuple[mx.array, mx.array, mx.array]:
        """Queries [B, H, L, D], keys and values [B, G, L, D] of `x` [B, L, hidden], not rotated yet."""
        B, L, _ = x.shape
        if f"qkv_proj{view}" in self:
            split = self.n_heads * self.head_dim, (self.n_heads + self.n_kv_heads) * self.head_dim
            q, k, v = mx.split(self[f"qkv_proj{view}"](x), split, axis=-1)
        else:
            q, k, v = (self[f"{name}_proj{view}"](x) for name in "qkv")
        v = v.reshape(B, L, self.n_kv_heads, -1)
        q = self[f"q_norm{view}"](q.reshape(B, L, self.n_heads, -1)).transpose(0, 2, 1, 3)
        k = self[f"k_norm{view}"](k.reshape(B, L, self.n_kv_heads, -1)).transpose(0, 2, 1, 3)
        return q, k, v.transpose(0, 2, 1, 3)

    def output(self, attended: mx.array, view: str) -> mx.array:
        """[B, H, L, D] -> [B, L, hidden]."""
        B, _, L, _ = attended.shape
        return summed(self[f"o_proj{view}"](attended.transpose(0, 2, 1, 3).reshape(B, L, -1)), self.group)

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None, view: str = AR) -> mx.array:
        q, k, v = self.qkv(x, cache.offset if cache is not None else 0, view)
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)
        attended = scaled_dot_product_attention(q, k, v, cache=cache, scale=self.scale, mask=mask)
        return self.output(attended, view)

    def parts(self, x: mx.array, parts: Sequence[Part], layer: int) -> mx.array:
        """The same for the rows [1, N, hidden] of a pass: `parts` in order, those of a view side by side.

        Rows behind the last part are padding.
        """
        outputs = []
        for view, group in groupby(parts, key=lambda part: part.view):
            members = list(group)
            first, last, rows = members[0].start, members[-1].stop, members[0].rows
            q, k, v = self.project(_padded(_rows(x, first, last, axis=1), rows, axis=1), view)
            q, k = self._rotated(members, layer, *(_rows(a, 0, last - first, axis=2) for a in (q, k)))
            attended = [
                self._attend(part, layer, *(_rows(a, part.start - first, part.stop - first, axis=2) for a in (q, k, v)))
                for part in members
            ]
            output = self.output(_padded(_joined(attended, axis=2), rows, axis=2), view)
            outputs.append(_rows(output, 0, last - first, axis=1))
        return _padded(_joined(outputs, axis=1), x.shape[1], axis=1)

    def _rotated(self, parts: Sequence[Part], layer: int, q: mx.array, k: mx.array) -> Iterator[mx.array]:
        """Queries and keys [1, heads, N, D] of the rows of `parts`, rotated to their positions, all at once."""
        firsts = [part.cache[layer].offset for part in parts]
        if len(parts) == 1 and parts[0].parents is None:
            return (self.rope(a, offset=firsts[0]) for a in (q, k))
        positions: list[int] = []
        for part, first in zip(parts, firsts, strict=True):
            steps = range(part.stop - part.start) if part.parents is None else depths(part.parents)
            positions += [first + step for step in steps]
        at = mx.array(positions)
        return (self.rope(a.swapaxes(0, 2), offset=at).swapaxes(0, 2) for a in (q, k))

    def _attend(self, part: Part, layer: int, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        """Attention [1, H, L, D] of a part's queries over its cache and its own keys and values."""
        cache, causal, L = part.cache[layer], part.view == AR, q.shape[2]
        if self.block_attention is not None:
            return self.block_attention(q, k, v, cache, causal=causal, parents=part.parents, scale=self.scale)
        if part.parents is None:
            q, k, v = (_padded(a, part.rows, axis=2) for a in (q, k, v))
            keys, values = cache.update_and_fetch(k, v)
            return self._stock(causal, q, keys, values)[:, :, :L]
        # Each path of a tree is attended to as the chain that it is: that gives its nodes a chain's bits.
        cache.update_and_fetch(k, v)
        rows: dict[int, mx.array] = {}
        for path in paths(part.parents):
            at = mx.array(path)
            queries, *own = (_padded(a[:, :, at], part.rows, axis=2) for a in (q, k, v))
            seen = [mx.concatenate([a, b], axis=2) for a, b in zip(cache.prefix, own, strict=True)]
            attended = self._stock(causal, queries, *seen)
            rows |= {node: attended[:, :, i : i + 1] for i, node in enumerate(path) if node not in rows}
        return mx.concatenate([rows[node] for node in range(L)], axis=2)

    def _stock(self, causal: bool, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        mask = "causal" if causal and q.shape[2] > 1 else None
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=self.scale, mask=mask)


def _rows(a: mx.array, start: int, stop: int, axis: int) -> mx.array:
    """Rows of one axis; the array itself where they are all."""
    if (start, stop) == (0, a.shape[axis]):
        return a
    return a[:, start:stop] if axis == 1 else a[:, :, start:stop]


def _joined(arrays: Sequence[mx.array], axis: int) -> mx.array:
    return arrays[0] if len(arrays) == 1 else mx.concatenate(list(arrays), axis=axis)


def _padded(a: mx.array, rows: int | None, axis: int) -> mx.array:
    """`a` with zero rows on one axis up to `rows`."""
    missing = (rows or 0) - a.shape[axis]
    return mx.pad(a, [(0, missing if i == axis else 0) for i in range(a.ndim)]) if missing > 0 else a


class MLP(nn.Module):
    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden_dim, bias=False)
        self.down_proj = nn.Linear(hidden_dim, dim, bias=False)
        self.up_proj = nn.Linear(dim, hidden_dim, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        if "gate_up_proj" in self:
            gate, up = mx.split(self.gate_up_proj(x), 2, axis=-1)
        else:
            gate, up = self.gate_proj(x), self.up_proj(x)
        return self.down_proj(swiglu(gate, up))


class TransformerBlock(nn.Module):
    group: mx.distributed.Group | None = None

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.self_attn = Attention(args)
        self.mlp = MLP(args.hidden_size, args.intermediate_size)
        self.input_layernorm = nn.RMSNorm(args.hidden_size, eps=args.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None, view: str = AR) -> mx.array:
        h = x + self.self_attn(self.input_layernorm(x), mask, cache, view)
        return h + summed(self.mlp(self.post_attention_layernorm(h)), self.group)

    def parts(self, x: mx.array, parts: Sequence[Part], layer: int) -> mx.array:
        h = x + self.self_attn.parts(self.input_layernorm(x), parts, layer)
        return h + summed(self.mlp(self.post_attention_layernorm(h)), self.group)


class WholePass(Protocol):
    """Takes the rows of a pass through all layers by itself (`orthrus_mlx.fused_pass`, `orthrus_mlx.cpu_pass`).

    Attributes:
        any_length: whether it takes parts of any length, with the bits of short ones.
    """

    any_length: bool

    def takes(self, parts: Sequence[Part]) -> bool:
        """Whether these parts are for it, or for the layers."""

    def __call__(self, embedded: mx.array, parts: Sequence[Part]) -> mx.array:
        """Hidden states [1, N, hidden] after the final norm, of embedded ids [1, N, hidden]."""


class OrthrusModel(nn.Module):
    fused: WholePass | None = None

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.embed_tokens = nn.Embedding(args.vocab_size, args.hidden_size)
        self.layers = [TransformerBlock(args) for _ in range(args.num_hidden_layers)]
        self.norm = nn.RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(
        self,
        inputs: mx.array,
        cache: Sequence[Any] | None = None,
        input_embeddings: mx.array | None = None,
        view: str = AR,
    ) -> mx.array:
        """Hidden states [B, L, hidden] after the final norm. The diffusion view attends without a mask."""
        h = self.embed_tokens(inputs) if input_embeddings is None else input_embeddings
        mask = create_attention_mask(h, cache[0] if cache else None) if view == AR else None
        for layer, layer_cache in zip(self.layers, cache or [None] * len(self.layers), strict=True):
            h = layer(h, mask, layer_cache, view)
        return self.norm(h)

    def parts(self, inputs: mx.array, parts: Sequence[Part], input_embeddings: mx.array | None = None) -> mx.array:
        """Hidden states [1, N, hidden] of ids [N] that share a pass: every weight is read once for all parts."""
        h = self.embed_tokens(inputs[None]) if input_embeddings is None else input_embeddings
        if self.fused is not None and self.fused.takes(parts):
            return self.fused(h, parts)
        for i, layer in enumerate(self.layers):
            h = layer.parts(h, parts, i)
        return self.norm(h)


class Model(nn.Module):
    choice_kernel: Callable[..., mx.array] | None = None
    """Chooses tokens from (logits, temperature, keys) on the device (`orthrus_mlx.acceleration`)."""
    draft_vocabulary: DraftVocabulary | None = None
    """What the checkpoint has for `draft_head`."""
    draft_head: Callable[[mx.array], mx.array] | None = None
    """Does what `head` does, for passes that only draft (`orthrus_mlx.draft_head`); None is `head`."""
    fused_head: Callable[[mx.array, bool], mx.array] | None = None
    """Does what `head` does (`orthrus_mlx.fused_pass`, `orthrus_mlx.cpu_pass`)."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.args = args
        self.model_type = args.model_type
        self.model = OrthrusModel(args)
        if not args.tie_word_embeddings:
            self.lm_head = nn.Linear(args.hidden_size, args.vocab_size, bias=False)

    def __call__(
        self,
        inputs: mx.array,
        cache: Sequence[Any] | None = None,
        input_embeddings: mx.array | None = None,
        view: str = AR,
    ) -> mx.array:
        """Logits [B, L, V] of token ids [B, L].

        With `cache` (one entry per layer: mlx-lm caches, or an `orthrus_mlx.cache.KVCache`) the rows stand at
        positions `offset ..`; without, at 0. The diffusion view's row i speaks of position offset + i + 1.
        """
        return self._head(self.model(inputs, cache, input_embeddings, view))

    def head(self, hidden: mx.array, drafts: bool = False) -> mx.array:
        """Logits [..., V] of hidden states [..., hidden] of a pass; those of `drafts` alone owe nobody their bits."""
        if self.fused_head is not None and not self.training:
            return self.fused_head(hidden, drafts)
        return self._head(hidden)

    def _head(self, hidden: mx.array) -> mx.array:
        if self.args.tie_word_embeddings:
            return self.model.embed_tokens.as_linear(hidden)
        return self.lm_head(hidden)

    def sanitize(self, weights: dict[str, Any]) -> dict[str, Any]:
        """Drop what a checkpoint may carry beside this model: a copy of a tied head, rotary tables."""
        drop = {"lm_head.weight"} if self.args.tie_word_embeddings else set()
        return {k: v for k, v in weights.items() if k not in drop and "rotary_emb.inv_freq" not in k}

    def shard(self, group: mx.distributed.Group | None = None) -> None:
        """Keep this rank's share of both views' heads and of the MLP, in place; the ranks of `group` add up.

        Raises:
            ConfigError: heads, the MLP or the quantisation groups cannot be divided by the number of ranks.
        """
        group = group or mx.distributed.init()
        rank, ranks = group.rank(), group.size()
        check_divisible(self.args, ranks)
        for layer in self.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for view in (AR, DIFFUSION) if self.args.has_diffusion_view else (AR,):
                for name in ("q_proj", "k_proj", "v_proj"):
                    keep_part(attention[name + view], ROWS, rank, ranks)
                keep_part(attention["o_proj" + view], COLUMNS, rank, ranks)
            keep_part(mlp.gate_proj, ROWS, rank, ranks)
            keep_part(mlp.up_proj, ROWS, rank, ranks)
            keep_part(mlp.down_proj, COLUMNS, rank, ranks)
            attention.n_heads //= ranks
            attention.n_kv_heads //= ranks
            attention.group = layer.group = group

    @property
    def divided(self) -> bool:
        """Whether other ranks hold the rest of each layer, and of what the caches hold."""
        return self.layers[0].group is not None

    @property
    def layers(self) -> list[TransformerBlock]:
        return self.model.layers
