"""Self-test, timings on disk, the plan, and layers that use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from orthrus_mlx.errors import RequestError
from orthrus_mlx.kernels import AttentionShape, Plan, block_linear, make_plan, model_weights, plan, self_test, tuning
from orthrus_mlx.kernels.layers import linear_weight
from tests.emulator import emulated_metal
from tests.kernels_cases import DTYPES, ON_METAL, assert_same_bits, emulator_only

SHAPE = AttentionShape(heads=4, kv_heads=2, head_dim=64, layers=2)
LINEAR = ("fma", mx.float32, False, True, 64, 4, "affine")


class Small(nn.Module):
    """One layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        mx.random.seed(0)
        self.embed = nn.Embedding(70, 64)
        self.dense = nn.Linear(64, 40, bias=False)
        self.layers = [nn.Linear(64, 72, bias=False), nn.Linear(72, 64, bias=True)]
        self.quantized = nn.Linear(128, 64, bias=False).to_quantized(64, 4)
        self.quantized_embed = nn.Embedding(70, 128).to_quantized(64, 8)

    def __call__(self, x: mx.array) -> list[mx.array]:
        wide = mx.concatenate([x, x], axis=-1)
        return [
            self.dense(x),
            self.layers[1](self.layers[0](x)),
            self.quantized(wide),
            self.embed.as_linear(x),
            self.quantized_embed.as_linear(wide),
        ]


@pytest.fixture(autouse=True)
def fresh(quick_timings: None) -> Iterator[None]:
    """Nothing tested yet."""
    for test in (self_test.linear_failure, self_test.attention_failure, self_test.choice_failure):
        test.cache_clear()
    yield
    for test in (self_test.linear_failure, self_test.attention_failure, self_test.choice_failure):
        test.cache_clear()


def time_as(monkeypatch: pytest.MonkeyPatch, **milliseconds: float) -> None:
    """Let timings be what the test says, by family."""
    monkeypatch.setattr(
        plan, "timings", lambda what, variants: {name: milliseconds[name.split("/")[0]] for name in variants}
    )


def test_a_right_variant_passes_its_self_test() -> None:
    with emulated_metal():
        assert self_test.linear_failure(*LINEAR) is None
        assert self_test.linear_failure("mma", mx.bfloat16, True, True, 64, 4, "affine") is None
        assert self_test.attention_failure("mma", mx.bfloat16, 64, 2) is None
        assert self_test.choice_failure(mx.bfloat16) is None


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "family"), [("float32", "fma"), ("float16", "mma"), ("bfloat16", "fma")])
def test_every_variant_passes_its_self_test(dtype: str, family: str) -> None:
    with emulated_metal():
        for aligned in (True, False):
            assert self_test.linear_failure(family, DTYPES[dtype], False, aligned, 64, 4, "affine") is None
        for bits in (4, 8):
            for group_size in (32, 64, 128):
                assert self_test.linear_failure(family, DTYPES[dtype], True, True, group_size, bits, "affine") is None
        assert self_test.linear_failure(family, DTYPES[dtype], True, True, 16, 4, "nvfp4") is None
        assert self_test.linear_failure(family, DTYPES[dtype], True, True, 32, 4, "mxfp4") is None
        for head_dim in (64, 128):
            for repeats in (1, 2, 4, 8):
                assert self_test.attention_failure(family, DTYPES[dtype], head_dim, repeats) is None
        assert self_test.choice_failure(DTYPES[dtype]) is None


def faulty(old: str, new: str):
    def change(text: str) -> str:
        return text.replace(old, new)

    return change


@emulator_only
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("sums[m * COLUMNS + c] = fma(", "sums[m * COLUMNS + c] = 1.01f * fma(", "differs from plain MLX"),
        ("float sums[ROWS * COLUMNS];", "float sums[ROWS * COLUMNS]", "CompileError"),
        ("T(sums[j])", "T(sums[j] + 1e-6f * ROWS)", "bits of a row differ"),
        ("T(sums[j])", "T(sums[j] * NAN)", "differs from plain MLX by nan"),
    ],
)
def test_a_variant_that_fails_is_named_with_its_reason(old: str, new: str, reason: str) -> None:
    with emulated_metal(change=faulty(old, new)):
        failure = self_test.linear_failure(*LINEAR)
    assert failure
    assert reason in failure


