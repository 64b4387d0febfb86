"""Co-training: what the loss is made of, and which weights learn from which part of it."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from training_models import chat_documents, tiny_model

from orthrus_mlx.errors import TrainingError
from orthrus_mlx.model import DIFFUSION
from orthrus_mlx.training import cotrain
from orthrus_mlx.training.cotrain import BLOCK_SHARE, LEAST_REACH, cotraining_loss, reach
from orthrus_mlx.training.data import pack
from orthrus_mlx.training.distill import agreement, block_logits, counted_targets, divergence, draw_anchors
from orthrus_mlx.training.parameters import flat_parameters
from orthrus_mlx.training.pretrain import pretraining_loss
from orthrus_mlx.training.views import block_pass, packed_pass, visible_prefix

ANCHORS = 5
KEY = mx.random.key(11)


@pytest.fixture
def model():
    return tiny_model(seed=3)


@pytest.fixture(scope="module")
def batch():
    rows = pack(chat_documents(12, seed=1), 96, 512)
    return tuple(mx.array(a.astype(np.int32)) for a in (rows.tokens, rows.segments, rows.answers))


def block_parts(model, batch):
    """Student and teacher logits, and the targets that count, by the passes of `test_training_views`."""
    tokens, segments, answers = batch
    anchors, eligible = draw_anchors(answers, ANCHORS, KEY)
    K = model.args.block_size
    counted, rows = counted_targets(anchors, eligible, answers, K)
    hidden, prefix = packed_pass(model, tokens, segments)
    first = mx.take_along_axis(tokens, anchors, axis=1)[..., None]
    masks = mx.full((*anchors.shape, K - 1), model.args.mask_token_id, dtype=first.dtype)
    blocks = mx.concatenate([first, masks], axis=-1)
    drafted = block_pass(model, blocks, anchors, prefix, visible_prefix(anchors, segments))
    return *block_logits(model, drafted, hidden, rows), counted


def brute_force_reach(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    chances = np.ones(student.shape[:-1])
    for *block, i in np.ndindex(*chances.shape):
        for before in range(i):
            logits = student[(*block, before)].astype(np.float64)
            weights = np.exp(logits - logits.max())
            chances[(*block, i)] *= weights[teacher[(*block, before)].argmax()] / weights.sum()
    return chances


def test_reach_is_the_product_of_the_chances_that_earlier_drafts_are_right():
    random = np.random.default_rng(0)
    student, teacher = (3 * random.standard_normal((2, 3, 7, 11)).astype(np.float32) for _ in range(2))
    expected = brute_force_reach(student, teacher)
    assert expected.min() < 1e-3 and (expected[..., 0] == 1).all()
    np.testing.assert_allclose(np.array(reach(mx.array(student), mx.array(teacher))), expected, rtol=1e-4)


def test_reach_takes_no_gradient():
    student, teacher = mx.random.normal((1, 2, 3, 5), key=KEY), mx.random.normal((1, 2, 3, 5))
    for gradient in mx.grad(lambda s, t: reach(s, t).sum(), argnums=(0, 1))(student, teacher):
        assert not mx.any(gradient)


def test_the_loss_is_next_token_loss_plus_the_reach_weighted_divergence(model, batch):
    parameters = flat_parameters(model)
    loss, metrics = cotraining_loss(model, ANCHORS, mx.float32)(parameters, batch, KEY)
    next_token, pretrained = pretraining_loss(model, mx.float32)(parameters, batch, KEY)
    student, teacher, counted = block_parts(model, batch)
    chance = brute_force_reach(np.array(student), np.array(teacher))
    weight = np.array(counted) * np.maximum(chance, LEAST_REACH)
    # Some positions are held up by the least weight, some stand above it.
    assert (chance < LEAST_REACH).any() and (chance > LEAST_REACH).any()
    expected = (np.array(divergence(student, teacher)) * weight).sum() / weight.sum()
    np.testing.assert_allclose(metrics["divergence"][0].item(), expected, rtol=1e-4)
    np.testing.assert_allclose(loss.item(), next_token.item() + BLOCK_SHARE * expected, rtol=1e-4)
    for name, value in (pretrained | agreement(student, teacher, counted)).items():
        np.testing.assert_allclose(np.array(metrics[name]), np.array(value), rtol=1e-5, err_msg=name)


def test_positions_that_decoding_does_not_reach_count_with_the_least_weight(model, batch, monkeypatch):
    def loss() -> float:
        return cotraining_loss(model, ANCHORS, mx.float32)(flat_parameters(model), batch, KEY)[1]["divergence"][
            0
        ].item()

    monkeypatch.setattr(cotrain, "reach", lambda student, teacher: mx.zeros(student.shape[:-1]))
    unreached = loss()
    student, teacher, counted = block_parts(model, batch)
    mean = (divergence(student, teacher) * counted).sum() / counted.sum()
    assert unreached == pytest.approx(mean.item(), rel=1e-4)

    # Reached at the first position only: the rest keeps a tenth of its weight.
    first = mx.arange(model.args.block_size - 1) == 0
    monkeypatch.setattr(cotrain, "reach", lambda student, teacher: mx.broadcast_to(first, student.shape[:-1]) * 1.0)
    weight = counted * mx.where(first, 1.0, LEAST_REACH)
    mean = (divergence(student, teacher) * weight).sum() / weight.sum()
    assert loss() == pytest.approx(mean.item(), rel=1e-4)


def test_gradients_reach_both_views_and_the_weights_they_share(model, batch):
    loss = cotraining_loss(model, ANCHORS, mx.float32)
    parameters = flat_parameters(model)
    gradients = mx.grad(lambda p: loss(p, batch, KEY)[0])(parameters)
    assert set(gradients) == set(parameters)
    assert not [k for k, g in gradients.items() if not (mx.any(g) and mx.all(mx.isfinite(g)))]
    mask_row = gradients["model.embed_tokens.weight"][model.args.mask_token_id]
    assert mx.any(mask_row)


def block_gradients(model, batch, monkeypatch):
    """Gradients of the diffusion view's share alone."""
    monkeypatch.setattr(cotrain, "next_token_loss", lambda *_: (mx.array(0.0), {}))
    loss = cotraining_loss(model, ANCHORS, mx.float32)
    return mx.grad(lambda p: loss(p, batch, KEY)[0])(flat_parameters(model))


