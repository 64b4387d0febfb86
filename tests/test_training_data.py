"""Documents become rows with the right answers marked, and batches follow from seed and step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_models import CHAT, chat_documents

from orthrus_mlx.errors import TrainingError
from orthrus_mlx.training.data import BatchOrder, ChatFormat, Rows, chat_document, join_chats, pack, read_jsonl


class FakeTokenizer:
    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        text = "|".join(f"{m['role']}:{m['content']}" for m in messages)
        return text + ("|answer:" if add_generation_prompt else "")


def test_an_answer_runs_from_after_its_header_to_its_closing_token():
    document = chat_document([1, 7, 30, 2, 8, 1, 5, 6, 40, 41, 2, 8, 1, 7, 31, 2, 8, 1, 5, 6, 50, 2, 8, 0], CHAT)
    assert document.answers.tolist() == [0] * 8 + [1, 1, 1] + [0] * 9 + [2, 2] + [0, 0]
    assert document.last_answer == (20, 22)


def test_text_without_turns_is_an_answer_but_for_its_first_token():
    assert chat_document([9, 10, 11], CHAT).answers.tolist() == [0, 1, 1]


def test_an_unclosed_answer_runs_to_the_end_and_an_open_header_has_none():
    assert chat_document([1, 5, 6, 40, 41], CHAT).answers.tolist() == [0, 0, 0, 1, 1]
    prompt = chat_document([1, 7, 30, 2, 8, 1, 5, 6], CHAT)
    assert prompt.last_answer == (8, 8)


@given(st.integers(1, 40), st.integers(0, 1000), st.integers(24, 200))
def test_packing_keeps_every_document_whole_once_with_its_answers(count, seed, length):
    documents = chat_documents(count, seed)
    rows = pack(documents, length, 512)
    found = []
    for tokens, segments, answers in zip(rows.tokens, rows.segments, rows.answers, strict=True):
        assert (np.diff(segments[segments > 0].astype(int)) >= 0).all()
        for segment in range(1, int(segments.max()) + 1):
            where = segments == segment
            marks = answers[where].astype(int)
            marks[marks > 0] -= marks[marks > 0].min() - 1
            found.append((tokens[where].tolist(), marks.tolist()))
        used = np.unique(answers[answers > 0])
        assert used.tolist() == list(range(1, len(used) + 1)), "answers of a row need different numbers"
    expected = [(d.tokens[:length].tolist(), d.answers[:length].tolist()) for d in documents]
    assert sorted(found) == sorted(expected)


def test_packing_wastes_little():
    rows = pack(chat_documents(300), 256, 512)
    assert (rows.segments > 0).mean() > 0.95


def test_joined_chats_keep_their_turns_in_order_and_drop_the_end_of_text_between():
    documents = chat_documents(10, turns=1)
    joined = join_chats(documents, CHAT, 10_000)
    assert len(joined) == 1
    tokens, answers = joined[0].tokens, joined[0].answers
    assert tokens.tolist() == [t for d in documents for t in d.tokens[:-1].tolist()] + [0]
    assert [int(answers[answers == n].size) for n in range(1, 11)] == [int((d.answers > 0).sum()) for d in documents]


def test_joined_chats_stay_within_the_length_and_leave_plain_text_alone():
    text = chat_document([9, 10, 11, 0], CHAT)
    documents = [*chat_documents(20), text, *chat_documents(20, seed=5), text]
    joined = join_chats(documents, CHAT, 120)
    assert max(len(d.tokens) for d in joined) <= 120
    assert sum(d is text for d in joined) == 2
    assert sum(int((d.answers > 0).sum()) for d in joined) == sum(int((d.answers > 0).sum()) for d in documents)


def test_every_epoch_takes_every_row_once_and_depends_on_the_seed_and_step_alone():
    first, again, other = BatchOrder(10, 4, 0), BatchOrder(10, 4, 0), BatchOrder(10, 4, 1)
    batches = [first(step).tolist() for step in range(5)]
    taken = [row for batch in batches for row in batch]
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert [again(step).tolist() for step in (4, 2, 3, 0, 1)] == [batches[i] for i in (4, 2, 3, 0, 1)]
    assert [other(step).tolist() for step in range(5)] != batches


def test_rows_survive_the_disk(tmp_path):
    rows = pack(chat_documents(5), 64, 512)
    rows.save(tmp_path / "rows.npz")
    loaded = Rows.load(tmp_path / "rows.npz")
    for name in ("tokens", "segments", "answers"):
        assert np.array_equal(getattr(rows, name), getattr(loaded, name))
    assert [p.name for p in tmp_path.iterdir()] == ["rows.npz"]


def test_a_damaged_row_file_is_refused(tmp_path):
    path = tmp_path / "rows.npz"
    pack(chat_documents(5), 64, 512).save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"rows\.npz: not a readable row file"):
        Rows.load(path)


def test_nothing_to_train_on_is_refused():
    with pytest.raises(TrainingError, match="no document"):
        pack([], 64, 512)
    with pytest.raises(TrainingError, match="no row"):
        BatchOrder(0, 4, 0)


def test_jsonl_chats_texts_and_open_questions_are_read(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n\n'
        '{"text": "plain"}\n{"messages": [{"role": "user", "content": "c"}]}\n'
    )
    assert list(read_jsonl(path, FakeTokenizer())) == ["user:a|assistant:b", "plain", "user:c|answer:"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"data\.jsonl:2: not JSON"),
        ("[1]", r"data\.jsonl:2: expected"),
        ('{"messages": []}', r"data\.jsonl:2: expected"),
        ('{"messages": [{"role": "user"}]}', r"data\.jsonl:2: expected"),
        ('{"text": 3}', r"data\.jsonl:2: expected"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(tmp_path, line, message):
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(TrainingError, match=message):
        list(read_jsonl(path, FakeTokenizer()))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"absent\.jsonl: cannot be read"):
        list(read_jsonl(tmp_path / "absent.jsonl", FakeTokenizer()))


def test_a_tokenizer_without_chat_tokens_is_refused():
    with pytest.raises(TrainingError, match="im_start"):
        ChatFormat.of(lambda text: [1, 2, 3])
