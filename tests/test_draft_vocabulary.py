"""Drafts from a reduced vocabulary: the same tokens, chosen by the converter, checked at load, off unless it wins."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import tiny
from convert_checkpoints import EOS, ORTHRUS, QWEN3, VOCABULARY, write_checkpoint
from mlx.utils import tree_flatten

from orthrus_mlx import draft_head, load, mlx_generate
from orthrus_mlx.cache import KVCache
from orthrus_mlx.convert import convert
from orthrus_mlx.convert.__main__ import main
from orthrus_mlx.decoding.stats import DecodeStats
from orthrus_mlx.draft_head import DraftHead, install_draft_head, worthwhile
from orthrus_mlx.draft_vocabulary import DraftVocabulary
from orthrus_mlx.errors import CheckpointError, ConfigError
from orthrus_mlx.loading import load_model, read_config
from orthrus_mlx.model import Model
from orthrus_mlx.passes import Block, run_pass
from orthrus_mlx.safetensors_file import open_checkpoint
from orthrus_mlx.sampling import Sampling
from orthrus_mlx.weights import AR, DIFFUSION

UNTIED = ORTHRUS | {"tie_word_embeddings": False}
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "T 0.8": {"temperature": 0.8},
    "filtered": {"temperature": 1.2, "top_p": 0.95, "top_k": 20},
}


def vocabulary(*ids: int, coverage: float = 0.99) -> DraftVocabulary:
    return DraftVocabulary(np.array(ids, np.int32), coverage)


def reduced_model(ids: list[int], dtype: str = "float32", quantization: str = "none", **changes: Any) -> Model:
    """A model of its own whose drafts are of `ids`."""
    settings = tiny.config(**changes)
    model = tiny.build(settings, tiny.weights(settings), dtype, quantization)
    model.draft_vocabulary = vocabulary(*ids)
    install_draft_head(model, "force")
    return model


# Losslessness ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(
    "ids", [range(0, 62, 3), range(40), range(16)], ids=["every third", "most", "a quarter"], scope="module"
)
def test_the_tokens_are_those_of_ar_whatever_the_vocabulary_misses(ids, sampling):
    model, drafted = reduced_model(list(ids)), 0
    for seed in range(3):
        prompt, options = tiny.prompt(seed), {"seed": seed, **SAMPLINGS[sampling]}
        expected = list(mlx_generate(model, prompt, None, 16, mode="ar", **options))
        for mode in ("diffusion", "auto"):
            stats = DecodeStats()
            tokens = list(mlx_generate(model, prompt, None, 16, mode=mode, stats=stats, **options))
            assert tokens == expected, (mode, seed)
            drafted += stats.drafted
    assert drafted > 0


def test_a_vocabulary_that_never_has_the_right_token_costs_drafts_and_nothing_else():
    model = reduced_model(list(range(16)))
    prompt = tiny.prompt(3)
    expected = list(mlx_generate(model, prompt, None, 12, mode="ar"))
    missing = [token for token in range(tiny.VOCABULARY) if token not in expected]
    model.draft_head = DraftHead(model, vocabulary(*missing))
    stats = DecodeStats()
    assert list(mlx_generate(model, prompt, None, 12, mode="diffusion", stats=stats)) == expected
    assert stats.drafted > 0
    assert stats.accepted == 0


def test_with_nothing_missing_the_drafts_are_those_of_the_full_head():
    model = reduced_model(list(range(tiny.VOCABULARY - 1)))
    counts = []
    for head in (model.draft_head, None):
        model.draft_head, stats = head, DecodeStats()
        list(mlx_generate(model, tiny.prompt(1), None, 24, mode="diffusion", temperature=0.7, seed=5, stats=stats))
        counts.append((stats.drafted, stats.accepted))
    assert counts[0] == counts[1]
    assert counts[0][1] > 0


# The head -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("quantization", tiny.QUANTIZATIONS)
def test_its_logits_are_the_full_heads_and_minus_infinity_elsewhere(quantization, tied):
    ids = [0, 1, 5, *range(20, 60, 2)]
    model = reduced_model(ids, quantization=quantization, tie_word_embeddings=tied)
    hidden = mx.random.normal((3, 32), key=mx.random.key(1))
    full, reduced = np.array(model.head(hidden)), np.array(model.draft_head(hidden))
    np.testing.assert_allclose(reduced[:, ids], full[:, ids], rtol=1e-4, atol=1e-5)
    assert np.isneginf(np.delete(reduced, ids, axis=1)).all()


def test_a_draft_takes_rule_as_noise_of_its_own_tokens():
    ids = list(range(1, 60, 2))
    model = reduced_model(ids)
    hidden, sampling = mx.random.normal((5, 32), key=mx.random.key(2)), Sampling(temperature=1.0, seed=7)
    scores = np.array(sampling.scores(model.head(hidden), 30))[:, ids]
    assert sampling.choose(model.draft_head(hidden), 30).tolist() == [ids[i] for i in scores.argmax(axis=1)]


def test_only_passes_that_draft_alone_use_it():
    model = reduced_model(list(range(20)))
    cache, tokens = KVCache(len(model.layers)), mx.array([3, 63, 63])

    def tokens_with_logits(*blocks: Block) -> list[int]:
        return [int(mx.isfinite(logits).sum(axis=-1).max().item()) for logits in run_pass(model, blocks)]

    assert tokens_with_logits(Block(cache, tokens, DIFFUSION, wanted=2)) == [20]
    assert tokens_with_logits(Block(cache, tokens, DIFFUSION), Block(KVCache(2), tokens, DIFFUSION)) == [20, 20]
    assert tokens_with_logits(Block(cache, tokens, AR)) == [64]
    assert tokens_with_logits(Block(KVCache(2), tokens, AR), Block(cache, tokens, DIFFUSION)) == [64, 64]


def test_it_is_not_among_the_models_parameters():
    settings = tiny.config()
    plain = tiny.build(settings, tiny.weights(settings))
    names = [name for name, _ in tree_flatten(plain.parameters())]
    assert [name for name, _ in tree_flatten(reduced_model(list(range(20))).parameters())] == names


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_it_computes_with_the_kernels_of_the_full_head(tied):
    from orthrus_mlx.acceleration import accelerate

    settings = tiny.config(tie_word_embeddings=tied)
    model = tiny.build(settings, tiny.weights(settings))
    accelerate(model, "force")
    model.draft_vocabulary = vocabulary(*range(20))
    hidden = mx.random.normal((3, 32), key=mx.random.key(1))
    full = model.head(hidden)
    install_draft_head(model, "force")
    np.testing.assert_allclose(np.array(model.draft_head(hidden))[:, :20], np.array(full)[:, :20], rtol=1e-4, atol=1e-5)
    assert mx.array_equal(model.head(hidden), full)


# The decision ---------------------------------------------------------------------------------------


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, float]:
    """Draft passes take what the test says, in milliseconds by head; nothing was measured before."""
    times = {"full": 10.0, "reduced": 10.0}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        draft_head, "_milliseconds", lambda model, block, head: times["full" if head is None else "reduced"]
    )
    return times


@pytest.mark.parametrize(
    ("reduced", "coverage", "used"),
    [(8.0, 1.0, True), (10.0, 1.0, False), (12.0, 1.0, False), (8.0, 0.99, True), (8.0, 0.9, False), (0.1, 0.5, False)],
)
def test_it_is_used_only_where_it_saves_more_than_the_drafts_it_costs(timed, reduced, coverage, used):
    model = reduced_model(list(range(20)))
    model.draft_vocabulary = vocabulary(*range(20), coverage=coverage)
    timed["reduced"] = reduced
    note = install_draft_head(model, "auto")
    assert (model.draft_head is not None) == used
    assert ("not worth it" not in note) == used
    assert f"{reduced:.3g} ms" in note


def test_off_never_uses_it_and_a_model_without_one_has_nothing_to_say(timed):
    model = reduced_model(list(range(20)))
    assert "off by request" in install_draft_head(model, "off")
    assert model.draft_head is None
    model.draft_vocabulary = None
    assert install_draft_head(model, "auto") is None


def test_what_was_measured_is_not_measured_again(timed):
    model = reduced_model(list(range(20)))
    timed["reduced"] = 5.0
    install_draft_head(model, "auto")
    timed["reduced"] = 10.0
    install_draft_head(model, "auto")
    assert model.draft_head is not None
    model.draft_vocabulary = vocabulary(*range(21))
    install_draft_head(model, "auto")
    assert model.draft_head is None


def test_the_measurement_times_real_passes_with_either_head(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seen = []

    def recorded(model: Model, blocks: list[Block]) -> list[mx.array]:
        (logits,) = run_pass(model, blocks)
        seen.append((blocks[0].view, blocks[0].tokens.size, int(mx.isfinite(logits[0]).sum().item())))
        return [logits]

    monkeypatch.setattr(draft_head, "run_pass", recorded)
    model = reduced_model(list(range(20)))
    assert " ms, with the full head " in install_draft_head(model, "auto")
    assert set(seen) == {(DIFFUSION, 16, 20), (DIFFUSION, 16, 64)}


def test_losing_more_drafts_needs_a_larger_saving():
    limits = [max(r / 100 for r in range(101) if worthwhile(1.0, r / 100, c)) for c in (1.0, 0.995, 0.99, 0.98)]
    assert limits == sorted(limits, reverse=True)
    assert limits[0] < 0.97


# The converter --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_checkpoint(folder, UNTIED)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("the lazy dog jumps over the quick brown fox\n" * 400, encoding="utf-8")
    return file


def settings_of(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text())
    return config.get("orthrus", config)["draft_vocabulary"]


FORMS = [
    *({"layout": layout} for layout in ("sidecar", "single")),
    *({"quantize": True, "q_mode": mode} for mode in ("affine", "mxfp4", "nvfp4", "mxfp8")),
    {"quantize": True, "q_bits": 8, "layout": "single", "diff_quantize": False},
    {"max_shard_size": "100KB"},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_it_survives_the_way_through_a_converted_folder(tmp_path, source, text, form):
    result = convert(source, tmp_path / "out", draft_vocabulary=40, draft_text=[text], **form)
    model = load_model(tmp_path / "out", read_config(tmp_path / "out"))
    assert model.draft_vocabulary.ids.tolist() == result.draft_vocabulary.ids.tolist()
    assert settings_of(tmp_path / "out") == {"size": 40, "coverage": model.draft_vocabulary.coverage}
    place = open_checkpoint(tmp_path / "out")["draft_vocabulary"].file.name
    assert place.startswith("model" if form.get("layout") == "single" else "orthrus_diff")
    expected = list(mlx_generate(model, [5, 60, 7], None, 8, mode="ar"))
    install_draft_head(model, "force")
    assert list(mlx_generate(model, [5, 60, 7], None, 8, mode="diffusion")) == expected


def test_stock_mlx_lm_still_loads_the_folder(tmp_path, source, text):
    convert(source, tmp_path / "out", draft_vocabulary=40, draft_text=[text])
    convert(source, tmp_path / "without")
    tokens = mx.array([[5, 60, 7]])
    (model, _), (plain, _) = (mlx_lm.load(str(tmp_path / name)) for name in ("out", "without"))
    assert mx.array_equal(model(tokens), plain(tokens))


def test_loading_decides_as_kernels_says(tmp_path, source, text):
    convert(source, tmp_path / "out", draft_vocabulary=40, draft_text=[text])
    assert load(tmp_path / "out", kernels="off")[0].draft_head is None
    assert load(tmp_path / "out", kernels="force")[0].draft_head.size == 40


def test_the_most_frequent_ids_and_the_tokens_that_end_a_text_are_in_it(tmp_path, source, text):
    result = convert(source, tmp_path / "out", draft_vocabulary=40, draft_text=[text])
    _, tokenizer = load(tmp_path / "out")
    used = set(tokenizer.encode(text.read_text()[:88]))
    added = set(tokenizer.get_added_vocab().values())
    ids = result.draft_vocabulary.ids.tolist()
    assert used | added | {EOS} <= set(ids)
    assert result.draft_vocabulary.coverage == 1.0
    # The text has fewer ids than asked for: the lowest others fill up.
    others = [i for i in range(VOCABULARY) if i not in used | added]
    assert sorted(set(ids) - used - added) == others[: 40 - len(used | added)]


def test_coverage_is_that_of_documents_the_ids_were_not_chosen_from(tmp_path, source):
    file = tmp_path / "chats.jsonl"
    said = [{"text": "abcdefghijklmnop"}, {"messages": [{"role": "user", "content": "abcdefgh" + "ABCDEFGH"}]}]
    file.write_text("".join(json.dumps(said[i % 2]) + "\n" for i in range(20)))
    result = convert(source, tmp_path / "out", draft_vocabulary=19, draft_text=[file])
    assert 0.3 < result.draft_vocabulary.coverage < 0.7


def test_converting_again_keeps_it_or_replaces_it(tmp_path, source, text):
    first = convert(source, tmp_path / "first", draft_vocabulary=40, draft_text=[text])
    kept = convert(tmp_path / "first", tmp_path / "kept", quantize=True, layout="single")
    assert kept.draft_vocabulary.ids.tolist() == first.draft_vocabulary.ids.tolist()
    assert settings_of(tmp_path / "kept") == settings_of(tmp_path / "first")
    convert(tmp_path / "first", tmp_path / "other", draft_vocabulary=50, draft_text=[text])
    assert settings_of(tmp_path / "other")["size"] == 50


def test_the_command_line_has_it(tmp_path, source, text, monkeypatch, capsys):
    command = (
        f"convert --hf-path {source} --mlx-path {tmp_path / 'out'} --draft-vocabulary 40 --draft-text {text} {text}"
    )
    monkeypatch.setattr("sys.argv", command.split())
    assert main() == 0
    assert "drafts     40 ids, 100.00% of the text's tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("size", "content", "message"),
    [
        (40, None, "name one with --draft-text FILE"),
        (15, "the dog\n", "must be in 16..319, not 15"),
        (320, "the dog\n", "must be in 16..319, not 320"),
        (None, "the dog\n", "--draft-text needs --draft-vocabulary"),
        (40, "", "less than two documents"),
        (40, "the dog", "less than two documents"),
        (40, b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused_with_the_way_out(tmp_path, source, size, content, message):
    file = tmp_path / "text.txt"
    file.write_bytes(content if isinstance(content, bytes) else (content or "").encode())
    files = [] if content is None else [file]
    with pytest.raises(ConfigError, match=message):
        convert(source, tmp_path / "out", draft_vocabulary=size, draft_text=files)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"text": 1}', '{"messages": "hello"}', '{"messages": [{"role": "user"}]}']
)
def test_a_bad_line_is_named(tmp_path, source, line):
    file = tmp_path / "text.jsonl"
    file.write_text('{"text": "the"}\n' + line + "\n")
    with pytest.raises(ConfigError, match=r"text\.jsonl:2: "):
        convert(source, tmp_path / "out", draft_vocabulary=40, draft_text=[file])


def test_a_missing_text_is_named(tmp_path, source):
    with pytest.raises(ConfigError, match=r"nowhere\.txt: No such file"):
        convert(source, tmp_path / "out", draft_vocabulary=40, draft_text=[tmp_path / "nowhere.txt"])


def test_a_plain_qwen3_has_no_drafts_to_limit(tmp_path, text):
    write_checkpoint(tmp_path / "source", QWEN3)
    with pytest.raises(ConfigError, match="has no diffusion weights; leave out --draft-vocabulary"):
        convert(tmp_path / "source", tmp_path / "out", draft_vocabulary=40, draft_text=[text])


# Damaged checkpoints --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, source: Path, text: Path) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "out"
    convert(source, folder, draft_vocabulary=40, draft_text=[text])
    return folder


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (mx.array([*range(39), 38], mx.int32), "ascending ids in 0..319"),
        (mx.array([-1, *range(39)], mx.int32), "ascending ids in 0..319"),
        (mx.array([*range(39), 320], mx.int32), "ascending ids in 0..319"),
        (mx.array([*range(38), 40, 39], mx.int32), "ascending ids in 0..319"),
        (mx.arange(39, dtype=mx.int32), r"is I32 \[39\], config.json asks for I32 \[40\]"),
        (mx.arange(40, dtype=mx.int64), "is I64"),
        (None, "tensor draft_vocabulary is missing"),
    ],
    ids=["repeated", "negative", "too large", "unsorted", "short", "of another dtype", "missing"],
)
def test_a_damaged_one_is_named(tmp_path, converted, damaged, message):
    folder = shutil.copytree(converted, tmp_path / "copy")
    file = folder / "orthrus_diff.safetensors"
    tensors = mx.load(str(file))
    mx.eval(tensors)
    del tensors["draft_vocabulary"]
    tiny.write_tensors(file, tensors if damaged is None else {**tensors, "draft_vocabulary": damaged})
    with pytest.raises(CheckpointError, match=message) as refused:
        load_model(folder, read_config(folder))
    assert "draft_vocabulary" in str(refused.value)


@pytest.mark.parametrize("wrong", [40, {"size": 15, "coverage": 1}, {"size": 320, "coverage": 1}, {"size": 40}, []])
def test_a_wrong_setting_is_named(tmp_path, converted, wrong):
    folder = shutil.copytree(converted, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config["orthrus"]["draft_vocabulary"] = wrong
    tiny.write_json(folder / "config.json", config)
    with pytest.raises(ConfigError, match=r"config\.json: draft_vocabulary must have size"):
        load_model(folder, read_config(folder))


def test_a_tensor_that_the_config_does_not_name_is_no_part_of_the_model(tmp_path, converted):
    folder = shutil.copytree(converted, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    del config["orthrus"]["draft_vocabulary"]
    tiny.write_json(folder / "config.json", config)
    with pytest.raises(CheckpointError, match="'draft_vocabulary' is not part of this model"):
        load_model(folder, read_config(folder))
