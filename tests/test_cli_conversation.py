"""A chat's turns share one cache: what it holds is not read again, and answers are those of a fresh cache."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from cli_models import write_checkpoint
from mlx_lm.sample_utils import make_logits_processors

from orthrus_mlx import RequestError, load, stream_generate
from orthrus_mlx.cli.chat_file import load_chat, save_chat
from orthrus_mlx.cli.conversation import Conversation
from orthrus_mlx.prompts import opens_thought, render, with_system

pytest_plugins = ["cli_fixtures"]


@pytest.fixture(scope="module")
def random_loaded(random_model: Path):
    return load(random_model)


@pytest.fixture(scope="module")
def parrot_loaded(parrot: Path):
    return load(parrot)


def conversation(loaded, *, system: str | None = None, template_options=None, **options) -> Conversation:
    options = {"max_tokens": 12, "mode": "diffusion"} | options
    return Conversation(*loaded, system=system, template_options=template_options or {}, options=options)


def say(chat: Conversation, question: str, tokens: int | None = None) -> str:
    """The answer, or its first `tokens` tokens, the rest cut off as Ctrl-C cuts it."""
    responses = chat.answer(question)
    text = "".join(r.text for r in islice(responses, tokens))
    responses.close()
    return text


def prompt_of(loaded, chat: Conversation, question: str) -> list[int]:
    turns = with_system(chat.system, [*chat.messages, {"role": "user", "content": question}])
    return loaded[1].encode(render(loaded[1], turns, {}), add_special_tokens=False)


def fresh_answer(loaded, chat: Conversation, question: str, **options) -> str:
    """What the model answers when nothing is cached."""
    options = {"max_tokens": 12, "mode": "diffusion"} | options
    return "".join(r.text for r in stream_generate(*loaded, prompt_of(loaded, chat, question), **options))


def test_a_turn_reads_only_what_the_cache_does_not_hold(parrot_loaded):
    chat = conversation(parrot_loaded, system="who are you")
    totals = []
    for question in ("hello", "what is this", "how"):
        prompt = prompt_of(parrot_loaded, chat, question)
        cached = chat.context_used
        list(chat.answer(question, lambda processed, total: totals.append(total)))
        assert chat.reused == cached, "the whole cache is a prefix of the next prompt"
        assert totals[-1] == chat.read == len(prompt) - cached
        assert chat.context_used == len(prompt) + 12
    assert totals[-1] < 20 < len(prompt), f"{totals[-1]} of {len(prompt)} tokens were read for a one-word question"


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 0.9, "seed": 5},
        {"temperature": 0.7, "seed": 6, "top_p": 0.9, "mode": "ar"},
        {"logits_processors": make_logits_processors(repetition_penalty=3.0, repetition_context_size=60)},
    ],
    ids=["greedy", "sampled", "filtered", "penalty"],
)
def test_answers_are_those_of_a_fresh_cache(random_loaded, options):
    chat = conversation(random_loaded, **options)
    for question in ("hello", "what is this", "who are you"):
        expected = fresh_answer(random_loaded, chat, question, **options)
        assert say(chat, question) == expected


def test_a_penalty_sees_the_part_of_the_chat_that_is_cached(parrot_loaded):
    seen = []

    def processor(tokens, logits):
        seen.append(tokens.tolist())
        return logits

    chat = conversation(parrot_loaded, logits_processors=[processor])
    say(chat, "hello")
    prompt = prompt_of(parrot_loaded, chat, "how")
    seen.clear()
    say(chat, "how")
    assert chat.reused > 0 and seen[0] == prompt


def test_an_answer_cut_short_stays_in_the_chat_and_the_cache_stays_valid(random_loaded):
    chat = conversation(random_loaded)
    text = say(chat, "hello", tokens=3)
    assert chat.messages == [{"role": "user", "content": "hello"}, {"role": "assistant", "content": text}]
    prompt_tokens = len(prompt_of(random_loaded, conversation(random_loaded), "hello"))
    assert chat.context_used == prompt_tokens + 3
    assert say(chat, "what is this") == fresh_answer(random_loaded, _with(chat, -2), "what is this")


@pytest.mark.parametrize(("options", "tokens"), [({}, 3), ({"stop": "ohel"}, 2)], ids=["Ctrl-C", "stop string"])
def test_figures_of_an_answer_cut_short_count_the_drafts_that_were_shown(parrot_loaded, options, tokens):
    responses = conversation(parrot_loaded, **options).answer("hello")
    *_, last = islice(responses, tokens)
    responses.close()
    assert (last.stats.tokens, last.stats.accepted, last.stats.drafted) == (tokens, tokens, 7)
    assert sum(last.stats.accepted_at) == tokens


def _with(chat: Conversation, drop: int) -> Conversation:
    """The chat as it stood `-drop` messages ago, for rendering only."""
    earlier = Conversation(chat._model, chat._tokenizer, system=chat.system, template_options={}, options={})
    earlier.messages = chat.messages[:drop]
    return earlier


def test_an_interrupt_while_the_prompt_is_read_keeps_the_chat_and_the_part_that_was_read(parrot_loaded):
    chat = conversation(parrot_loaded, prefill_step_size=4)

    def interrupt(processed: int, total: int) -> None:
        if processed >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(chat.answer("hello who are you", interrupt))
    assert chat.messages == [] and chat.context_used == 8
    assert say(chat, "hello who are you") == "hello" * 12
    assert chat.reused == 8


@pytest.mark.parametrize("calls", [1, 2, 5, 9])
def test_an_exception_in_user_code_keeps_the_part_that_was_answered(random_loaded, calls):
    left = [calls]

    def processor(tokens, logits):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return logits

    chat = conversation(random_loaded, logits_processors=[processor])
    with pytest.raises(KeyboardInterrupt):
        list(chat.answer("hello"))
    assert len(chat.messages) == (
        2 if chat.context_used > len(prompt_of(random_loaded, _with(chat, 0), "hello")) else 0
    )
    expected = fresh_answer(random_loaded, chat, "what is this")
    assert say(chat, "what is this") == expected


def test_an_answer_that_is_never_begun_leaves_the_cache_and_its_tokens_in_step(random_loaded):
    chat = conversation(random_loaded)
    say(chat, "hello")
    expected = fresh_answer(random_loaded, chat, "how")
    chat.messages, kept = [], chat.messages
    chat.answer("who are you")
    chat.messages = kept
    assert say(chat, "how") == expected


def test_a_reset_keeps_the_system_prompt_and_its_cache(parrot_loaded):
    chat = conversation(parrot_loaded, system="who are you and what is this")
    say(chat, "hello")
    chat.reset()
    assert chat.messages == [] and chat.system
    say(chat, "how")
    system_only = render(parrot_loaded[1], with_system(chat.system, []), {}).split("<|im_start|>assistant")[0]
    assert chat.reused >= len(parrot_loaded[1].encode(system_only, add_special_tokens=False))


def test_another_system_prompt_is_read_anew(random_loaded):
    chat = conversation(random_loaded, system="hello")
    say(chat, "hello")
    chat.system = "who"
    expected = fresh_answer(random_loaded, chat, "how")
    assert say(chat, "how") == expected
    assert chat.reused < 8


def test_the_same_question_again_after_a_reset_reads_one_token(parrot_loaded):
    chat = conversation(parrot_loaded)
    first = say(chat, "hello")
    chat.reset()
    assert say(chat, "hello") == first
    assert chat.read == 1


def test_a_stop_string_is_not_part_of_the_chat(parrot_loaded):
    chat = conversation(parrot_loaded, stop=["lohellohel"])
    assert say(chat, "hello") == "hel"
    assert chat.messages[-1]["content"] == "hel"
    assert say(chat, "how") == "hel"


def test_a_chat_that_outgrows_the_context_is_refused_and_can_be_reset(tmp_path):
    loaded = load(write_checkpoint(tmp_path / "short", says="hello", context=40))
    chat = conversation(loaded, max_tokens=-1)
    last = list(chat.answer("hello"))[-1]
    assert last.finish_reason == "context" and chat.context_used == 40
    turns = len(chat.messages)
    with pytest.raises(RequestError, match=r"come to \d+ tokens, but the model's context is 40; reset the chat"):
        chat.answer("how")
    assert len(chat.messages) == turns
    chat.reset()
    assert say(chat, "how").startswith("hello")


def test_a_thought_that_was_cut_short_is_closed_in_the_chat(random_model, random_loaded):
    think = random_loaded[1].think_start_id
    processors = make_logits_processors({think: 1e9})
    chat = conversation(random_loaded, logits_processors=processors, max_tokens=2)
    assert say(chat, "hello") == "<think><think>"
    assert chat.messages[-1]["content"] == "<think><think>\n</think>\n\n"


def test_thinking_is_switched_off_by_the_template(random_loaded):
    tokenizer = random_loaded[1]
    messages = [{"role": "user", "content": "hello"}]
    assert render(tokenizer, messages, {"enable_thinking": False}).endswith("<think>\n\n</think>\n\n")
    assert render(tokenizer, messages, {}).endswith("<|im_start|>assistant\n")


def test_a_template_may_open_the_thought_itself():
    assert opens_thought("...assistant\n<think>\n", ("<think>", "</think>"))
    assert not opens_thought("...assistant\n<think>\n\n</think>\n\n", ("<think>", "</think>"))
    assert not opens_thought("<think>", None)


def test_a_template_that_refuses_is_named(random_loaded, monkeypatch):
    monkeypatch.setattr(random_loaded[1]._tokenizer, "chat_template", "{{ raise_exception('no system role') }}")
    with pytest.raises(RequestError, match=r"chat template refuses this conversation \(no system role\)"):
        render(random_loaded[1], [{"role": "user", "content": "hello"}], {})


def test_a_model_without_a_chat_template_is_named(tmp_path):
    _, tokenizer = load(write_checkpoint(tmp_path / "plain", template=False))
    with pytest.raises(RequestError, match="no chat template; use `orthrus-mlx generate --ignore-chat-template`"):
        render(tokenizer, [], {})


# Saved chats ------------------------------------------------------------------------------------------

TURNS = [{"role": "user", "content": "Grüße\n日本"}, {"role": "assistant", "content": "hello"}]


def test_a_saved_chat_comes_back_as_it_was(tmp_path):
    file = tmp_path / "chat.json"
    for system in (None, "Be brief."):
        save_chat(file, model="m", system=system, messages=TURNS)
        assert load_chat(file) == (system, TURNS, "m")
    assert [f.name for f in tmp_path.iterdir()] == ["chat.json"], "no partial file is left"
    assert "日本" in file.read_text("utf-8")


def test_saving_replaces_no_other_file(tmp_path):
    file = tmp_path / "thesis.json"
    file.write_text('{"years": 3}')
    with pytest.raises(RequestError, match=r"thesis\.json: exists and is not a saved chat; give another name"):
        save_chat(file, model="m", system=None, messages=TURNS)
    assert file.read_text() == '{"years": 3}'


def test_a_failed_save_leaves_the_earlier_chat(tmp_path, monkeypatch):
    file = tmp_path / "chat.json"
    save_chat(file, model="m", system=None, messages=TURNS)
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RequestError, match=r"cannot be written \(No space left on device\)"):
        save_chat(file, model="m", system=None, messages=[])
    assert file.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_saving_into_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"there is no folder .*none; give another name"):
        save_chat(tmp_path / "none" / "chat.json", model="m", system=None, messages=TURNS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "no such file; give a file that /save wrote"),
        ("[1]", "expected a JSON object"),
        ("{", "not valid JSON"),
        ("{}", "not a saved chat"),
        ({"format": "orthrus-mlx chat 2"}, "not a saved chat"),
        ({"system": 3}, "`system` and `model` must be text"),
        ({"model": None}, "`system` and `model` must be text"),
        ({"messages": "hi"}, "must be user and assistant messages in turn"),
        ({"messages": TURNS[:1]}, "must be user and assistant messages in turn"),
        ({"messages": TURNS[::-1]}, "must be user and assistant messages in turn"),
        ({"messages": [{"role": "user"}, TURNS[1]]}, "must be user and assistant messages in turn"),
        ({"messages": ["hello", "hello"]}, "must be user and assistant messages in turn"),
    ],
)
def test_what_is_no_saved_chat_is_refused(tmp_path, change, message):
    file = tmp_path / "chat.json"
    if isinstance(change, str):
        file.write_text(change)
    elif change is not None:
        save_chat(file, model="m", system=None, messages=TURNS)
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(RequestError, match=message) as refusal:
        load_chat(file)
    assert str(file) in str(refusal.value)
