"""What the converter writes: layouts, dtypes, quantisation, shards, tokenizers; read back by others than itself."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import sentencepiece
from convert_checkpoints import EOS, MASK, ORTHRUS, QWEN3, encode, make_weights, write_checkpoint, write_json
from mlx_lm.models import qwen3

from orthrus_mlx import load
from orthrus_mlx.convert import Progress, convert, converter
from orthrus_mlx.convert.cli import add_arguments, run
from orthrus_mlx.model import DIFFUSION
from orthrus_mlx.safetensors_file import DTYPE_BITS, open_checkpoint

UNTIED = ORTHRUS | {"tie_word_embeddings": False}
TOKENS = mx.array([[5, 60, 7, 200, 31, 2, 2, 299]])


def read_all(folder: Path, pattern: str) -> dict[str, mx.array]:
    """Tensors of the matching files, through MLX's reader."""
    return {name: array for file in folder.glob(pattern) for name, array in mx.load(str(file)).items()}


def bits(array: mx.array) -> bytes:
    return np.array(array.view(mx.uint8)).tobytes()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("config", [ORTHRUS, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_weight_arrives_bit_for_bit(tmp_path, dtype, config, shards):
    weights = write_checkpoint(tmp_path / "source", config, dtype=dtype, shards=shards)
    convert(tmp_path / "source", tmp_path / "out")
    backbone = read_all(tmp_path / "out", "model*.safetensors")
    diffusion = read_all(tmp_path / "out", "orthrus_diff*.safetensors")
    assert set(diffusion) == {name for name in weights if "_diff" in name}
    assert set(backbone) == set(weights) - set(diffusion)
    for name, array in (backbone | diffusion).items():
        assert bits(array) == encode(weights[name], dtype), name
        assert array.shape == weights[name].shape


@pytest.mark.parametrize(
    ("config", "dtype", "shards"), [(ORTHRUS, "BF16", 1), (UNTIED, "F16", 3), (ORTHRUS, "F32", 3), (UNTIED, "BF16", 1)]
)
def test_stock_mlx_lm_loads_the_backbone_without_remote_code_and_gives_the_same_logits(tmp_path, config, dtype, shards):
    write_checkpoint(tmp_path / "source", config, dtype=dtype, shards=shards)
    source = read_all(tmp_path / "source", "model*.safetensors")
    reference = qwen3.Model(qwen3.ModelArgs.from_dict(config | {"model_type": "qwen3"}))
    reference.load_weights([(name, array) for name, array in source.items() if "_diff" not in name])

    convert(tmp_path / "source", tmp_path / "out", max_shard_size="300KB")
    model, tokenizer = mlx_lm.load(str(tmp_path / "out"))
    assert type(model) is qwen3.Model
    assert mx.array_equal(model(TOKENS), reference(TOKENS))
    assert tokenizer.decode(tokenizer.encode("the lazy dog")) == "the lazy dog"
    assert tokenizer.eos_token_ids == {EOS, 1}


@pytest.mark.parametrize("layout", ["sidecar", "single"])
def test_both_views_compute_what_the_source_computes(tmp_path, layout):
    write_checkpoint(tmp_path / "source", UNTIED, shards=2)
    convert(tmp_path / "source", tmp_path / "out", layout=layout)
    before, _ = load(tmp_path / "source")
    after, _ = load(tmp_path / "out")
    assert (after.args.block_size, after.args.mask_token_id) == (4, MASK)
    assert mx.array_equal(before(TOKENS), after(TOKENS))
    assert mx.array_equal(before(TOKENS, view=DIFFUSION), after(TOKENS, view=DIFFUSION))


def test_a_plain_qwen3_converts_and_has_one_view(tmp_path):
    write_checkpoint(tmp_path / "source", QWEN3)
    result = convert(tmp_path / "source", tmp_path / "out")
    assert list(result.files) == ["model.safetensors"]
    assert "orthrus" not in json.loads((tmp_path / "out" / "config.json").read_text())
    model, _ = load(tmp_path / "out")
    assert not model.args.has_diffusion_view


def test_a_converted_folder_converts_again(tmp_path):
    weights = write_checkpoint(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "sidecar", max_shard_size="100KB")
    assert (tmp_path / "sidecar" / "orthrus_diff.safetensors.index.json").is_file()
    convert(tmp_path / "sidecar", tmp_path / "single", layout="single")
    single = read_all(tmp_path / "single", "model.safetensors")
    assert {name: bits(array) for name, array in single.items()} == {n: encode(w, "BF16") for n, w in weights.items()}


@pytest.mark.parametrize(
    "settings",
    [{}, {"q_mode": "mxfp4"}, {"q_mode": "nvfp4"}, {"q_mode": "mxfp8"}]
    + [{"q_bits": b, "q_group_size": g} for b, g in ((2, 128), (3, 64), (5, 32), (6, 64), (8, 128))],
    ids=str,
)
def test_quantised_bits_and_settings_are_those_of_mlx_lm_convert(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(converter, "SLAB_BYTES", 5000)  # many slabs per tensor, of rows that do not divide it
    write_checkpoint(tmp_path / "source", QWEN3, dtype="BF16")
    mlx_lm.convert(
        str(tmp_path / "source"), str(tmp_path / "theirs"), quantize=True, **({"q_mode": "affine"} | settings)
    )
    convert(tmp_path / "source", tmp_path / "ours", quantize=True, **settings)
    ours, theirs = (read_all(tmp_path / name, "model*.safetensors") for name in ("ours", "theirs"))
    assert set(ours) == set(theirs)
    for name, array in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape), name
        assert bits(ours[name]) == bits(array), name
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "theirs")]
    assert configs[0]["quantization"] == configs[1]["quantization"] == configs[0]["quantization_config"]


