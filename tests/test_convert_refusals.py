"""Everything the converter refuses, each with its one line; nothing is left beside the source."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convert_checkpoints import EOS, ORTHRUS, QWEN3, make_weights, write_checkpoint, write_json, write_safetensors

from orthrus_mlx.convert import convert
from orthrus_mlx.errors import CheckpointError, ConfigError, OrthrusError

Q_PROJ = "model.layers.1.self_attn.q_proj.weight"
INDEX = "model.safetensors.index.json"
SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


def refusal(tmp_path: Path, error: type[OrthrusError] = CheckpointError, **options: Any) -> str:
    """The message with which converting `tmp_path/source` is refused; checks that it is one line and left nothing."""
    with pytest.raises(error) as caught:
        convert(tmp_path / "source", tmp_path / "out", **options)
    message = str(caught.value)
    assert "\n" not in message
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]
    return message


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    write_json(folder / "config.json", {k: v for k, v in config.items() if v is not ...})


def edit_header(file: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


# --- tensors


def test_missing_tensor(tmp_path):
    weights = make_weights(ORTHRUS)
    del weights[Q_PROJ]
    write_checkpoint(tmp_path / "source", weights=weights)
    assert refusal(tmp_path) == f"tensor {Q_PROJ} is missing; the checkpoint is incomplete"


def test_missing_tensors_are_counted(tmp_path):
    weights = make_weights(ORTHRUS)
    for name in [n for n in weights if "layers.1." in n and "mlp" in n]:
        del weights[name]
    write_checkpoint(tmp_path / "source", weights=weights)
    assert "(and 2 more)" in refusal(tmp_path)


def test_missing_diffusion_view(tmp_path):
    write_checkpoint(tmp_path / "source", weights={n: w for n, w in make_weights(ORTHRUS).items() if "_diff" not in n})
    assert "config.json says Orthrus, but there are no diffusion weights" in refusal(tmp_path)


def test_extra_tensor(tmp_path):
    weights = make_weights(ORTHRUS) | {"model.layers.2.mlp.up_proj.weight": np.ones((2, 2))}
    write_checkpoint(tmp_path / "source", weights=weights)
    message = refusal(tmp_path)
    assert message.endswith("model.safetensors: tensor 'model.layers.2.mlp.up_proj.weight' is not part of this model")


def test_attention_bias_tensors_are_extra(tmp_path):
    weights = make_weights(QWEN3) | {"model.layers.0.self_attn.q_proj.bias": np.ones(128)}
    write_checkpoint(tmp_path / "source", QWEN3, weights=weights)
    assert "q_proj.bias' is not part of this model" in refusal(tmp_path)


def test_misshaped_tensor(tmp_path):
    weights = make_weights(ORTHRUS)
    weights[Q_PROJ] = weights[Q_PROJ][:96]
    write_checkpoint(tmp_path / "source", weights=weights)
    assert f"tensor {Q_PROJ} has shape [96, 128], config.json asks for [128, 128]" in refusal(tmp_path)


def test_tensor_in_two_files(tmp_path):
    weights = write_checkpoint(tmp_path / "source")
    write_safetensors(tmp_path / "source" / "model-again.safetensors", {Q_PROJ: weights[Q_PROJ]})
    assert f"tensor '{Q_PROJ}' is in both" in refusal(tmp_path)


def test_tied_head_that_differs_from_the_embedding(tmp_path):
    weights = make_weights(ORTHRUS)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1
    write_checkpoint(tmp_path / "source", weights=weights)
    assert "lm_head.weight differs from the embedding" in refusal(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("options", [{}, {"quantize": True}], ids=str)
def test_weights_that_are_not_finite(tmp_path, value, dtype, options):
    weights = make_weights(ORTHRUS)
    weights[Q_PROJ][-1, -1] = value
    write_checkpoint(tmp_path / "source", weights=weights, dtype=dtype)
    assert refusal(tmp_path, **options).endswith(f"model.safetensors: tensor {Q_PROJ} contains NaN or Inf")


def test_weights_too_large_for_the_chosen_dtype(tmp_path):
    weights = make_weights(ORTHRUS)
    weights[Q_PROJ][0, 0] = 1e6
    write_checkpoint(tmp_path / "source", weights=weights)
    message = refusal(tmp_path, dtype="float16")
    assert f"tensor {Q_PROJ} overflows float16; use --dtype bfloat16 or float32" in message


@pytest.mark.parametrize("dtype", ["F64", "I8"])
def test_dtypes_that_are_not_weights(tmp_path, dtype):
    write_checkpoint(tmp_path / "source", dtype=dtype)
    assert f"model.embed_tokens.weight' is {dtype}; expected one of BF16, F16, F32" in refusal(tmp_path)


def test_fp8_weights_are_refused_by_name(tmp_path):
    write_checkpoint(tmp_path / "source", dtype="I8")
    file = tmp_path / "source" / "model.safetensors"
    edit_header(file, lambda header: [t.update(dtype="F8_E4M3") for n, t in header.items() if n != "__metadata__"])
    assert "is F8_E4M3; expected one of BF16, F16, F32" in refusal(tmp_path)


# --- files


def test_truncated_file(tmp_path):
    write_checkpoint(tmp_path / "source", shards=3)
    file = tmp_path / "source" / SHARDS[1]
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-7])
    assert f"{SHARDS[1]}: truncated: {size - 7} bytes, its header asks for {size}" in refusal(tmp_path)


def test_file_longer_than_its_header_says(tmp_path):
    write_checkpoint(tmp_path / "source")
    with (tmp_path / "source" / "model.safetensors").open("ab") as stream:
        stream.write(b"\0" * 5)
    assert "5 bytes too long for its header" in refusal(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\1", (2**63).to_bytes(8, "little"), (100).to_bytes(8, "little") + b"{}"])
def test_header_longer_than_the_file(tmp_path, data):
    write_checkpoint(tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").write_bytes(data)
    assert "corrupt or truncated header" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"not json", "header: not valid JSON"),
        (b"[]", "header: expected a JSON object"),
        (b'{"a":{},"a":{}}', "key 'a' appears twice"),
        (b"\xff\xfe", "header: not valid JSON"),
        (b'{"a":' * 5000, "header: "),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "header: JSON is nested too deeply"),
        (b'{"a":1' + b"0" * 5000 + b"}", "header: not valid JSON"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"__metadata__":{"format":1}}', "__metadata__ must map strings to strings"),
        (b'{"a\\nb":1}', r"tensor 'a\nb' must have exactly dtype, shape and data_offsets"),
    ],
    ids=range(10),
)
def test_corrupt_header(tmp_path, text, fault):
    write_checkpoint(tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    assert fault in refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"dtype": "BF17"}, "unknown dtype 'BF17'"),
        ({"dtype": None}, "unknown dtype None"),
        ({"shape": [128, -128]}, "bad shape"),
        ({"shape": [128, 128.0]}, "bad shape"),
        ({"shape": [True, 128, 128]}, "bad shape"),
        ({"shape": "128"}, "bad shape"),
        ({"shape": [1] * 100}, "bad shape"),
        ({"shape": [2**60, 2**60]}, "bad shape"),
        ({"shape": [64, 128]}, "takes 16384 bytes, data_offsets give 32768"),
        ({"data_offsets": [0]}, "bad data_offsets"),
        ({"data_offsets": [-1, 5]}, "bad data_offsets"),
        ({"data_offsets": [0, 32768]}, "overlaps the one before it"),
        ({"data_offsets": [2**40, 2**40 + 32768]}, "leaves a hole before it"),
        ({"extra": 1}, "must have exactly dtype, shape and data_offsets"),
    ],
    ids=str,
)
def test_header_that_contradicts_itself(tmp_path, change, fault):
    write_checkpoint(tmp_path / "source")
    edit_header(tmp_path / "source" / "model.safetensors", lambda header: header[Q_PROJ].update(change))
    assert fault in refusal(tmp_path)


def test_shard_named_by_the_index_is_missing(tmp_path):
    write_checkpoint(tmp_path / "source", shards=3)
    (tmp_path / "source" / SHARDS[2]).unlink()
    assert refusal(tmp_path).endswith(f"{SHARDS[2]}: no such file, but {INDEX} lists it")


def test_shard_not_named_by_the_index(tmp_path):
    write_checkpoint(tmp_path / "source", shards=3)
    shutil.copy(tmp_path / "source" / SHARDS[0], tmp_path / "source" / "model-old.safetensors")
    assert f"model-old.safetensors: not listed in {INDEX}" in refusal(tmp_path)


def edit_index(folder: Path, edit: Callable[[dict[str, str]], None]) -> None:
    index = json.loads((folder / INDEX).read_text())
    edit(index["weight_map"])
    write_json(folder / INDEX, index)


def test_tensor_the_index_lists_is_not_in_its_file(tmp_path):
    write_checkpoint(tmp_path / "source", shards=3)
    edit_index(tmp_path / "source", lambda weight_map: weight_map.update(absent=SHARDS[0]))
    assert f"{SHARDS[0]}: lacks tensor 'absent' that {INDEX} lists" in refusal(tmp_path)


def test_tensor_the_index_does_not_list(tmp_path):
    write_checkpoint(tmp_path / "source", shards=3)
    edit_index(tmp_path / "source", lambda weight_map: weight_map.pop(Q_PROJ))
    assert f"tensor '{Q_PROJ}' is not listed there by {INDEX}" in refusal(tmp_path)


@pytest.mark.parametrize(
    "target", ["../elsewhere/model.safetensors", "/etc/passwd", "sub/model.safetensors", "..\\model.safetensors", ".."]
)
def test_index_that_leaves_the_folder(tmp_path, target):
    write_checkpoint(tmp_path / "source", shards=3)
    edit_index(tmp_path / "source", lambda weight_map: weight_map.update({Q_PROJ: target}))
    assert f"{target!r} leaves the folder; expected a file name" in refusal(tmp_path)


@pytest.mark.parametrize("target", ["config.json", "model.safetensors\0", "", "a b.safetensors"])
def test_index_that_names_something_else(tmp_path, target):
    write_checkpoint(tmp_path / "source", shards=3)
    edit_index(tmp_path / "source", lambda weight_map: weight_map.update({Q_PROJ: target}))
    assert "is not the name of a safetensors file" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "corrupt index: weight_map"),
        ('{"weight_map": {}}', "corrupt index: weight_map"),
        ('{"weight_map": {"a": 1}}', "corrupt index: 'a' must be in a file, not 1"),
        ('{"weight_map": {"a": "m.safetensors", "a": "n.safetensors"}}', "key 'a' appears twice"),
    ],
)
def test_corrupt_index(tmp_path, text, fault):
    write_checkpoint(tmp_path / "source", shards=3)
    (tmp_path / "source" / INDEX).write_text(text)
    message = refusal(tmp_path)
    assert INDEX in message
    assert fault in message


def test_links_out_of_the_folder_are_followed_because_the_hub_cache_is_made_of_them(tmp_path):
    write_checkpoint(tmp_path / "blobs", shards=3)
    (tmp_path / "source").mkdir()
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "source" / file.name).symlink_to(file)
    convert(tmp_path / "source", tmp_path / "out")
    assert not any(file.is_symlink() for file in (tmp_path / "out").iterdir())


def test_link_to_a_device_is_not_read(tmp_path):
    write_checkpoint(tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").unlink()
    (tmp_path / "source" / "model.safetensors").symlink_to("/dev/zero")
    assert "model.safetensors: no such file" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights(tmp_path, name):
    write_checkpoint(tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").unlink()
    (tmp_path / "source" / name).write_bytes(b"\x80\x04.")
    assert f"only pickled weights ({name}), which can run code; convert them to safetensors first" in refusal(tmp_path)


def test_no_weights_at_all(tmp_path):
    write_checkpoint(tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").unlink()
    assert "no model*.safetensors" in refusal(tmp_path)


def test_source_that_is_not_there(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(CheckpointError, match="no such folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"holds no config\.json; give the folder of a checkpoint"):
        convert(tmp_path / "source", tmp_path / "out")


# --- settings


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model_type": "llama"}, "model_type 'llama' is not supported"),
        ({"model_type": ...}, "model_type None is not supported"),
        ({"block_size": 33}, "block_size 33 is more than 32: from 33 rows on, MLX's 32-row tiles double"),
        ({"block_size": 64}, "set it to 32: drafts get shorter, the text stays"),
        ({"block_size": 1}, "block_size must be an integer in 2..32, not 1"),
        ({"block_size": "32"}, "block_size must be"),
        ({"block_size": ...}, "block_size is missing"),
        ({"mask_token_id": ...}, "mask_token_id is missing"),
        ({"mask_token_id": 320}, "mask_token_id must be an integer in 0..319, not 320"),
        ({"mask_token_id": -1}, "mask_token_id must be"),
        ({"mask_token_id": EOS}, "mask_token_id 0 is an end-of-text token; it must be unused"),
        ({"mask_token_id": 1}, "mask_token_id 1 is an end-of-text token"),  # generation_config.json says so
        ({"mask_token_id": 299, "eos_token_id": 299}, "mask_token_id 299 is an end-of-text token"),
        ({"mask_token_id": 40}, "mask_token_id 40 is the tokenizer's "),
        ({"eos_token_id": "end"}, "eos_token_id must be an integer or a list of them, not 'end'"),
        ({"use_sliding_window": True}, "use_sliding_window is on"),
        ({"attention_bias": True}, "attention_bias is on"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "quantization says the weights are already quantised"),
        (
            {"quantization_config": {"quant_method": "fp8"}},
            "quantization_config says the weights are already quantised",
        ),
        ({"vocab_size": "many"}, "vocab_size must be an integer"),
    ],
    ids=str,
)
def test_settings(tmp_path, changes, fault):
    write_checkpoint(tmp_path / "source")
    edit_config(tmp_path / "source", **changes)
    assert fault in refusal(tmp_path)


def test_mask_token_that_is_an_added_but_ordinary_token(tmp_path):
    write_checkpoint(tmp_path / "source")
    tokenizer = json.loads((tmp_path / "source" / "tokenizer.json").read_text())
    think = next(token["id"] for token in tokenizer["added_tokens"] if token["content"] == "<think>")
    edit_config(tmp_path / "source", mask_token_id=think)
    assert f"mask_token_id {think} is the tokenizer's '<think>'" in refusal(tmp_path, ConfigError)


def test_mask_token_may_be_a_special_token_of_its_own(tmp_path):
    write_checkpoint(tmp_path / "source")
    tokenizer = json.loads((tmp_path / "source" / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 319, "content": "<|mask|>", "special": True})
    write_json(tmp_path / "source" / "tokenizer.json", tokenizer)
    assert convert(tmp_path / "source", tmp_path / "out").args.mask_token_id == 319


def test_block_size_is_missing_but_diffusion_weights_are_there(tmp_path):
    write_checkpoint(tmp_path / "source")
    edit_config(tmp_path / "source", block_size=..., mask_token_id=..., model_type="qwen3", architectures=...)
    assert "block_size and mask_token_id are missing, but there are diffusion weights" in refusal(tmp_path, ConfigError)


@pytest.mark.parametrize("options", [{"quantize": True}, {"quantize": True, "diff_quantize": False}], ids=str)
def test_sources_that_are_already_quantised(tmp_path, options):
    write_checkpoint(tmp_path / "original")
    convert(tmp_path / "original", tmp_path / "source", **options)
    shutil.rmtree(tmp_path / "original")
    assert "already quantised; convert the original checkpoint" in refusal(tmp_path)
    write_json(tmp_path / "source" / "config.json", ORTHRUS)  # a config that hides it
    assert "already quantised; convert the original checkpoint" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": "orthrus", "model_type": "qwen3"}'])
def test_corrupt_config(tmp_path, text):
    write_checkpoint(tmp_path / "source")
    (tmp_path / "source" / "config.json").write_text(text)
    assert "config.json: " in refusal(tmp_path)


# --- tokenizers


def test_no_tokenizer(tmp_path):
    write_checkpoint(tmp_path / "source")
    (tmp_path / "source" / "tokenizer.json").unlink()
    assert "no tokenizer; expected tokenizer.json or tokenizer.model" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not valid JSON"),
        ("{}", "corrupt tokenizer: model.vocab is missing"),
        ('{"model": {"vocab": {"a": "b"}}}', "corrupt tokenizer: token 'a' has id 'b'"),
        ('{"model": {"vocab": {}}, "added_tokens": [1]}', "added_tokens must hold objects"),
        ('{"model": {"vocab": {}}, "added_tokens": {"a": 1}}', "added_tokens must be a list"),
        ('{"model": {"vocab": {"a": 320}}}', "the tokenizer has token id 320, but config.json's vocab_size is 320"),
    ],
)
def test_corrupt_tokenizer(tmp_path, text, fault):
    write_checkpoint(tmp_path / "source")
    (tmp_path / "source" / "tokenizer.json").write_text(text)
    assert fault in refusal(tmp_path)


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x0a\xff\xff\xff\xff\x0f"])
def test_corrupt_sentencepiece_tokenizer(tmp_path, data):
    write_checkpoint(tmp_path / "source")
    (tmp_path / "source" / "tokenizer.json").unlink()
    (tmp_path / "source" / "tokenizer.model").write_bytes(data)
    assert "tokenizer.model: corrupt tokenizer" in refusal(tmp_path)


# --- options


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"q_bits": 4}, "--q-bits, --q-group-size and --q-mode need --quantize"),
        ({"quantize": True, "q_bits": 7}, "mode affine does not take bits 7; expected 2, 3, 4, 5, 6, 8"),
        ({"quantize": True, "q_bits": 0}, "does not take bits 0"),
        ({"quantize": True, "q_group_size": 16}, "does not take group size 16; expected 32, 64, 128"),
        ({"quantize": True, "q_mode": "mxfp4", "q_bits": 8}, "mode mxfp4 does not take bits 8; expected 4"),
        ({"quantize": True, "q_mode": "nvfp4", "q_group_size": 32}, "nvfp4 does not take group size 32; expected 16"),
        ({"quantize": True, "q_mode": "fp5"}, "quantisation mode 'fp5' is not supported"),
        ({"diff_quantize": False, "diff_q_bits": 4}, "--diff-no-quantize contradicts --diff-q-bits"),
        ({"dtype": "int8"}, "dtype 'int8' is not supported; expected one of bfloat16, float16, float32"),
        ({"layout": "zip"}, "layout 'zip' is not supported"),
        ({"max_shard_size": "5 sacks"}, "max shard size '5 sacks' is not a size"),
        ({"max_shard_size": 0}, "max shard size 0 is not a size"),
        ({"revision": "v2"}, "a local folder has no revisions ('v2')"),
    ],
    ids=str,
)
def test_options(tmp_path, options, fault):
    write_checkpoint(tmp_path / "source")
    assert fault in refusal(tmp_path, **options)


@pytest.mark.parametrize("options", [{"diff_q_bits": 8}, {"diff_quantize": False}], ids=str)
def test_diffusion_options_for_a_plain_qwen3(tmp_path, options):
    write_checkpoint(tmp_path / "source", QWEN3)
    assert "has no diffusion weights; leave out the --diff options" in refusal(tmp_path, ConfigError, **options)
