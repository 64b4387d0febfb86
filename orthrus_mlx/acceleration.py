"""Putting the kernels into a loaded model: the one place where models and kernels meet."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from . import kernels
from .cache import LayerCache
from .cpu_pass import CpuPass, cpu_pass, layer_timings
from .fused_pass import FusedPass, fused_pass, fused_timings
from .kernels import AttentionShape, Plan, cpu_choice
from .kernels.cpu_linear import library
from .model import AR, DIFFUSION, Model
from .pass_check import layer_failure, row_failure


def accelerate(model: Model, mode: str | None = None) -> Plan:
    """Choose kernels for `model` on this device and install them, in place.

    Args:
        mode: "auto", "off" or "force" (see `kernels.make_plan`); None reads `$ORTHRUS_KERNELS`.

    Returns:
        The plan, also kept as `model.kernels`. On CUDA and on the CPU it is empty but for its notes: there a whole pass
        is replaced (`orthrus_mlx.fused_pass`, `orthrus_mlx.cpu_pass`).
    """
    mode = kernels.requested_mode(mode)
    model.model.fused = model.fused_head = None
    if mode != "off" and mx.cuda.is_available():
        return fuse(model, mode)
    if mode != "off" and not kernels.available() and mx.default_device() == mx.cpu:
        return _through_numpy(model, mode)
    if mode != "off" and kernels.available():
        pack(model)
    args = model.args
    attention = model.layers[0].self_attn  # its heads, not those of `args`: a rank holds some of them
    shape = AttentionShape(attention.n_heads, attention.n_kv_heads, args.head_dim, args.num_hidden_layers)
    weights = kernels.model_weights(model, tied_head=args.tie_word_embeddings)
    plan = kernels.make_plan(weights, shape, model.model.norm.weight.dtype, mode)
    install(model, plan)
    return plan


def fuse(model: Model, mode: str) -> Plan:
    """Put the CUDA kernels' pass into `model`, in place, where it is right and in mode "auto" faster than MLX's."""
    pack(model)
    fused = fused_pass(model)
    if fused is None:
        return _settle(
            model, "stock MLX, the CUDA kernels take 16-bit weights, dense or affine 4-bit, and plain rotation"
        )
    if failure := layer_failure(model, fused):
        return _settle(model, f"stock MLX, the CUDA kernels failed: {failure}")
    ours, stock = fused_timings(model, fused)
    times = ", ".join(f"{rows} rows {ours[rows]:.3g} ms against {stock[rows]:.3g}" for rows in ours)
    if mode != "force" and sum(ours.values()) >= sum(stock.values()):
        return _settle(model, f"stock MLX is faster ({times})")
    return _settle(model, f"CUDA kernels ({times})", "cuda", fused)


def _through_numpy(model: Model, mode: str) -> Plan:
    """Put NumPy's pass into `model`, in place, where it is right, row-exact and in mode "auto" faster than MLX's."""
    found = cpu_pass(model)
    if found is None:
        return _settle(model, "stock MLX, NumPy's takes linear layers without bias, on one rank")
    if failure := layer_failure(model, found, mx.float32) or row_failure(model, found) or found.product_failure():
        return _settle(model, f"stock MLX, NumPy's failed: {failure}")
    times = layer_timings(model, found)
    listed = ", ".join(f"{variant} rows {ms:.3g} ms" for variant, ms in times.items())
    if mode != "force" and sum(ms if name.startswith("numpy") else -ms for name, ms in times.items()) >= 0:
        return _settle(model, f"stock MLX is faster (a layer: {listed})")
    return _settle(model, f"{library()} (a layer: {listed})", "numpy", found)


def _settle(model: Model, note: str, whole: str | None = None, found: FusedPass | CpuPass | None = None) -> Plan:
    """Install the pass that was `found`, if one is to be used, and a plan that says so."""
    if found is not None:
        model.model.fused, model.fused_head = found, found.head
    plan = Plan(whole=whole, notes=(f"pass: {note}",))
    install(model, plan)
    return plan


def pack(model: Model) -> None:
    """Join q, k and v, and gate and up, into one weight each, in place: seven launches of a layer become four.

    A row of a product depends on its own weight row only, so joining them changes no bits within a kernel family.
    """
    views = (AR, DIFFUSION) if model.args.has_diffusion_view else (AR,)
    for layer in model.layers:
        for view in views:
            _join(layer.self_attn, [f"{name}_proj{view}" for name in "qkv"], f"qkv_proj{view}")
        _join(layer.mlp, ["gate_proj", "up_proj"], "gate_up_proj")
        # Layer by layer, so that no more than one layer's weights are there twice.
        mx.eval(layer.parameters())


def _join(parent: nn.Module, names: list[str], joined: str) -> None:
    """Replace the linear layers `names` of `parent` by one; layers of different formats are left as they are."""
    if joined in parent:
        return
    layers = [parent[name] for name in names]
    first = layers[0]
    formats = {(type(m), getattr(m, "bits", 0), getattr(m, "group_size", 0), getattr(m, "mode", "")) for m in layers}
    if len(formats) > 1 or any(set(m) != set(first) or "bias" in m for m in layers):
        return
    kind: Any = type(first)
    one = kind.__new__(kind)
    one.__dict__.update(first.__dict__)
    dict.update(one, {name: mx.concatenate([m[name] for m in layers]) for name in first})
    for name in names:
        del parent[name]
    parent[joined] = one


def install(model: Model, plan: Plan) -> None:
    """Make `model` compute as `plan` says, in place."""
    plan.install(model)
    attention = None if plan.attention is None else _over_cache(plan.attention)
    for layer in model.layers:
        layer.self_attn.block_attention = attention
    # Where a pass's logits lie ready in NumPy's hands, they are chosen from there.
    model.choice_kernel = cpu_choice.choose if plan.whole == "numpy" else kernels.choose if plan.choice else None
    model.kernels = plan


def _over_cache(family: str) -> Any:
    def block_attention(
        q: mx.array,
        k: mx.array,
        v: mx.array,
        layer: LayerCache,
        *,
        causal: bool,
        parents: tuple[int, ...] | None,
        scale: float,
    ) -> mx.array:
        """Attention [1, H, L, D] of q [1, H, L, D] over a layer's cache and the block's own k, v [1, G, L, D]."""
        keys, values = layer.hold(k, v)
        mask = _mask(q.shape[2], causal, parents)
        return kernels.block_attention(q, keys, values, layer.offset, k, v, mask, scale=scale, family=family)

    return block_attention


@lru_cache(maxsize=256)
def _mask(rows: int, causal: bool, parents: tuple[int, ...] | None) -> mx.array:
    if parents is not None:
        return kernels.tree_mask(list(parents))
    return kernels.causal_mask(rows) if causal else kernels.full_mask(rows)