@pytest.mark.parametrize("layout", ["sidecar", "single"])
def test_diffusion_weights_take_their_own_settings(tmp_path, layout):
    write_checkpoint(tmp_path / "source")
    result = convert(tmp_path / "source", tmp_path / "out", quantize=True, q_mode="mxfp8", diff_q_bits=3, layout=layout)
    model, _ = load(tmp_path / "out")
    attention = model.layers[1].self_attn
    assert (attention.q_proj.mode, attention.q_proj.bits) == ("mxfp8", 8)
    assert (attention.q_proj_diff.mode, attention.q_proj_diff.bits, attention.q_proj_diff.group_size) == (
        "affine",
        3,
        64,
    )
    assert result.diff_quantization.bits == 3
    source = read_all(tmp_path / "source", "model*.safetensors")["model.layers.1.self_attn.q_proj_diff.weight"]
    written = mx.quantize(source, group_size=64, bits=3)
    kept = [attention.q_proj_diff[name] for name in ("weight", "scales", "biases")]
    assert [bits(a) for a in kept] == [bits(a) for a in written]


@pytest.mark.parametrize(
    ("options", "backbone", "diffusion"),
    [
        ({}, None, None),
        ({"quantize": True}, 4, 4),
        ({"quantize": True, "q_bits": 8}, 8, 8),
        ({"quantize": True, "diff_quantize": False}, 4, None),
        ({"diff_q_bits": 6}, None, 6),
        ({"diff_quantize": True}, None, 4),
        ({"quantize": True, "diff_q_mode": "mxfp8"}, 4, 8),
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", ["sidecar", "single"])
def test_the_diffusion_weights_follow_the_backbone_unless_told_otherwise(
    tmp_path, options, backbone, diffusion, layout
):
    write_checkpoint(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "out", layout=layout, **options)
    model, _ = load(tmp_path / "out")
    attention = model.layers[0].self_attn
    assert getattr(attention.k_proj, "bits", None) == backbone
    assert getattr(attention.k_proj_diff, "bits", None) == diffusion
    assert getattr(model.model.embed_tokens, "bits", None) == backbone
    assert not hasattr(attention.k_norm_diff, "bits")


def test_rows_that_do_not_divide_into_groups_stay_unquantised_and_are_recorded(tmp_path):
    config = QWEN3 | {"intermediate_size": 192}
    write_checkpoint(tmp_path / "source", config)
    convert(tmp_path / "source", tmp_path / "out", quantize=True, q_group_size=128)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["quantization"]["model.layers.0.mlp.down_proj"] is False
    assert "model.layers.0.mlp.up_proj" not in written["quantization"]
    for loader in (mlx_lm.load, load):
        model, _ = loader(str(tmp_path / "out"))
        assert not hasattr(model.layers[0].mlp.down_proj, "bits")


def test_nvfp4_leaves_an_odd_number_of_groups_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(converter, "SLAB_BYTES", 500)  # slabs of odd rows
    odd = QWEN3 | {"hidden_size": 48, "intermediate_size": 33, "head_dim": 32, "num_attention_heads": 3}
    write_checkpoint(tmp_path / "source", odd | {"num_key_value_heads": 1})
    convert(tmp_path / "source", tmp_path / "out", quantize=True, q_mode="nvfp4")
    for loader in (mlx_lm.load, load):
        layer = loader(str(tmp_path / "out"))[0].layers[0]
        assert not hasattr(layer.mlp.up_proj, "bits")  # 48 columns
        assert layer.self_attn.o_proj.bits == 4  # 96 columns


@pytest.mark.parametrize(
    ("dtype", "stored"), [("bfloat16", mx.bfloat16), ("float16", mx.float16), ("float32", mx.float32)]
)
def test_dtype_casts_all_weights_as_mlx_does(tmp_path, dtype, stored):
    write_checkpoint(tmp_path / "source", dtype="F32")
    convert(tmp_path / "source", tmp_path / "out", dtype=dtype)
    source = read_all(tmp_path / "source", "*.safetensors")
    for name, array in read_all(tmp_path / "out", "*.safetensors").items():
        assert bits(array) == bits(source[name].astype(stored)), name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == dtype


def test_a_tied_heads_copy_is_left_out(tmp_path):
    weights = make_weights(ORTHRUS)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(16, np.float32)
    write_checkpoint(tmp_path / "source", weights=weights)
    result = convert(tmp_path / "source", tmp_path / "out")
    assert result.dropped == ("lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq")
    assert "lm_head.weight" not in read_all(tmp_path / "out", "*.safetensors")


def test_shards_stay_within_the_limit_and_the_index_names_every_tensor(tmp_path):
    write_checkpoint(tmp_path / "source")
    result = convert(tmp_path / "source", tmp_path / "out", max_shard_size=100_000)
    assert len(result.files) > 4
    assert all(size <= 100_000 for size in result.files.values())
    for family, pattern in (("model", "model-*.safetensors"), ("orthrus_diff", "orthrus_diff-*.safetensors")):
        index = json.loads((tmp_path / "out" / f"{family}.safetensors.index.json").read_text())
        names = {file.name: set(mx.load(str(file))) for file in (tmp_path / "out").glob(pattern)}
        assert index["weight_map"] == {name: file for file, tensors in names.items() for name in tensors}


def test_every_tensor_is_aligned_to_its_elements(tmp_path):
    write_checkpoint(tmp_path / "source", QWEN3 | {"hidden_size": 32, "vocab_size": 321})  # 321 one-byte scales
    convert(tmp_path / "source", tmp_path / "out", quantize=True, q_mode="mxfp4")
    entries = open_checkpoint(tmp_path / "out").values()
    assert {entry.dtype for entry in entries} == {"U32", "U8", "BF16"}
    assert [e.name for e in entries if e.start % (DTYPE_BITS[e.dtype] // 8)] == []
    assert min(entry.start for entry in entries) % 8 == 0


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [("BF16", float.fromhex("0x1.fep127")), ("F16", 65504.0), ("F32", float.fromhex("0x1.fffffep127"))],
)
def test_the_largest_finite_weights_are_not_taken_for_infinite(tmp_path, dtype, largest):
    weights = make_weights(ORTHRUS)
    weights["model.norm.weight"][:2] = np.float32(largest), -np.float32(largest)
    write_checkpoint(tmp_path / "source", weights=weights, dtype=dtype)
    convert(tmp_path / "source", tmp_path / "out")


def test_remote_code_neither_runs_nor_travels(tmp_path):
    write_checkpoint(tmp_path / "source", ORTHRUS | {"model_file": "model.py", "quantize_activations": True})
    convert(tmp_path / "source", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.py"))
    for file in (tmp_path / "out").glob("*.json"):
        assert not {"auto_map", "model_file", "quantize_activations"} & set(json.loads(file.read_text())), file.name
    assert (tmp_path / "out" / "LICENSE").read_text() == "a licence\n"


def test_rope_parameters_of_transformers_5_become_theta_and_scaling(tmp_path):
    config = {k: v for k, v in ORTHRUS.items() if k != "rope_theta"}
    config["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 5e5, "factor": 4.0}
    config["rope_parameters"]["original_max_position_embeddings"] = 128
    write_checkpoint(tmp_path / "source", config)
    convert(tmp_path / "source", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "rope_parameters" not in written
    assert written["rope_theta"] == 5e5
    assert written["rope_scaling"]["factor"] == 4.0
    before, after = load(tmp_path / "source")[0], mlx_lm.load(str(tmp_path / "out"))[0]
    assert mx.array_equal(before(TOKENS), after(TOKENS))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("named", ["Qwen2Tokenizer", None])
def test_a_sentencepiece_tokenizer_alone_is_enough_and_keeps_its_token_ids(tmp_path, kind, named):
    write_checkpoint(tmp_path / "source")
    write_sentencepiece(tmp_path / "source", kind)
    write_json(tmp_path / "source" / "tokenizer_config.json", {"tokenizer_class": named} if named else {})
    convert(tmp_path / "source", tmp_path / "out")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "source" / "tokenizer.model"))
    for loader in (mlx_lm.load, load):
        _, tokenizer = loader(str(tmp_path / "out"))
        ids = tokenizer.encode("the quick brown dog")
        assert ids == reference.encode("the quick brown dog")
        assert tokenizer.decode(ids) == "the quick brown dog"


def write_sentencepiece(folder: Path, kind: str) -> None:
    (folder / "tokenizer.json").unlink()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog"] * 50),
        model_writer=model,
        vocab_size=40,
        hard_vocab_limit=False,
        model_type=kind,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())


def test_progress_counts_every_byte_of_both_stages(tmp_path, monkeypatch):
    monkeypatch.setattr(converter, "SLAB_BYTES", 5000)
    write_checkpoint(tmp_path / "source")
    events: list[Progress] = []
    result = convert(tmp_path / "source", tmp_path / "out", quantize=True, on_progress=events.append)
    stages = {stage: [e for e in events if e.stage == stage] for stage in ("write", "verify")}
    assert [e.stage for e in events] == ["write"] * len(stages["write"]) + ["verify"] * len(stages["verify"])
    for stage, total in (("write", result.source_bytes), ("verify", result.written_bytes)):
        done = [e.done for e in stages[stage]]
        assert done == sorted(done)
        assert done[-1] == stages[stage][-1].total == total
        assert {e.file for e in stages[stage]} == set(result.files)


def parse(*arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(a) for a in arguments])


def test_the_command_says_what_it_wrote_and_what_comes_next(tmp_path, capsys):
    write_checkpoint(tmp_path / "source")
    out = tmp_path / "out"
    arguments = ("--model", tmp_path / "source", "--mlx-path", out, "-q", "--q-bits", 8, "--diff-q-mode", "mxfp4")
    assert run(parse(*arguments)) == 0
    printed = capsys.readouterr()
    assert f"Wrote {out}: " in printed.out
    assert "affine, 8 bits, groups of 64" in printed.out
    assert "mxfp4, 4 bits, groups of 32, block size 4" in printed.out
    assert f"orthrus-mlx chat --model {out}" in printed.out
    assert printed.err.splitlines() == [
        "write model.safetensors",
        "write orthrus_diff.safetensors",
        "verify model.safetensors",
        "verify orthrus_diff.safetensors",
    ]


def test_the_module_runs_and_its_errors_are_one_line_with_exit_code_1(tmp_path):
    write_checkpoint(tmp_path / "source")
    command = [sys.executable, "-m", "orthrus_mlx.convert", "--hf-path", "source", "--mlx-path", "out"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "orthrus-mlx chat --model out" in first.stdout
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert second.stderr == ("error: out: already exists; choose another --mlx-path, or replace it with --force\n")
    assert second.stdout == ""


def test_a_conversion_needs_neither_mlx_lm_nor_transformers(tmp_path):
    write_checkpoint(tmp_path / "source")
    program = (
        "import sys\n"
        "from orthrus_mlx.convert import convert\n"
        "convert('source', 'out', quantize=True)\n"
        "assert not {'mlx_lm', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