def test_the_teachers_distribution_takes_no_gradient_from_the_divergence(model, batch, monkeypatch):
    gradients = block_gradients(model, batch, monkeypatch)
    last = f"model.layers.{len(model.layers) - 1}.self_attn"
    # Blocks read the last layer's AR keys and values, but its queries and output serve the teacher's logits alone.
    for name in ("q_proj", "q_norm", "o_proj"):
        assert not mx.any(gradients[f"{last}.{name}.weight"]), name
    for name in ("k_proj", "v_proj", "k_norm"):
        assert mx.any(gradients[f"{last}.{name}.weight"]), name
    assert all(mx.any(g) for k, g in gradients.items() if f"{DIFFUSION}." in k)


def test_the_divergence_moves_the_shared_weights_as_the_student_alone_does(model, batch, monkeypatch):
    gradients = block_gradients(model, batch, monkeypatch)
    name = "model.norm.weight"
    _, teacher, counted = block_parts(model, batch)

    def student_alone(norm: mx.array) -> mx.array:
        model.model.norm.weight = norm
        student, _, _ = block_parts(model, batch)
        weight = counted * mx.maximum(reach(student, teacher), LEAST_REACH)
        return BLOCK_SHARE * (divergence(student, teacher) * weight).sum() / weight.sum()

    expected = mx.grad(student_alone)(flat_parameters(model)[name])
    assert mx.any(expected)
    np.testing.assert_allclose(np.array(gradients[name]), np.array(expected), rtol=1e-3, atol=1e-6)


def test_settings_that_cannot_be_co_trained_with_are_refused(model):
    with pytest.raises(TrainingError, match="anchors must be at least 1, not 0"):
        cotraining_loss(model, 0, mx.float32)
    with pytest.raises(TrainingError, match="no diffusion view"):
        cotraining_loss(tiny_model(diffusion=False), 1, mx.float32)