@emulator_only
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("dot = fma(x[e], k[i * RUN + e], dot)", "dot = fma(x[e], k[i * RUN], dot)", "differs from plain MLX"),
        ("total[e] / mass", "total[e] / (mass * (1 + 1e-6f * rows))", "bits of a row differ"),
    ],
)
def test_attention_that_fails_is_named_with_its_reason(old: str, new: str, reason: str) -> None:
    with emulated_metal(change=faulty(old, new)):
        failure = self_test.attention_failure("fma", mx.float32, 64, 2)
    assert failure
    assert reason in failure


@emulator_only
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("0x1BD11BDAu", "0x1BD11BDBu", "noise"),
        ("value > than_value", "value < than_value", "noise"),
        ("tokens[i] == chosen[node]", "tokens[i] == chosen[i]", "path"),
    ],
)
def test_a_choice_that_fails_is_named_with_its_reason(old: str, new: str, reason: str) -> None:
    with emulated_metal(change=faulty(old, new)):
        failure = self_test.choice_failure(mx.float32)
    assert failure
    assert reason in failure


def test_on_other_devices_nothing_is_built_or_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError("a kernel was built")

    monkeypatch.setattr(mx.fast, "metal_kernel", refuse)
    monkeypatch.setattr(plan, "available", lambda: False)
    for mode in ("auto", "force"):
        found = make_plan(model_weights(Small(), tied_head=True), SHAPE, mx.float32, mode)
        assert found.notes == ("kernels: none for this device",)
        assert (found.linear, found.attention, found.choice, found.attend()) == ({}, None, False, None)
    assert not list(tmp_path.iterdir())


def test_off_forbids_and_force_insists_by_argument_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = model_weights(Small(), tied_head=True)
    time_as(monkeypatch, fma=2.0, mma=3.0, stock=1.0)
    with emulated_metal() as emulation:
        assert make_plan(weights, SHAPE, mx.float32, "off") == Plan(notes=("kernels: off by request",))
        monkeypatch.setenv("ORTHRUS_KERNELS", "off")
        assert make_plan(weights, SHAPE, mx.float32).notes == ("kernels: off by request",)
        assert not emulation.launches
        assert make_plan(weights, SHAPE, mx.float32, "force").attention == "fma"
        monkeypatch.setenv("ORTHRUS_KERNELS", "force")
        assert make_plan(weights, SHAPE, mx.float32).linear
        found = make_plan(weights, SHAPE, mx.float32, "auto")
    assert not found.linear
    assert "stock MLX is faster here" in found.notes[-1]
    with pytest.raises(RequestError, match="ORTHRUS_KERNELS must be one of auto, off, force, not 'on'"):
        monkeypatch.setenv("ORTHRUS_KERNELS", "on")
        make_plan(weights, SHAPE, mx.float32)


