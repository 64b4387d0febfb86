"""Batched greedy answers are the answers the model gives one by one."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from training_models import ANSWER_END, CHAT, chat_documents, tiny_model

from orthrus_mlx.training.data import chat_document
from orthrus_mlx.training.self_answer import answer_documents, greedy_answers

STOPS = frozenset({ANSWER_END, 0})


@pytest.fixture(scope="module")
def model():
    return tiny_model(seed=5)


def one_by_one(model, prompt: list[int], limit: int, stops: frozenset[int]) -> list[int]:
    answer: list[int] = []
    while len(answer) < limit and not (answer and answer[-1] in stops):
        logits = model(mx.array([prompt + answer]))
        answer.append(int(mx.argmax(logits[0, -1]).item()))
    return answer


def test_batched_answers_equal_one_by_one_decoding(model):
    random = np.random.default_rng(0)
    prompts = [random.integers(3, 500, int(n)).tolist() for n in random.integers(1, 40, 13)]
    limits = random.integers(1, 45, 13).tolist()
    # Stopping at a tenth of the vocabulary makes rows end at all sorts of steps.
    stops = frozenset(range(0, 500, 10))
    expected = [one_by_one(model, p, n, stops) for p, n in zip(prompts, limits, strict=True)]
    assert {len(a) for a in expected} != {1}
    progress = []
    answers = greedy_answers(
        model, prompts, limits, stops, batch_size=5, progress=lambda done, total: progress.append((done, total))
    )
    assert answers == expected
    assert progress == [(5, 13), (10, 13), (13, 13)]


def test_rows_that_end_early_leave_the_batch_without_disturbing_the_rest(model):
    random = np.random.default_rng(1)
    prompts = [random.integers(3, 500, 8).tolist() for _ in range(6)]
    limits = [70] * 6
    free = [one_by_one(model, p, 70, frozenset()) for p in prompts]
    # Stop tokens that end most answers before the first look at the batch, but not all of them.
    stops = frozenset(token for answer in free[:4] for token in answer[:20]) - set(free[5])
    expected = [one_by_one(model, p, n, stops) for p, n in zip(prompts, limits, strict=True)]
    assert len(expected[5]) == 70 and sum(len(a) < 32 for a in expected) >= 4
    assert greedy_answers(model, prompts, limits, stops) == expected


def test_documents_get_the_models_own_last_answer_within_the_length(model):
    documents = chat_documents(8, seed=2)
    answered = answer_documents(model, documents, STOPS, length=64, batch_size=3)
    for before, after in zip(documents, answered, strict=True):
        start, end = before.last_answer
        if start >= 64:
            assert after is before
            continue
        assert after.tokens[:start].tolist() == before.tokens[:start].tolist()
        expected = one_by_one(model, before.tokens[:start].tolist(), 64 - start, STOPS)
        stop = start + len(expected)
        assert after.tokens[start:stop].tolist() == expected
        assert set(after.answers[start:stop].tolist()) == {before.answers.max()}
        kept = before.tokens[end:].tolist() if expected[-1] in STOPS else []
        assert after.tokens[stop:].tolist() == kept
        assert not after.answers[stop:].any()


def test_an_open_question_is_answered_and_plain_text_left_alone(model):
    question = chat_document([1, 7, 30, 2, 8, 1, 5, 6], CHAT)
    text = chat_document([9, 10, 11, 12], CHAT)
    answered = answer_documents(model, [question, text], STOPS, length=20)
    assert answered[1] is text
    assert len(answered[0].tokens) > 8
    assert answered[0].answers.tolist() == [0] * 8 + [1] * (len(answered[0].tokens) - 8)
