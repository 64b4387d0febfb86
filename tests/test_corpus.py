"""The demo corpus: its answers pass its own checkers, its held-out part stays out, its tokenizer loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from random import Random

import pytest

from orthrus_mlx.errors import TrainingError
from orthrus_mlx.training.corpus import (
    FAMILIES,
    MIX,
    TRAIN,
    Split,
    check,
    code,
    dialogue,
    generate,
    heldout,
    json_tables,
    prose,
    prose_words,
    reasoning,
    records,
    render_chat,
    render_document,
    render_prompt,
    save_tokenizer,
    train_tokenizer,
    training_document,
    training_documents,
    words,
)
from orthrus_mlx.training.corpus.code_kind import KINDS
from orthrus_mlx.training.corpus.core import Verdict, assistant, system, user
from orthrus_mlx.training.corpus.sandbox import run_programs
from orthrus_mlx.training.corpus.shape import SHAPES

HELD = Split(values=True)
UNSEEN = Split(values=True, paraphrases=True)
SPLITS = {"train": TRAIN, "held": HELD, "unseen": UNSEEN}


@pytest.fixture(scope="module")
def documents():
    return list(training_documents(seed=3, count=12_000))


@pytest.fixture(scope="module")
def tokenizer_folder(documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(documents[:8_000], 3_000), folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_folder)


def assert_all_pass(examples):
    for example in examples:
        verdict = check(example, example.reference)
        assert verdict.ok, f"{example.family}/{example.paraphrase}: {verdict.reason}\n{render_document(example)}"


# References and checkers.


@pytest.mark.parametrize("split", [TRAIN, HELD], ids=["train", "held"])
def test_every_question_shape_passes_its_own_checker(split):
    rng = Random(1)
    assert_all_pass(reasoning.generate(rng, split, name) for name in SHAPES for _ in range(12))


@pytest.mark.parametrize("split", [TRAIN, HELD], ids=["train", "held"])
def test_every_json_and_table_shape_passes_its_own_checker(split):
    rng = Random(2)
    assert_all_pass(json_tables.generate(rng, split, name) for name in json_tables.ASKS for _ in range(60))


def test_every_kind_of_function_gives_the_expected_results_when_run():
    rng = Random(3)
    examples = [code.generate(rng, split, name) for name in KINDS for split in (TRAIN, TRAIN, TRAIN, HELD)]
    programs = [code.program(example.expected, example.reference) for example in examples]
    assert not [program for program in programs if isinstance(program, Verdict)]
    reasons = run_programs(programs)
    assert not [(e.shape, reason) for e, reason in zip(examples, reasons, strict=True) if reason]


def test_every_prose_shape_passes_its_own_checker():
    rng = Random(4)
    assert_all_pass(prose.generate(rng, TRAIN, name) for name in prose.ASKS for _ in range(60))


def test_every_kind_of_small_talk_passes_its_own_checker():
    rng = Random(5)
    assert_all_pass(dialogue.generate(rng, TRAIN, name) for name in dialogue.TALK for _ in range(10))
    mixed = [dialogue.generate(rng, TRAIN, "mixed") for _ in range(150)]
    assert_all_pass(example for example in mixed if example.expected.get("family") != "code")


def test_arithmetic_in_every_step_is_right():
    rng = Random(6)
    operations = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "x": lambda a, b: a * b, "/": lambda a, b: a / b}
    seen = 0
    for name in SHAPES:
        for _ in range(15):
            for line in reasoning.generate(rng, TRAIN, name).reference.splitlines():
                left, found, right = line.rstrip(".").rpartition(" = ")
                parts = left.split()[-3:]
                if found and len(parts) == 3 and parts[1] in operations and right.split()[0].rstrip(",").isdigit():
                    seen += 1
                    assert operations[parts[1]](int(parts[0]), int(parts[2])) == int(right.split()[0].rstrip(",")), line
    assert seen > 1_000


def test_the_rectangle_of_the_readme_has_area_84():
    shape = SHAPES["rectangle_area"]
    steps, answer = shape.answer(shape.complete({"a": 12, "b": 7}))
    question = shape.ask[0].render(Random(0), {"a": 12, "b": 7})
    assert question == "If a rectangle has length 12 and width 7, what is its area?"
    assert (steps[-1], answer) == ("12 x 7 = 84", 84)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_answer_does_not_pass(family):
    for example in heldout(family, 12, seed=1):
        assert not check(example, "").ok
        assert not check(example, "qwrt zxcv " * 8).ok
        other = "```json\n{}\n```" if family != "json" else "The answer is 1."
        assert not check(example, other).ok


def test_the_checkers_see_one_wrong_digit_key_or_operator():
    rng = Random(7)
    example = reasoning.generate(rng, TRAIN, "rectangle_area")
    while example.expected["style"]:
        example = reasoning.generate(rng, TRAIN, "rectangle_area")
    head, _, answer = example.reference.rpartition("The answer is ")
    assert not check(example, f"{head}The answer is {int(answer[:-1]) + 1}.").ok
    example = json_tables.generate(rng, TRAIN, "object")
    key = next(iter(example.expected["value"]))
    assert not check(example, example.reference.replace(f'"{key}"', f'"{key}s"')).ok
    example = code.generate(rng, TRAIN, "add")
    assert check(example, example.reference).ok
    assert not check(example, example.reference.replace(" + ", " - ")).ok


def test_a_style_asked_for_in_the_system_prompt_is_checked():
    rng = Random(8)
    seen = set()
    while seen < {"done", "sure", "number", "short"}:
        example = reasoning.generate(rng, TRAIN)
        style = example.expected["style"]
        if style in seen or not style or len(example.messages) > 3:
            continue
        seen.add(style)
        assert example.messages[0]["role"] == "system"
        plain = f"First this.\nThe answer is {example.expected['answer']}."
        assert not check(example, plain).ok, style


def test_model_code_cannot_hang_open_files_or_import():
    case = {"function": "f", "cases": [{"args": [], "result": 1}]}
    loop = {"code": "def f():\n    while True:\n        pass", **case}
    assert run_programs([loop], seconds=1)[0]
    bad = ["def f():\n    return open('/etc/passwd').read()", "import os\ndef f():\n    return 1", "def f(:", "x = 1"]
    assert all(run_programs([{"code": text, **case} for text in bad]))
    assert run_programs([{"code": "def f():\n    return True", **case}])[0]


# Splits.


def test_documents_depend_on_seed_and_index_only():
    first = list(training_documents(seed=9, count=40))
    assert list(training_documents(seed=9, count=10, start=20)) == first[20:30]
    assert training_document(10, 0) != first[0]
    program = (
        "from orthrus_mlx.training.corpus import training_document as d; print(ascii([d(9, i) for i in range(40)]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == ascii(first)


@pytest.mark.parametrize("unseen", [False, True], ids=["values", "paraphrases"])
@pytest.mark.parametrize("family", ["reasoning", "json", "code", "prose"])
def test_training_never_shows_a_held_out_question(documents, family, unseen):
    text = "\n".join(documents)
    for example in heldout(family, 60, seed=5, unseen_paraphrases=unseen):
        first = next(message["content"] for message in example.messages if message["role"] == "user")
        assert f"user\n{first}<|im_end|>" not in text


def test_training_never_uses_a_held_out_paraphrase():
    rng = Random(11)
    trained = {(e.family, e.paraphrase) for e in (generate(rng) for _ in range(6_000)) if e.family != "dialogue"}
    held = {
        (family, example.paraphrase)
        for family in ("reasoning", "json", "code", "prose")
        for example in heldout(family, 150, seed=2, unseen_paraphrases=True)
    }
    assert held
    assert not trained & held


def test_a_tenth_of_the_paraphrases_is_held_out():
    shapes = [(f"reasoning/{name}", len(shape.ask)) for name, shape in SHAPES.items()]
    held = sum(len(UNSEEN.wordings(name, count)) for name, count in shapes)
    assert 0.07 < held / sum(count for _, count in shapes) < 0.13
    assert all(TRAIN.wordings(name, count) for name, count in shapes)


def test_every_shape_has_held_out_values():
    rng = Random(12)
    for shape in SHAPES.values():
        held = {tuple(map(str, shape.key(shape.draw(rng, HELD)))) for _ in range(3)}
        assert held


def test_held_out_examples_differ_from_each_other_and_repeat_with_the_seed():
    first, again, other = (heldout("reasoning", 200, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len({str(example.prompt) for example in first}) == 200
    with pytest.raises(TrainingError, match="unknown corpus family"):
        heldout("poetry", 1, seed=1)


# Size and variety.


def test_the_corpus_is_as_varied_as_promised():
    assert len(SHAPES) >= 60
    assert all(len(shape.ask) >= 6 for shape in SHAPES.values())
    assert len(KINDS) >= 60
    assert all(len(kind.does) >= 4 and len(kind.functions) >= 4 for kind in KINDS.values())
    assert len(code._NAMED) + len(code._UNNAMED) >= 6
    assert len(records.RECORDS) >= 15
    assert len(records.all_keys()) >= 80
    assert all(len(asks) >= 6 for asks in (*json_tables.ASKS.values(), *prose.ASKS.values()))


def test_prose_draws_from_at_least_300_words_per_slot_group():
    groups = {
        "people": words.FIRST_NAMES,
        "things": prose_words.ADJECTIVES + prose_words.OBJECTS,
        "qualities": (
            *(*prose_words.TRAITS, *prose_words.FEELINGS, *prose_words.MANNERS),
            *(*prose_words.LOOKS, *prose_words.MOODS, *prose_words.TOUCHES),
        ),
        "places": (*words.TOWNS, *words.VILLAGES, *prose_words.PLACES, *prose_words.SPOTS),
    }
    sizes = {name: len({word for entry in pool for word in entry.split()}) for name, pool in groups.items()}
    assert min(sizes.values()) >= 300, sizes


def test_all_wordings_of_a_shape_differ():
    for name, shape in SHAPES.items():
        assert len({template.text for template in shape.ask}) == len(shape.ask), name
    for kind in KINDS.values():
        assert len(set(kind.does)) == len(kind.does), kind.name


def test_the_family_mix_is_the_stated_one():
    rng = Random(13)
    counts = Counter(generate(rng).family for _ in range(4_000))
    for family, share in MIX.items():
        assert abs(counts[family] / 4_000 - share) < 0.03, family


def test_documents_close_with_end_of_text_and_a_few_are_raw(documents):
    assert all(document.endswith("<|endoftext|>") for document in documents)
    raw = sum(not document.startswith("<|im_start|>") for document in documents)
    assert 0.01 < raw / len(documents) < 0.03
    assert sum("<|im_start|>system" in document for document in documents) > 0.1 * len(documents)
    turns = Counter(document.count("<|im_start|>assistant") for document in documents)
    assert all(turns[count] for count in (1, 2, 3, 4))


# Chat format and tokenizer.


def test_render_chat_is_qwens_format_without_think_blocks():
    messages = [system("Be brief."), user("Hi"), assistant("Hello!")]
    assert render_chat(messages) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n"
    )
    assert render_chat(messages[:2], add_generation_prompt=True).endswith("<|im_start|>assistant\n")


def test_the_saved_template_renders_like_render_chat(tokenizer):
    for family in FAMILIES:
        for example in heldout(family, 5, seed=3):
            rendered = tokenizer.apply_chat_template(
                example.prompt, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            assert rendered == render_prompt(example)
            assert tokenizer.apply_chat_template(example.messages, tokenize=False) == render_chat(example.messages)


def test_special_tokens_have_their_ids_and_the_mask_is_last(tokenizer):
    ids = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>"])
    assert ids == [0, 1, 2, len(tokenizer) - 1]
    assert len(tokenizer) == 3_000
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.model_max_length) == (2, 0, 2048)


def test_text_survives_the_tokenizer_and_digits_stand_alone(tokenizer, documents):
    for text in [*documents[-300:], "Zażółć gęślą jaźń — 東京 🙂 naïve\n\tx = 2048", "  two  spaces \n\n"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.tokenize("12345") == list("12345")


def test_a_prompts_tokens_begin_its_documents_tokens(tokenizer):
    rng = Random(14)
    raw = 0
    for _ in range(1_500):
        example = generate(rng)
        prompt, document = tokenizer.encode(render_prompt(example)), tokenizer.encode(render_document(example))
        assert document[: len(prompt)] == prompt, render_document(example)
        raw += example.raw
    assert raw > 5


def test_documents_fit_the_training_rows(tokenizer, documents):
    lengths = sorted(len(ids) for ids in tokenizer(documents[:2_000])["input_ids"])
    assert 60 < sum(lengths) / len(lengths) < 200
    assert lengths[-20] <= 400


def test_mlx_lm_streams_text_with_its_bpe_detokenizer(tokenizer_folder):
    from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, load

    wrapper = load(tokenizer_folder)
    detokenizer = wrapper.detokenizer
    assert isinstance(detokenizer, BPEStreamingDetokenizer)
    text = "The answer is 84.\n```json\n{}\n```"
    for token in wrapper.encode(text):
        detokenizer.add_token(token)
    detokenizer.finalize()
    assert detokenizer.text == text


def test_too_little_text_for_the_vocabulary_is_refused():
    with pytest.raises(TrainingError, match=r"expected 4096; give more text"):
        train_tokenizer(["a few words only"], 4096)


def test_the_module_prints_samples():
    command = [sys.executable, "-m", "orthrus_mlx.training.corpus", "--count", "2", "--family", "json", "--heldout"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("# json/") == 2
    assert done.stdout.count("<|endoftext|>") == 2


def test_expectations_survive_json():
    rng = Random(15)
    for _ in range(300):
        example = generate(rng)
        again = json.loads(json.dumps(example.expected))
        assert again == example.expected
