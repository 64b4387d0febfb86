"""Qwen3 with two attention views over one KV cache (Orthrus, arXiv 2605.12825, section 3).

The autoregressive (AR) view is plain Qwen3: causal attention, keys and values go to the cache. The diffusion
view has its own attention weights (`*_diff`) in every layer and shares all else; a block's rows attend to the
cached prefix and to each other in both directions. Neither view knows how its rows are used: that is decoding.

Shapes: B batch, L rows, H query heads, G key/value heads, D head_dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.distributed import shard_linear
from mlx_lm.models.activations import swiglu
from mlx_lm.models.base import create_attention_mask, scaled_dot_product_attention
from mlx_lm.models.rope_utils import initialize_rope

from .config import MAX_BLOCK_SIZE, ModelArgs
from .weights import AR, DIFFUSION


class Attention(nn.Module):
    block_attention: Callable[..., mx.array] | None = None
    """A kernel for short passes over this package's cache (`orthrus_mlx.acceleration`); None is stock MLX."""

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
        B, L, _ = x.shape
        if f"qkv_proj{view}" in self:
            split = self.n_heads * self.head_dim, (self.n_heads + self.n_kv_heads) * self.head_dim
            q, k, v = mx.split(self[f"qkv_proj{view}"](x), split, axis=-1)
        else:
            q, k, v = (self[f"{name}_proj{view}"](x) for name in "qkv")
        v = v.reshape(B, L, self.n_kv_heads, -1)
        q = self[f"q_norm{view}"](q.reshape(B, L, self.n_heads, -1)).transpose(0, 2, 1, 3)
        k = self[f"k_norm{view}"](k.reshape(B, L, self.n_kv_heads, -1)).transpose(0, 2, 1, 3)
        return self.rope(q, offset=offset), self.rope(k, offset=offset), v.transpose(0, 2, 1, 3)

    def output(self, attended: mx.array, view: str) -> mx.array:
        """[B, H, L, D] -> [B, L, hidden]."""
        B, _, L, _ = attended.shape
        return self[f"o_proj{view}"](attended.transpose(0, 2, 1, 3).reshape(B, L, -1))

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None, view: str = AR) -> mx.array:
        q, k, v = self.qkv(x, cache.offset if cache is not None else 0, view)
        if self.block_attention is not None and hasattr(cache, "hold") and x.shape[1] <= MAX_BLOCK_SIZE:
            return self.output(self.block_attention(q, k, v, cache, causal=view == AR, scale=self.scale), view)
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)
        attended = scaled_dot_product_attention(q, k, v, cache=cache, scale=self.scale, mask=mask)
        return self.output(attended, view)


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
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.self_attn = Attention(args)
        self.mlp = MLP(args.hidden_size, args.intermediate_size)
        self.input_layernorm = nn.RMSNorm(args.hidden_size, eps=args.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None, view: str = AR) -> mx.array:
        h = x + self.self_attn(self.input_layernorm(x), mask, cache, view)
        return h + self.mlp(self.post_attention_layernorm(h))


class OrthrusModel(nn.Module):
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


class Model(nn.Module):
    choice_kernel: Callable[..., mx.array] | None = None
    """Chooses tokens from (logits, temperature, keys) on the device (`orthrus_mlx.acceleration`)."""

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
        return self.head(self.model(inputs, cache, input_embeddings, view))

    def head(self, hidden: mx.array) -> mx.array:
        """Logits [..., V] of hidden states [..., hidden]."""
        if self.args.tie_word_embeddings:
            return self.model.embed_tokens.as_linear(hidden)
        return self.lm_head(hidden)

    def sanitize(self, weights: dict[str, Any]) -> dict[str, Any]:
        """Drop what a checkpoint may carry beside this model: a copy of a tied head, rotary tables."""
        drop = {"lm_head.weight"} if self.args.tie_word_embeddings else set()
        return {k: v for k, v in weights.items() if k not in drop and "rotary_emb.inv_freq" not in k}

    def shard(self, group: mx.distributed.Group | None = None) -> None:
        """Split both views' heads and the MLP over the ranks of `group`, in place."""
        group = group or mx.distributed.init()
        ranks = group.size()
        views = (AR, DIFFUSION) if self.args.has_diffusion_view else (AR,)
        for layer in self.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for view in views:
                for name in ("q_proj", "k_proj", "v_proj"):
                    attention[name + view] = shard_linear(attention[name + view], "all-to-sharded", group=group)
                attention["o_proj" + view] = shard_linear(attention["o_proj" + view], "sharded-to-all", group=group)
            attention.n_heads //= ranks
            attention.n_kv_heads //= ranks
            mlp.gate_proj = shard_linear(mlp.gate_proj, "all-to-sharded", group=group)
            mlp.down_proj = shard_linear(mlp.down_proj, "sharded-to-all", group=group)
            mlp.up_proj = shard_linear(mlp.up_proj, "all-to-sharded", group=group)

    @property
    def layers(self) -> list[TransformerBlock]:
        return self.model.layers
