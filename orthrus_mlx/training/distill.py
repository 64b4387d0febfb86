"""Distilling the diffusion view from the frozen AR view (Orthrus, arXiv 2605.12825, section 3 and Table 3).

Blocks stand at random anchors inside answers. Block row i sees the anchor token (row 0), masks (rows 1 ..)
and the AR keys strictly before the anchor a; it learns the AR view's distribution after position a + i, which
that view computed knowing the text in between.
"""

from __future__ import annotations

import mlx.core as mx

from ..errors import TrainingError
from ..model import AR, DIFFUSION, Model
from .parameters import Parameters, flat_parameters, load_parameters
from .trainer import Batch, Loss, Metrics
from .views import block_pass, packed_pass, visible_prefix

START_WEIGHT = 4.0
"""Every answer's first cycle stands at the prompt's last token, so that one position is drawn more often."""

NO_VIEW = "the model has no diffusion view; its config needs block_size and mask_token_id"


def diffusion_parameters(model: Model) -> Parameters:
    """The `*_diff` weights of a model in fp32, by name."""
    return {k: v.astype(mx.float32) for k, v in flat_parameters(model).items() if f"{DIFFUSION}." in k}


def start_from_ar_view(model: Model) -> None:
    """Make every `*_diff` weight a copy of its AR twin."""
    weights = flat_parameters(model)
    twins = {k: weights[k.replace(f"{DIFFUSION}.", f"{AR}.")] for k in weights if f"{DIFFUSION}." in k}
    if not twins:
        raise TrainingError(NO_VIEW)
    load_parameters(model, twins, mx.array)


def draw_anchors(answers: mx.array, count: int, key: mx.array) -> tuple[mx.array, mx.array]:
    """Draw `count` different anchor positions per row of `answers` [B, L].

    A position is eligible when the token after it belongs to an answer: every token of an answer but its
    last, and the prompt's last token, from which decoding starts (`START_WEIGHT` times as likely).
    Returns positions [B, count] and whether each is eligible (a row may have too few).
    """
    following = mx.concatenate([answers[:, 1:], mx.zeros_like(answers[:, :1])], axis=1)
    score = mx.random.uniform(shape=answers.shape, key=key)
    score = mx.where(answers == following, score, score / START_WEIGHT)
    score = mx.where(following > 0, score, 2.0)
    positions = mx.argsort(score, axis=1)[:, :count]
    return positions, mx.take_along_axis(following, positions, axis=1) > 0


def distillation_loss(model: Model, anchors_per_row: int, dtype: mx.Dtype) -> Loss:
    """Forward KL(p_AR || p_diffusion) in nats per counted block position.

    `model` holds the frozen weights. A position counts when its target lies in the answer that the
    block's first target belongs to (the closing `<|im_end|>` included). Metrics: `agreement` and
    `agreement_by_position` [K-1], the share of equal argmaxes.

    Not for `mx.compile`: with MLX 0.32.4 on an H200 its fused kernels were still compiling after a minute, and
    a step takes 55 ms without.

    Raises:
        TrainingError: `anchors_per_row` is not positive, or the model has no diffusion view.
    """
    K, mask_token = block_settings(model, anchors_per_row)

    def loss(parameters: Parameters, batch: Batch, key: mx.array) -> tuple[mx.array, Metrics]:
        tokens, segments, answers = batch
        load_parameters(model, parameters, lambda p: p.astype(dtype))
        hidden, prefix = packed_pass(model, tokens, segments)
        hidden = mx.stop_gradient(hidden)
        prefix = [(mx.stop_gradient(k), mx.stop_gradient(v)) for k, v in prefix]
        anchors, eligible = draw_anchors(answers, anchors_per_row, key)
        counted, rows = counted_targets(anchors, eligible, answers, K)

        first = mx.take_along_axis(tokens, anchors, axis=1)[..., None]
        masks = mx.full((*anchors.shape, K - 1), mask_token, dtype=first.dtype)
        blocks = mx.concatenate([first, masks], axis=-1)
        drafted = block_pass(model, blocks, anchors, prefix, visible_prefix(anchors, segments))
        student, teacher = block_logits(model, drafted, hidden, rows)
        each = divergence(student, teacher)
        return (each * counted).sum() / mx.maximum(counted.sum(), 1.0), agreement(student, teacher, counted)

    return loss


def block_settings(model: Model, anchors_per_row: int) -> tuple[int, int]:
    """(block size, mask token). Raises TrainingError as `distillation_loss` does."""
    if anchors_per_row < 1:
        raise TrainingError(f"anchors must be at least 1, not {anchors_per_row}")
    if model.args.block_size is None or model.args.mask_token_id is None:
        raise TrainingError(NO_VIEW)
    return model.args.block_size, model.args.mask_token_id


def block_logits(model: Model, drafted: mx.array, hidden: mx.array, rows: mx.array) -> tuple[mx.array, mx.array]:
    """Fp32 logits [B, A, K-1, V] of the blocks' hidden states, and of the teacher at its row positions, no gradient."""
    student = model.head(drafted[:, :, :-1]).astype(mx.float32)
    taught = mx.take_along_axis(mx.stop_gradient(hidden), rows.reshape(rows.shape[0], -1, 1), axis=1)
    return student, mx.stop_gradient(model.head(taught).astype(mx.float32)).reshape(student.shape)


def divergence(student: mx.array, teacher: mx.array) -> mx.array:
    """KL(teacher || student) in nats over the last axis of logits."""
    # sum p (log p - log q), arranged so that few arrays of the size of the logits come to be.
    each = (mx.softmax(teacher, axis=-1) * (teacher - student)).sum(axis=-1)
    return each + mx.logsumexp(student, axis=-1) - mx.logsumexp(teacher, axis=-1)


def agreement(student: mx.array, teacher: mx.array, counted: mx.array) -> Metrics:
    """How often the likeliest tokens are the same, in all and by block position."""
    hits = (mx.argmax(teacher, axis=-1) == mx.argmax(mx.stop_gradient(student), axis=-1)) * counted
    return {
        "agreement": mx.stack([hits.sum(), counted.sum()]),
        "agreement_by_position": mx.stack([hits.sum(axis=(0, 1)), counted.sum(axis=(0, 1))]),
    }


def counted_targets(
    anchors: mx.array, eligible: mx.array, answers: mx.array, block_size: int
) -> tuple[mx.array, mx.array]:
    """For block rows 0..K-2 at `anchors` [B, A]: which count (fp32), and the teacher's row positions; [B, A, K-1]."""
    B, A = anchors.shape
    L = answers.shape[1]
    rows = anchors[..., None] + mx.arange(block_size - 1)
    targets = mx.minimum(rows + 1, L - 1)
    answer = mx.take_along_axis(answers, targets.reshape(B, -1), axis=1).reshape(B, A, -1)
    counted = eligible[..., None] & (rows + 1 < L) & (answer == answer[..., :1])
    return counted.astype(mx.float32), mx.minimum(rows, L - 1)
