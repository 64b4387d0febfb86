"""The exactness probe: it finds what holds, claims no more, and decoding under a row class is lossless."""

from __future__ import annotations

import json
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import pytest
import tiny

from orthrus_mlx import exactness as exactness_module
from orthrus_mlx import exactness_notes
from orthrus_mlx.acceleration import accelerate
from orthrus_mlx.cache import KVCache
from orthrus_mlx.decoding.stats import DecodeStats
from orthrus_mlx.exactness import OFF, PROBE_WIDTHS, Exactness, exactness_of, probe, trees_agree
from orthrus_mlx.generation import mlx_generate, stream_generate
from orthrus_mlx.model import Model

Fault = Callable[[int], mx.array]
"""Rows of a pass -> what each row is off by, relatively [rows, 1]; zero from a row-exact kernel."""


class FaultyLinear(nn.Module):
    """A linear layer whose rows depend on the rows beside them, as on most GPUs."""

    def __init__(self, inner: nn.Linear, fault: Fault, seen: list[int]):
        super().__init__()
        self.inner, self._fault, self._seen = inner, fault, seen

    def __call__(self, x: mx.array) -> mx.array:
        self._seen.append(x.shape[-2])
        return self.inner(x) * (1 + self._fault(x.shape[-2]))


def by_row_count(rows: int) -> mx.array:
    """Another kernel for every row count, the same for all rows of a pass."""
    return mx.full((rows, 1), 1e-2 * (rows % 31))


def by_row_count_and_place(rows: int) -> mx.array:
    """Rows of a pass differ among themselves too, but for passes of 32."""
    return mx.zeros((32, 1)) if rows == 32 else 1e-2 * mx.arange(rows)[:, None]


def by_place(rows: int) -> mx.array:
    return 1e-2 * mx.arange(rows)[:, None]


def faulty_model(fault: Fault, likeness: float = 4.0) -> tuple[Model, list[int]]:
    """A model with this fault in every layer, and the row counts of its passes so far."""
    config, seen = tiny.config(), []
    model = tiny.build(config, tiny.weights(config, 1, likeness))
    for layer in model.layers:
        layer.mlp.down_proj = FaultyLinear(layer.mlp.down_proj, fault, seen)
    return model, seen


def test_the_cpu_is_row_exact_and_the_evidence_says_what_was_compared():
    found = probe(tiny.tiny_model(0))
    assert (found.kind, found.rows, found.lossless, str(found)) == ("row-exact", None, True, "row-exact")
    assert found.evidence == (
        "blocks of 1, 2, 3, 5, 8, 16, 32 rows behind caches of 7 to 46, 1018 to 1029 tokens: equal bits"
    )


@pytest.mark.parametrize("fault, rows", [(by_row_count, 16), (by_row_count_and_place, 32)])
def test_the_probe_finds_the_row_count_at_which_padded_passes_agree(fault, rows):
    found = probe(faulty_model(fault)[0])
    assert (found.kind, found.rows, found.lossless) == ("row-class", rows, True)
    assert str(found) == f"row-class at {rows} rows"
    assert f"rows padded to {rows}, behind caches of 7 to 46, 1018 to 1029 tokens: equal bits" in found.evidence


def test_the_probe_does_not_claim_what_it_has_not_seen():
    found = probe(faulty_model(by_place)[0])
    assert (found.kind, found.rows, found.lossless) == ("inexact", None, False)
    assert "differ from one-row blocks, padded or not" in found.evidence


@pytest.mark.parametrize("width", PROBE_WIDTHS[1:])
def test_a_fault_at_any_probed_width_alone_is_found(width):
    def only_there(rows: int) -> mx.array:
        return mx.full((rows, 1), 1e-2 if rows == width else 0.0)

    assert probe(faulty_model(only_there)[0]).kind != "row-exact"


def test_a_fault_in_the_last_bit_is_found():
    model, _ = faulty_model(lambda rows: mx.full((rows, 1), 2.0**-23 if rows > 1 else 0.0))
    assert probe(model).kind == "row-class"


def long_faulty_model(from_keys: int, fault: Fault, **changes) -> Model:
    """A model whose attention is faulty where it reads `from_keys` keys or more."""
    settings = tiny.config(**changes)
    model = tiny.build(settings, tiny.weights(settings))

    def attention(q, k, v, cache, *, causal, scale, **_):
        keys, values = cache.update_and_fetch(k, v)
        mask = "causal" if causal else None
        attended = mx.fast.scaled_dot_product_attention(q, keys, values, scale=scale, mask=mask)
        return attended * (1 + fault(q.shape[2])) if keys.shape[2] >= from_keys else attended

    for layer in model.layers:
        layer.self_attn.block_attention = attention
    return model