@emulator_only
def test_the_faster_family_is_chosen_and_a_failing_one_never(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = model_weights(Small(), tied_head=True)
    time_as(monkeypatch, fma=1.0, mma=2.0, stock=5.0)
    with emulated_metal():
        assert set(make_plan(weights, SHAPE, mx.float32).linear.values()) == {"fma"}
    self_test.linear_failure.cache_clear()
    with emulated_metal(change=faulty("sums[m * COLUMNS + c] = fma(", "sums[m * COLUMNS + c] = 2 * fma(")):
        found = make_plan(weights, SHAPE, mx.float32)
    assert set(found.linear.values()) == {"mma"}
    assert any("fma failed: differs from plain MLX" in note for note in found.notes)


@emulator_only
def test_where_every_variant_fails_stock_mlx_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    time_as(monkeypatch, fma=1.0, mma=1.0, stock=5.0)
    model = Small()
    with emulated_metal(change=lambda text: text + "?"):
        found = make_plan(model_weights(model, tied_head=True), SHAPE, mx.float32, "force")
    assert (found.linear, found.attention, found.choice) == ({}, None, False)
    assert all("stock MLX" in note for note in found.notes)
    found.install(model)
    assert [a.shape for a in model(mx.ones((1, 3, 64)))]


def test_installed_layers_keep_their_parameters_and_run_on_the_kernels() -> None:
    model, x = Small(), mx.random.normal((1, 5, 64))
    before, expected = dict(tree_flatten(model.parameters())), model(x)
    with emulated_metal() as emulation:
        found = make_plan(model_weights(model, tied_head=True), SHAPE, mx.float32, "force")
        found.install(model)
        emulation.launches.clear()
        y = model(x)
        launches = len(emulation.launches)
        alone = model(x[:, 2:3])
        found.install(model)
        again = model(x)
        attended = found.attend()
    assert ON_METAL or launches == 5, "one launch for each layer but the one with a bias"
    for a, b, c, d in zip(y, expected, alone, again, strict=True):
        assert mx.allclose(a, b, atol=1e-5).item()
        assert_same_bits(a, d, "installed twice")
        if a.shape[-1] != 64:  # MLX's own kernel computes the layer with a bias
            assert_same_bits(a[:, 2:3], c, "a row alone")
    assert attended is not None
    after = dict(tree_flatten(model.parameters()))
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert isinstance(model.dense, nn.Linear)
    assert isinstance(model.quantized, nn.QuantizedLinear)
    assert model.quantized.group_size == 64


def test_longer_passes_stay_with_mlx() -> None:
    model = Small()
    x = mx.random.normal((33, 64))
    expected = model(x)
    with emulated_metal() as emulation:
        make_plan(model_weights(model, tied_head=True), SHAPE, mx.float32, "force").install(model)
        emulation.launches.clear()
        y = model(x)
        assert not emulation.launches
    for a, b in zip(y, expected, strict=True):
        assert_same_bits(a, b, "33 rows")


def test_an_embedding_counts_only_where_it_is_the_head() -> None:
    model = Small()
    assert len(model_weights(model, tied_head=True)) == len(model_weights(model, tied_head=False)) + 2


def test_a_subclass_of_a_linear_layer_is_left_alone() -> None:
    class Twice(nn.Linear):
        def __call__(self, x: mx.array) -> mx.array:
            return 2 * super().__call__(x)

    assert linear_weight(Twice(8, 8, bias=False)) is None


# Timings on disk ------------------------------------------------------------------------------------


def one(value: float) -> dict:
    return {"fma/1": [lambda: mx.array(value)]}


def test_timings_are_measured_once_per_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tuning.timings("a layer", one(1))
    monkeypatch.setattr(tuning, "measure", lambda calls: 99.0)
    assert tuning.timings("a layer", one(1)) == first
    assert tuning.timings("another layer", one(1)) == {"fma/1": 99.0}
    assert tuning.timings("a layer", one(1) | {"mma/1": one(1)["fma/1"]}) == {"fma/1": 99.0, "mma/1": 99.0}
    monkeypatch.setattr(tuning, "text_hash", lambda: "other kernels")
    assert tuning.timings("a layer", one(1)) == {"fma/1": 99.0}


DAMAGED_FILES = ("", "{", "[]", '"x"', "null", '{"k": 3}', "\x00\xff")
DAMAGED_ENTRIES = ('{"fma/1": "fast"}', '{"fma/1": -1.0}', '{"fma/1": NaN}', "{}", "[]")


@pytest.mark.parametrize("content", [*DAMAGED_FILES, *('{"%s": ' + entry + "}" for entry in DAMAGED_ENTRIES)])
def test_a_damaged_cache_is_measured_again(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "measure", lambda calls: 7.0)
    tuning.cache_file().parent.mkdir()
    tuning.cache_file().write_text(content.replace("%s", tuning.cache_key("a layer")), encoding="latin-1")
    assert tuning.timings("a layer", one(1)) == {"fma/1": 7.0}
    assert json.loads(tuning.cache_file().read_text())[tuning.cache_key("a layer")] == {"fma/1": 7.0}


def test_a_write_that_fails_leaves_the_cache_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "measure", lambda calls: 7.0)
    tuning.timings("a layer", one(1))
    before = tuning.cache_file().read_bytes()

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert tuning.timings("another layer", one(1)) == {"fma/1": 7.0}
    assert tuning.cache_file().read_bytes() == before
    assert [file.name for file in tuning.cache_file().parent.iterdir()] == ["kernels.json"]


def test_a_home_that_cannot_be_written_to_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert tuning.timings("a layer", one(1))["fma/1"] > 0


def test_every_kernel_file_enters_the_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("a.metal", "b.h", "c.py"):
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(tuning.resources, "files", lambda package: tmp_path)
    hashes = []
    for name, text in (("a.metal", "x"), ("a.metal", "y"), ("b.h", "y"), ("c.py", "y")):
        (tmp_path / name).write_text(text)
        tuning.text_hash.cache_clear()
        hashes.append(tuning.text_hash())
    tuning.text_hash.cache_clear()
    assert hashes[2] == hashes[3]
    assert len(set(hashes)) == 3


def test_a_block_of_one_row_may_be_a_vector() -> None:
    weight = linear_weight(Small().dense)
    assert weight is not None
    with emulated_metal():
        assert block_linear(mx.ones((64,)), weight, "fma").shape == (40,)
