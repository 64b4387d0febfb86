"""The benchmark in real shapes, run in tiny ones: it ends, its figures are there, and the replay is the one stated."""

from __future__ import annotations

import json
import statistics

import pytest

from benchmarks import real_shapes, real_shapes_plot


@pytest.fixture
def tiny(monkeypatch):
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "intermediate_size": 128}
    monkeypatch.setattr(real_shapes, "SHAPES", {"1.7B": shape})
    args = real_shapes.model_args

    def small(size):
        found = args(size)
        found.head_dim, found.vocab_size, found.mask_token_id, found.num_key_value_heads = 8, 96, 95, 4
        return found

    monkeypatch.setattr(real_shapes, "model_args", small)
    monkeypatch.setattr(real_shapes, "REPEATS", 1)


def test_a_run_leaves_every_figure_and_a_page(tiny, tmp_path):
    output = tmp_path / "found"
    sizes = ["--sizes", "1.7B", "--bits", "16", "4", "--contexts", "0", "20", "--rows", "1", "4", "32"]
    short = ["--tokens", "12", "--plain-cycles", "2", "--megabytes", "1", "--kernels", "off"]
    real_shapes.main([*sizes, *short, "--output", str(output)])
    result = json.loads(output.with_suffix(".json").read_text())
    assert set(result["models"]) == {"1.7B bf16", "1.7B 4-bit"}
    for model in result["models"].values():
        assert model["exactness"].startswith("row-exact")
        assert set(model["verify"]["0"]) == {"1", "4", "32"} and set(model["draft"]["20"]) == {"4", "32"}
        times = [*model["mlx_lm"].values(), *model["ar_step"].values(), *model["verify"]["20"].values()]
        assert all(t > 0 for t in times)
        assert set(model["piped"]["20"]) == {"1", "16", "32"} and set(model["sweep"]) == {"0", "20"}
    page = output.with_suffix(".md").read_text()
    assert "| reasoning (1.7B GSM8K)" in page and "floor" in page
    plot = tmp_path / "plot.png"
    real_shapes_plot.draw(result, plot)
    assert plot.stat().st_size > 0


def test_the_loop_accepts_the_lengths_it_is_given(tiny):
    model = real_shapes.random_model(real_shapes.model_args("1.7B"), 16)
    with real_shapes.replayed([3, 0, 5]):
        _, stats = real_shapes.decode(model, real_shapes.OFF, 8, 4, 3 * (4 + 1 + 6))
    assert stats.cycles == 9 and stats.tokens_per_cycle == 11 / 3


def test_a_narrow_block_accepts_no_more_than_it_verified(tiny):
    model = real_shapes.random_model(real_shapes.model_args("1.7B"), 16)
    with real_shapes.replayed([31]):
        _, stats = real_shapes.decode(model, real_shapes.OFF, 4, 4, 12)
    assert stats.tokens_per_cycle == 4


@pytest.mark.parametrize("mean", [1.5, 5.0, 12.7])
def test_drawn_lengths_have_the_stated_mean_and_repeat(mean):
    lengths = real_shapes.accepted_lengths(mean, 20000, seed=3)
    assert abs(statistics.mean(lengths) + 1 - mean) < 0.03 * mean
    assert max(lengths) <= 31 and lengths == real_shapes.accepted_lengths(mean, 20000, seed=3)