@pytest.mark.parametrize(("from_keys", "seen"), [(8, "7 to 46"), (1024, "1018 to 1029"), (4096, "4090 to 4101")])
def test_a_fault_behind_long_caches_alone_is_found_and_the_evidence_says_where(from_keys, seen):
    found = probe(long_faulty_model(from_keys, by_place, max_position_embeddings=8192))
    assert found.kind == "inexact"
    assert f"blocks of 2 rows behind caches of {seen} tokens differ" in found.evidence


def test_a_row_class_has_to_hold_behind_long_caches_too():
    found = probe(long_faulty_model(4096, by_row_count, max_position_embeddings=8192))
    assert (found.kind, found.rows) == ("row-class", 16)
    assert "4090 to 4101 tokens" in found.evidence


def test_cache_lengths_beyond_the_context_are_not_claimed():
    found = probe(long_faulty_model(4096, by_place))
    assert found.kind == "row-exact"
    assert "1018 to 1029" in found.evidence
    assert "4090" not in found.evidence


# Notes on disk --------------------------------------------------------------------------------------


@pytest.fixture
def probes(monkeypatch, tmp_path) -> list[Model]:
    """The models probed, with an empty folder of notes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    probed: list[Model] = []
    monkeypatch.setattr(exactness_module, "probe", lambda model: probed.append(model) or FOUND)
    return probed


FOUND = Exactness("row-class", 16, "what was compared")


def accelerated(**changes) -> Model:
    settings = tiny.config(**changes)
    model = tiny.build(settings, tiny.weights(settings))
    accelerate(model, "off")
    return model


def test_a_finding_is_noted_for_models_of_the_same_shapes_and_says_that_it_was(probes):
    assert exactness_of(accelerated()) == FOUND
    again = exactness_of(accelerated())
    assert (again.kind, again.rows) == ("row-class", 16)
    assert again.evidence == "what was compared (seen earlier on this machine)"
    assert len(probes) == 1
    exactness_of(accelerated(intermediate_size=96))
    exactness_of(accelerated(max_position_embeddings=512))
    assert len(probes) == 3


def test_other_kernels_other_layers_or_another_program_need_another_probe(probes, monkeypatch):
    exactness_of(accelerated())
    model = accelerated()
    accelerate(model, "force")
    exactness_of(model)
    model = accelerated()
    model.layers[0].mlp.down_proj = FaultyLinear(model.layers[0].mlp.down_proj, by_place, [])
    exactness_of(model)
    monkeypatch.setattr(exactness_notes, "_program", lambda: b"changed")
    exactness_of(accelerated())
    assert len(probes) == 4


def test_a_model_that_was_not_given_its_kernels_leaves_no_note(probes):
    for _ in range(2):
        settings = tiny.config()
        exactness_of(tiny.build(settings, tiny.weights(settings)))
    assert len(probes) == 2
    assert not exactness_notes.notes_file().exists()


@pytest.mark.parametrize(
    "entry",
    [
        "3",
        "{}",
        '{"kind": "row-exact"}',
        '{"kind": "exact", "rows": null, "evidence": ""}',
        '{"kind": "row-exact", "rows": 16, "evidence": ""}',
        '{"kind": "row-class", "rows": null, "evidence": ""}',
        '{"kind": "row-class", "rows": 0, "evidence": ""}',
        '{"kind": "row-class", "rows": "16", "evidence": ""}',
        '{"kind": ["row-class"], "rows": 16, "evidence": ""}',
        '{"kind": "row-class", "rows": 16, "evidence": null}',
        None,
    ],
)
def test_damaged_notes_are_probed_for_again(entry, probes):
    model = accelerated()
    file = exactness_notes.notes_file()
    file.parent.mkdir(parents=True)
    file.write_text('{"x' if entry is None else f"{{{json.dumps(exactness_notes.key(model))}: {entry}}}")
    assert exactness_of(model) == FOUND
    assert exactness_notes.read(exactness_notes.key(model)) == exactness_notes.Note("row-class", 16, FOUND.evidence)
    assert [f.name for f in file.parent.iterdir()] == ["exactness.json"]


def test_a_home_that_cannot_be_written_to_costs_another_probe(probes, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert exactness_of(accelerated()) == exactness_of(accelerated()) == FOUND
    assert len(probes) == 2


@pytest.fixture(scope="module", params=[(by_row_count, 16), (by_row_count_and_place, 32)], ids=["16", "32"])
def of_a_row_class(request) -> tuple[Model, list[int], int]:
    fault, rows = request.param
    model, seen = faulty_model(fault)
    assert exactness_of(model).rows == rows
    return model, seen, rows


@pytest.mark.parametrize("block_size", [2, 9, 16, 32])
def test_decoding_under_a_row_class_is_lossless_and_never_leaves_the_class(of_a_row_class, block_size):
    model, seen, rows = of_a_row_class
    accepted = 0
    for seed in range(2):
        prompt, stats = tiny.prompt(seed, 1), DecodeStats()
        options = {"temperature": 0.8, "seed": seed}
        expected = list(mlx_generate(model, prompt, None, 30, mode="ar", **options))
        seen.clear()
        options |= {"mode": "diffusion", "block_size": block_size, "stats": stats}
        assert list(mlx_generate(model, prompt, None, 30, **options)) == expected
        layers = len(model.layers)
        assert seen.count(rows) >= layers * stats.ar_passes
        assert set(seen) <= {rows, block_size}, "a target pass ran outside its row class"
        assert max(stats.target_rows) <= min(rows, block_size)
        assert stats.exactness == f"row-class at {rows} rows"
        accepted += stats.accepted
    assert accepted


def test_turns_and_early_closes_under_a_row_class_are_lossless(of_a_row_class):
    model, _, _ = of_a_row_class

    def chat(mode: str) -> list[list[int]]:
        cache, turns = KVCache(len(model.layers)), []
        for turn in range(3):
            tokens = mlx_generate(model, tiny.prompt(turn, 1), None, 15, 0.8, seed=2, mode=mode, prompt_cache=cache)
            turns.append([token for token, _ in zip(tokens, range(9), strict=False)])
            tokens.close()
        return turns

    assert chat("diffusion") == chat("ar") == chat("auto")


def test_without_padding_the_same_model_is_not_lossless():
    model, _ = faulty_model(by_row_count)
    different = 0
    for seed in range(6):
        stats = DecodeStats()
        options = {"temperature": 1.5, "seed": seed, "exact": False}
        expected = list(mlx_generate(model, tiny.prompt(seed, 1), None, 40, mode="ar", **options))
        got = list(mlx_generate(model, tiny.prompt(seed, 1), None, 40, mode="diffusion", stats=stats, **options))
        different += got != expected
        assert stats.exactness == "off"
    assert different, "the fault changes no token: the test above proves nothing"


def test_an_inexact_model_still_decodes_and_says_so():
    model, _ = faulty_model(by_place)
    responses = list(stream_generate(model, tiny.text_tokenizer(), [1, 2], 9, mode="diffusion"))
    assert len(responses) == 9
    assert responses[-1].stats.exactness == "inexact"


def test_a_model_is_probed_once_and_not_at_all_when_waived(monkeypatch):
    model, seen = faulty_model(lambda rows: mx.zeros((rows, 1)))
    list(mlx_generate(model, [1], None, 3, exact=False))
    assert len(seen) < 20
    probes = []
    monkeypatch.setattr(exactness_module, "probe", lambda model: probes.append(model) or probe(model))
    for _ in range(3):
        list(mlx_generate(model, [1], None, 3))
    assert probes == [model]


def test_the_probe_leaves_mlx_s_random_state_alone_and_fits_any_context():
    model = tiny.tiny_model(0, max_position_embeddings=4)
    mx.random.seed(5)
    expected = mx.random.uniform().item()
    mx.random.seed(5)
    assert probe(model).kind == "row-exact"
    assert mx.random.uniform().item() == expected


def test_padding():
    assert [Exactness("row-class", 16).padded(n) for n in (1, 16)] == [16, 16]
    assert [Exactness("row-class", 16).most(n) for n in (2, 16, 32)] == [2, 16, 16]
    assert (OFF.padded(7), OFF.most(32), OFF.lossless) == (7, 32, False)


@pytest.mark.parametrize("rows", [None, 16])
def test_trees_are_compared_with_the_chains_they_are_made_of(rows, monkeypatch):
    model = tiny.build(tiny.config(), tiny.weights(tiny.config(), 3))
    exactness = Exactness("row-class", 16) if rows else Exactness("row-exact")
    assert trees_agree(model, exactness)

    # A backend that adds up a tree's keys in the order of its nodes: the branches see each other.
    def in_node_order(q, k, v, layer, *, causal, parents, scale):
        keys, values = layer.update_and_fetch(k, v)
        mask = "causal" if causal and q.shape[2] > 1 else None
        return mx.fast.scaled_dot_product_attention(q, keys, values, scale=scale, mask=mask)

    wrong = tiny.build(tiny.config(), tiny.weights(tiny.config(), 3))
    for layer in wrong.layers:
        layer.self_attn.block_attention = in_node_order
    assert not trees_agree(wrong, exactness)
    assert trees_agree(wrong, OFF), "what was waived is not probed"
