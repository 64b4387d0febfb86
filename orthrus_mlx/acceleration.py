"""Putting the kernels into a loaded model: the one place where models and kernels meet."""

from __future__ import annotations

from functools import cache
from typing import Any

import mlx.core as mx

from . import kernels
from .cache import LayerCache
from .kernels import AttentionShape, Plan
from .model import Model


def accelerate(model: Model, mode: str | None = None) -> Plan:
    """Choose kernels for `model` on this device and install them, in place.

    Args:
        mode: "auto", "off" or "force" (see `kernels.make_plan`); None reads `$ORTHRUS_KERNELS`.

    Returns:
        The plan, also kept as `model.kernels`. Without Metal it is empty and the model is left as it is.
    """
    args = model.args
    shape = AttentionShape(args.num_attention_heads, args.num_key_value_heads, args.head_dim, args.num_hidden_layers)
    weights = kernels.model_weights(model, tied_head=args.tie_word_embeddings)
    plan = kernels.make_plan(weights, shape, model.model.norm.weight.dtype, mode)
    plan.install(model)
    if plan.attention is not None:
        for layer in model.layers:
            layer.self_attn.block_attention = _over_cache(plan.attention)
    model.choice_kernel = kernels.choose if plan.choice else None
    model.kernels = plan
    return plan


def _over_cache(family: str) -> Any:
    def block_attention(
        q: mx.array, k: mx.array, v: mx.array, layer: LayerCache, *, causal: bool, scale: float
    ) -> mx.array:
        """Attention [1, H, L, D] of q [1, H, L, D] over a layer's cache and the block's own k, v [1, G, L, D]."""
        keys, values = layer.hold(k, v)
        mask = _mask(q.shape[2], causal)
        return kernels.block_attention(q, keys, values, layer.offset, k, v, mask, scale=scale, family=family)

    return block_attention


@cache
def _mask(rows: int, causal: bool) -> mx.array:
    return kernels.causal_mask(rows) if causal else kernels.full_mask(rows)
