"""The training passes compute what inference computes."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from training_models import ANSWER_END, chat_documents, tiny_model

from orthrus_mlx.cache import KVCache
from orthrus_mlx.model import AR, DIFFUSION
from orthrus_mlx.training.data import pack
from orthrus_mlx.training.distill import counted_targets, diffusion_parameters, distillation_loss, draw_anchors
from orthrus_mlx.training.views import block_pass, packed_pass, visible_prefix


@pytest.fixture(scope="module")
def packed():
    """A model, rows of several documents each, and both training passes over them."""
    model = tiny_model(seed=3)
    rows = pack(chat_documents(12, seed=1), 96, model.args.vocab_size)
    assert rows.segments.max() > 1
    tokens, segments, answers = (mx.array(a.astype(np.int32)) for a in (rows.tokens, rows.segments, rows.answers))
    hidden, prefix = packed_pass(model, tokens, segments)
    anchors, eligible = draw_anchors(answers, 5, mx.random.key(7))
    return model, tokens, segments, answers, hidden, prefix, anchors, eligible


def _document(segments: np.ndarray, row: int, position: int) -> tuple[int, int]:
    where = np.flatnonzero(segments[row] == segments[row, position])
    return int(where[0]), int(where[-1]) + 1


def _blocks(model, tokens, anchors):
    first = mx.take_along_axis(tokens, anchors, axis=1)[..., None]
    masks = mx.full((*anchors.shape, model.args.block_size - 1), model.args.mask_token_id, dtype=first.dtype)
    return mx.concatenate([first, masks], axis=-1)


def test_teacher_rows_are_the_ar_views_logits_of_each_document_alone(packed):
    model, tokens, segments, _, hidden, *_ = packed
    logits = np.array(model.head(hidden))
    numbers = np.array(segments)
    for row in range(len(numbers)):
        for segment in range(1, numbers[row].max() + 1):
            where = np.flatnonzero(numbers[row] == segment)
            alone = model(tokens[row, where[0] : where[-1] + 1][None], view=AR)
            np.testing.assert_allclose(logits[row, where], np.array(alone[0]), atol=1e-4)


def test_training_blocks_are_the_inference_pass_over_a_cache(packed):
    model, tokens, segments, _, _, prefix, anchors, _ = packed
    blocks = _blocks(model, tokens, anchors)
    trained = np.array(model.head(block_pass(model, blocks, anchors, prefix, visible_prefix(anchors, segments))))
    for row in range(len(anchors)):
        for a, anchor in enumerate(anchors[row].tolist()):
            start, _ = _document(np.array(segments), row, anchor)
            cache = KVCache(len(model.layers))
            if anchor > start:
                model(tokens[row, start:anchor][None], cache)
                cache.commit(anchor - start)
            inferred = model(blocks[row, a][None], cache, view=DIFFUSION)
            np.testing.assert_allclose(trained[row, a], np.array(inferred[0]), atol=1e-4)


def test_blocks_are_blind_to_each_other(packed):
    model, tokens, segments, _, _, prefix, anchors, _ = packed
    visible = visible_prefix(anchors, segments)
    blocks = _blocks(model, tokens, anchors)
    changed = mx.concatenate([blocks[:, :1], (blocks[:, 1:] + 1) % model.args.vocab_size], axis=1)
    before = block_pass(model, blocks, anchors, prefix, visible)
    after = block_pass(model, changed, anchors, prefix, visible)
    assert mx.array_equal(before[:, 0], after[:, 0])
    assert not mx.array_equal(before[:, 1], after[:, 1])


def test_blocks_do_not_see_keys_at_or_after_their_anchor(packed):
    model, tokens, segments, _, _, prefix, anchors, _ = packed
    visible = visible_prefix(anchors, segments)
    blocks = _blocks(model, tokens, anchors)[:, :1]
    at = anchors[:, :1]
    later = (mx.arange(tokens.shape[1]) >= at)[:, None, :, None]
    blinded = [(mx.where(later, 9.0, k), mx.where(later, 9.0, v)) for k, v in prefix]
    before = block_pass(model, blocks, at, prefix, visible[:, :1])
    after = block_pass(model, blocks, at, blinded, visible[:, :1])
    assert mx.array_equal(before, after)


def test_anchors_stand_before_answer_tokens(packed):
    _, _, _, answers, _, _, _, _ = packed
    table = np.array(answers)
    for seed in range(20):
        positions, eligible = draw_anchors(answers, 9, mx.random.key(seed))
        for row, (where, good) in enumerate(zip(positions.tolist(), eligible.tolist(), strict=True)):
            assert len(set(where)) == len(where)
            for position, is_good in zip(where, good, strict=True):
                follows = position + 1 < table.shape[1] and table[row, position + 1] > 0
                assert follows == is_good, (row, position)


def test_too_few_answer_tokens_give_anchors_that_do_not_count():
    answers = mx.array([[0, 0, 1, 1, 0, 0]])
    positions, eligible = draw_anchors(answers, 4, mx.random.key(0))
    assert sorted(p for p, e in zip(positions[0].tolist(), eligible[0].tolist(), strict=True) if e) == [1, 2]
    counted, _ = counted_targets(positions, eligible, answers, 4)
    assert counted.sum().item() == 2 + 1


def test_targets_count_up_to_the_end_of_the_answer_and_not_in_the_next_one(packed):
    _, tokens, _, answers, _, _, _, _ = packed
    table, ids = np.array(answers), np.array(tokens)
    positions, eligible = draw_anchors(answers, 9, mx.random.key(1))
    counted, rows = counted_targets(positions, eligible, answers, 8)
    seen_end = False
    for row in range(len(table)):
        for a, anchor in enumerate(positions[row].tolist()):
            for i in range(7):
                target = anchor + i + 1
                expected = (
                    eligible[row, a].item() and target < table.shape[1] and table[row, target] == table[row, anchor + 1]
                )
                assert bool(counted[row, a, i].item()) == bool(expected)
                if expected:
                    assert rows[row, a, i].item() == anchor + i
                    seen_end |= ids[row, target] == ANSWER_END
    assert seen_end


def test_the_loss_is_the_mean_forward_kl_over_counted_rows_by_inference_passes(packed):
    model, tokens, segments, answers, *_ = packed
    key = mx.random.key(11)
    loss, metrics = distillation_loss(model, 5, mx.float32)(
        diffusion_parameters(model), (tokens, segments, answers), key
    )
    anchors, eligible = draw_anchors(answers, 5, key)
    counted = np.array(counted_targets(anchors, eligible, answers, model.args.block_size)[0])
    blocks = _blocks(model, tokens, anchors)
    divergences, hits = [], []
    for row, a, i in np.argwhere(counted).tolist():
        anchor = anchors[row, a].item()
        start, _ = _document(np.array(segments), row, anchor)
        cache = KVCache(len(model.layers))
        if anchor > start:
            model(tokens[row, start:anchor][None], cache)
            cache.commit(anchor - start)
        drafted = np.array(model(blocks[row, a][None], cache, view=DIFFUSION))[0, i].astype(np.float64)
        taught = np.array(model(tokens[row, start : anchor + i + 1][None]))[0, -1].astype(np.float64)
        log_p = taught - np.logaddexp.reduce(taught)
        log_q = drafted - np.logaddexp.reduce(drafted)
        divergences.append((np.exp(log_p) * (log_p - log_q)).sum())
        hits.append(taught.argmax() == drafted.argmax())
    assert len(divergences) > 30
    np.testing.assert_allclose(loss.item(), np.mean(divergences), rtol=1e-4)
    assert metrics["agreement"].tolist() == [sum(hits), len(hits)]
    assert metrics["agreement_by_position"][1].tolist() == counted.sum(axis=(0, 1)).tolist()
