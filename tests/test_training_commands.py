"""Both training commands from their first flag to a model that loads and decodes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import mlx.core as mx
import pytest

from orthrus_mlx import load, mlx_generate
from orthrus_mlx.cli import train
from orthrus_mlx.config import ModelArgs
from orthrus_mlx.errors import TrainingError
from orthrus_mlx.model import DIFFUSION, Model
from orthrus_mlx.training import demo, evaluate
from orthrus_mlx.training.checkpoint import save_model
from orthrus_mlx.training.corpus.tokenizer import save_tokenizer, train_tokenizer
from orthrus_mlx.training.parameters import flat_parameters, load_parameters
from orthrus_mlx.training.plan import SMOKE, demo_config
from orthrus_mlx.training.pretrain import initial_parameters


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> Path:
    """A plain Qwen3 folder with a tokenizer; its embedding has rows that no text uses."""
    folder = tmp_path_factory.mktemp("qwen")
    texts = [f"What is {n} plus {n + 1}? It is {2 * n + 1}, as anyone can see." for n in range(300)]
    save_tokenizer(train_tokenizer(texts, 280), folder)
    config = {**demo_config(SMOKE), "vocab_size": 284}
    model = Model(ModelArgs.from_dict(config))
    load_parameters(model, initial_parameters(model, 0), lambda p: p)
    save_model(model, config, folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "chats.jsonl"
    lines = []
    for n in range(12):
        question = {"role": "user", "content": f"What is {n} plus {n + 1}?"}
        answer = {"role": "assistant", "content": f"It is {2 * n + 1}."}
        lines.append(json.dumps({"messages": [question] if n % 3 == 0 else [question, answer]}))
    path.write_text("\n".join([*lines, '{"text": "It is 7, as anyone can see."}']) + "\n")
    return path


def arguments(qwen: Path, data: Path, output: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    sizes = "--block-size 4 --steps 3 --batch-size 2 --anchors 3 --row-length 64 --learning-rate 1e-3".split()
    return parser.parse_args(["--model", str(qwen), "--data", str(data), "--output", str(output), *sizes, *more])


def test_train_writes_a_side_car_model_with_the_base_untouched_that_decodes(qwen, data, tmp_path, capsys):
    assert train.run(arguments(qwen, data, tmp_path, "--self-answer")) == 0
    base = mx.load(str(qwen / "model.safetensors"))
    model, tokenizer = load(tmp_path)
    weights = flat_parameters(model)
    for name, value in base.items():
        assert mx.array_equal(value, weights[name]), name
    moved = [k for k in weights if DIFFUSION in k and not mx.array_equal(weights[k], base[k.replace(DIFFUSION, "")])]
    assert moved
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "qwen3"
    assert config["orthrus"] == {"block_size": 4, "mask_token_id": 280}
    prompt = tokenizer.encode("What is 3 plus 4?")
    drafted = list(mlx_generate(model, prompt, tokenizer.eos_token_id, 20, mode="diffusion"))
    assert drafted == list(mlx_generate(model, prompt, tokenizer.eos_token_id, 20, mode="ar"))


def test_train_stops_with_exit_code_3_and_resumes_to_the_bits_of_an_unbroken_run(qwen, data, tmp_path, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train.run(arguments(qwen, data, whole)) == 0
    assert train.run(arguments(qwen, data, broken, "--stop-after-minutes", "0")) == 3
    assert not (broken / "config.json").exists()
    assert train.run(arguments(qwen, data, broken, "--resume")) == 0
    name = "orthrus_diff.safetensors"
    assert (whole / name).read_bytes() == (broken / name).read_bytes()


def test_a_second_run_over_a_first_needs_resume(qwen, data, tmp_path, capsys):
    train.run(arguments(qwen, data, tmp_path, "--stop-after-minutes", "0"))
    with pytest.raises(TrainingError, match="holds a run already; add --resume"):
        train.run(arguments(qwen, data, tmp_path))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--block-size", "33"), "--block-size 33 must lie in 2..32"),
        (("--row-length", "4"), "below --row-length 4"),
        (("--mask-token-id", "284"), "mask token 284: the embedding has 284 rows"),
        (("--anchors", "0"), "anchors must be at least 1"),
        (("--steps", "0"), "steps must be at least 1"),
        (("--data", "/nowhere/absent.jsonl"), "absent.jsonl: cannot be read"),
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused(qwen, data, tmp_path, flags, message, capsys):
    with pytest.raises(TrainingError, match=message):
        train.run(arguments(qwen, data, tmp_path, *flags))


def test_data_without_answers_is_refused(qwen, tmp_path, capsys):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "Why?"}]}\n')
    with pytest.raises(TrainingError, match="no document has an answer to learn from; add --self-answer"):
        train.run(arguments(qwen, path, tmp_path / "out"))


def test_the_demo_command_goes_through_every_stage_and_skips_those_done(tmp_path, capsys, monkeypatch):
    # The model has learnt nothing, so its answers would all run to the limit.
    monkeypatch.setattr(evaluate, "MAX_TOKENS", 40)
    out = tmp_path / "demo"
    flags = ["--out", str(out), "--smoke", "--workers", "1"]
    assert demo.main([*flags, "--until", "base"]) == 0
    assert demo.main(flags) == 0
    shown = capsys.readouterr().err
    assert "base: there already" in shown and "evaluation: done" in shown

    model, tokenizer = load(out)
    assert model.model.norm.weight.dtype == mx.bfloat16
    assert model.args.mask_token_id == SMOKE.vocab_size - 1
    card = (out / "README.md").read_text()
    assert "A demonstration, not an assistant" in card and "| reasoning | 0/1 | " in card
    assert "Missed: reasoning answers (0.0%)" in card and "{" not in card
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True)
    assert len(list(mlx_generate(model, prompt, None, 9))) == 9
    # Co-training goes on from the base and moves both views.
    base, shipped = (mx.load(str(f / "model.safetensors")) for f in (out.with_name("demo-work") / "base", out))
    assert set(base) == set(shipped)
    assert not [k for k in base if base[k].ndim > 1 and mx.array_equal(base[k], shipped[k])]
    diffusion = mx.load(str(out / "orthrus_diff.safetensors"))
    assert not [
        k
        for k in diffusion
        if k.endswith("proj_diff.weight") and mx.array_equal(diffusion[k], shipped[k.replace(DIFFUSION, "")])
    ]


def test_the_demo_command_out_of_time_leaves_a_run_to_continue(tmp_path, capsys):
    flags = ["--out", str(tmp_path / "demo"), "--smoke", "--workers", "1", "--until", "base"]
    assert demo.main([*flags, "--stop-after-minutes", "0"]) == 3
    assert "run the same command again" in capsys.readouterr().err
    assert demo.main(flags) == 0
