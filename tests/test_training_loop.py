"""Training changes what it may, learns, and continues to the bit."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest
from training_models import chat_documents, tiny_config, tiny_model

from orthrus_mlx.config import ModelArgs
from orthrus_mlx.errors import TrainingError
from orthrus_mlx.model import DIFFUSION, Model
from orthrus_mlx.training.checkpoint import with_diffusion_view
from orthrus_mlx.training.data import Rows, pack
from orthrus_mlx.training.distill import diffusion_parameters, distillation_loss
from orthrus_mlx.training.parameters import flat_parameters, load_parameters
from orthrus_mlx.training.pretrain import initial_parameters, pretraining_loss
from orthrus_mlx.training.trainer import STATE_FILE, Settings, Trainer


@pytest.fixture(scope="module")
def rows() -> Rows:
    return pack(chat_documents(60), 64, 512)


def distiller(rows: Rows, folder, steps: int = 6, model: Model | None = None, **settings) -> Trainer:
    model = model or tiny_model()
    chosen = {"batch_size": 4, "learning_rate": 3e-3, "log_every": 2, **settings}
    return Trainer(
        "distillation",
        diffusion_parameters(model),
        distillation_loss(model, 3, mx.float32),
        rows,
        Settings(steps, **chosen),
        folder,
    )


def records(folder) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_distillation_changes_every_diffusion_weight_and_nothing_else(rows, tmp_path):
    model = tiny_model()
    before = {k: np.array(v) for k, v in flat_parameters(model).items()}
    trainer = distiller(rows, tmp_path, steps=2, model=model)
    assert set(trainer.parameters) == {k for k in before if f"{DIFFUSION}." in k}
    trainer.run()
    load_parameters(model, trainer.parameters, lambda p: p)
    after = flat_parameters(model)
    changed = {k for k, v in before.items() if not np.array_equal(v, np.array(after[k]))}
    assert changed == set(trainer.parameters)


def test_a_run_stopped_after_every_step_ends_with_the_bits_of_an_unbroken_one(rows, tmp_path):
    whole = distiller(rows, tmp_path / "whole", log_every=4)
    assert whole.run()
    for step in range(1, 7):
        broken = distiller(rows, tmp_path / "broken", log_every=4)
        assert broken.resume() == (step > 1)
        assert broken.run(stop_after_minutes=0) == (step == 6)
        assert broken.step == step
    for group in ("parameters", "first", "second"):
        for name, value in getattr(whole, group).items():
            assert mx.array_equal(value, getattr(broken, group)[name]), f"{group}.{name}"
    assert records(tmp_path / "whole") == records(tmp_path / "broken")
    assert (tmp_path / "broken" / "curves.png").stat().st_size > 1000


def test_metrics_written_after_the_last_checkpoint_are_dropped_on_resume(rows, tmp_path):
    first = distiller(rows, tmp_path, log_every=1)
    first.run(stop_after_minutes=0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "loss": 9.0}\n{"step": 3, "lo')
    second = distiller(rows, tmp_path, log_every=1)
    second.resume()
    second.run()
    assert [r["step"] for r in records(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert records(tmp_path)[1]["loss"] != 9.0


def test_compiled_steps_compute_what_plain_ones_do(rows, tmp_path):
    plain = distiller(rows, tmp_path / "plain", steps=2)
    plain.run()
    mx.enable_compile()
    try:
        compiled = distiller(rows, tmp_path / "compiled", steps=2)
        compiled.run()
    finally:
        mx.disable_compile()
    for name, value in plain.parameters.items():
        np.testing.assert_allclose(np.array(value), np.array(compiled.parameters[name]), atol=2e-4, err_msg=name)


def test_pretraining_learns_and_distillation_then_agrees_more_and_loses_less(rows, tmp_path):
    base = Model(ModelArgs.from_dict(tiny_config(diffusion=False)))
    settings = Settings(100, 8, 1e-2, log_every=20)
    pretraining = Trainer(
        "pre-training", initial_parameters(base, 0), pretraining_loss(base, mx.float32), rows, settings, tmp_path / "a"
    )
    pretraining.run()
    learned = records(tmp_path / "a")
    assert learned[-1]["answer_loss"] < 0.6 * learned[0]["answer_loss"]
    assert learned[-1]["answer_accuracy"] > 0.5

    load_parameters(base, pretraining.parameters, lambda p: p)
    model = with_diffusion_view(base, tiny_config())
    distiller(rows, tmp_path / "b", steps=80, model=model, batch_size=8, learning_rate=1.5e-2, log_every=20).run()
    distilled = records(tmp_path / "b")
    assert distilled[-1]["loss"] < 0.5 * distilled[0]["loss"]
    assert distilled[-1]["agreement"] > distilled[0]["agreement"] + 0.1
    assert len(distilled[-1]["agreement_by_position"]) == 7


def test_a_new_diffusion_view_is_a_copy_of_the_ar_view():
    model = with_diffusion_view(tiny_model(diffusion=False), tiny_config())
    weights = flat_parameters(model)
    twins = [k for k in weights if f"{DIFFUSION}." in k]
    assert len(twins) == 6 * model.args.num_hidden_layers
    for name in twins:
        assert mx.array_equal(weights[name], weights[name.replace(DIFFUSION, "")]), name


def test_a_damaged_checkpoint_is_refused_by_name(rows, tmp_path):
    trainer = distiller(rows, tmp_path)
    trainer.run(stop_after_minutes=0)
    path = tmp_path / STATE_FILE
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TrainingError, match=r"state\.safetensors: not a readable training checkpoint"):
        distiller(rows, tmp_path).resume()


def test_a_safetensors_file_of_something_else_is_refused(rows, tmp_path):
    mx.save_safetensors(str(tmp_path / STATE_FILE), {"a": mx.zeros((1,))})
    with pytest.raises(TrainingError, match="not a readable training checkpoint"):
        distiller(rows, tmp_path).resume()


@pytest.mark.parametrize(
    ("change", "named"),
    [({"batch_size": 5}, "batch_size = 4, this run has 5"), ({"seed": 1}, "seed = 0, this run has 1")],
)
def test_a_checkpoint_of_another_run_is_refused_by_the_setting_that_differs(rows, tmp_path, change, named):
    distiller(rows, tmp_path).run(stop_after_minutes=0)
    with pytest.raises(TrainingError, match=named):
        distiller(rows, tmp_path, **change).resume()


def test_a_checkpoint_of_other_data_is_refused(rows, tmp_path):
    distiller(rows, tmp_path).run(stop_after_minutes=0)
    other = Rows(rows.tokens[:-1], rows.segments[:-1], rows.answers[:-1])
    with pytest.raises(TrainingError, match="rows ="):
        distiller(other, tmp_path).resume()


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_checkpoint(rows, tmp_path):
    trainer = distiller(rows, tmp_path)
    trainer.run(stop_after_minutes=0)
    good = (tmp_path / STATE_FILE).read_bytes()
    name = next(iter(trainer.parameters))
    trainer.parameters[name] = mx.full(trainer.parameters[name].shape, mx.nan)
    with pytest.raises(TrainingError, match="not finite at step 2"):
        trainer.run()
    assert (tmp_path / STATE_FILE).read_bytes() == good


def test_settings_that_cannot_train_are_refused():
    with pytest.raises(TrainingError, match="steps must be at least 1, not 0"):
        Settings(0, 1, 1e-3)
    with pytest.raises(TrainingError, match="learning_rate must be a positive number, not -1"):
        Settings(1, 1, -1)
