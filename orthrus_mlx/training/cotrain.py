"""Training both views of a small base at once, so that what they share serves both.

Orthrus freezes its base, a released Qwen3. The demo's base is our own: training the attention weights of the diffusion
view alone fell short there (docs/training.md has the figures of both).
"""

from __future__ import annotations

import mlx.core as mx

from ..model import Model
from .distill import agreement, block_logits, block_settings, counted_targets, divergence, draw_anchors
from .parameters import Parameters, load_parameters
from .pretrain import next_token_loss
from .trainer import Batch, Loss, Metrics
from .views import block_pass, packed_pass, visible_prefix

BLOCK_SHARE = 0.5
"""Weight of the diffusion view's loss beside the AR view's."""
LEAST_REACH = 0.1
"""Least weight of a block position, so that those decoding seldom reaches are learnt as well."""


def cotraining_loss(model: Model, anchors_per_row: int, dtype: mx.Dtype) -> Loss:
    """Next-token cross-entropy of the AR view plus forward KL(p_AR || p_diffusion), gradients into all weights.

    The AR view's distribution is the target of the KL and takes no gradient from it; the AR keys and values that
    blocks read do. A block position counts by the chance that greedy decoding reaches it: the product of the
    probabilities that the drafts before it are accepted. Metrics: those of pre-training and of distillation, and
    `divergence`, the KL so weighted.

    Raises:
        TrainingError: `anchors_per_row` is not positive, or the model has no diffusion view.
    """
    K, mask_token = block_settings(model, anchors_per_row)

    def loss(parameters: Parameters, batch: Batch, key: mx.array) -> tuple[mx.array, Metrics]:
        tokens, segments, answers = batch
        load_parameters(model, parameters, lambda p: p.astype(dtype))
        # Looked up in fp32, as in pre-training; the masks share one row, whose gradient is then a plain sum.
        table = parameters["model.embed_tokens.weight"]
        hidden, prefix = packed_pass(model, tokens, segments, table[tokens].astype(dtype))
        next_token, metrics = next_token_loss(model, hidden, batch)

        anchors, eligible = draw_anchors(answers, anchors_per_row, key)
        counted, rows = counted_targets(anchors, eligible, answers, K)
        first = mx.take_along_axis(tokens, anchors, axis=1)[..., None]
        masks = mx.broadcast_to(table[mask_token].astype(dtype), (*anchors.shape, K - 1, table.shape[1]))
        embeddings = mx.concatenate([table[first].astype(dtype), masks], axis=2)
        blocks = mx.broadcast_to(first, (*anchors.shape, K))
        drafted = block_pass(model, blocks, anchors, prefix, visible_prefix(anchors, segments), embeddings)
        student, teacher = block_logits(model, drafted, hidden, rows)
        weight = counted * mx.maximum(reach(student, teacher), LEAST_REACH)
        block = (divergence(student, teacher) * weight).sum() / mx.maximum(weight.sum(), 1.0)
        metrics |= {"divergence": mx.stack([mx.stop_gradient(block), mx.array(1.0)])}
        return next_token + BLOCK_SHARE * block, metrics | agreement(student, teacher, counted)

    return loss


def reach(student: mx.array, teacher: mx.array) -> mx.array:
    """Chance [B, A, K-1] that all drafts before a position are the teacher's likeliest tokens, without a gradient."""
    student, teacher = mx.stop_gradient(student), mx.stop_gradient(teacher)
    best = mx.argmax(teacher, axis=-1, keepdims=True)
    right = mx.take_along_axis(student, best, axis=-1)[..., 0] - mx.logsumexp(student, axis=-1)
    before = mx.concatenate([mx.zeros_like(right[..., :1]), right[..., :-1]], axis=-1)
    return mx.exp(mx.cumsum(before, axis=-1))
