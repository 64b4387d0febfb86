"""Damaged checkpoints: the converter answers with our own error or a folder that is right, and always soon."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from convert_checkpoints import ORTHRUS, write_checkpoint
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orthrus_mlx.convert import convert
from orthrus_mlx.errors import OrthrusError
from orthrus_mlx.json_file import parse_object
from orthrus_mlx.safetensors_file import open_checkpoint

DEADLINE = 5000  # ms; an undamaged one takes some 20
SMALL = ORTHRUS | {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 4}
INDEX = "model.safetensors.index.json"

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, 2, 4, 16, 31, 32, 33, 319, 320, 2**31, 2**53, 2**63]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["BF16", "F32", "F8_E4M3", "qwen3", "orthrus", "yarn", "../x.safetensors", "model.safetensors", "\ud800"]
    ),
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@cache
def source_files(shards: int) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), SMALL, shards=shards)
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def convert_damaged(files: dict[str, bytes]) -> str | None:
    """Convert a folder of `files`: either an OrthrusError of one line (returned), or a result the reader passes."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        for name, data in files.items():
            (source / name).write_bytes(data)
        try:
            convert(source, Path(folder) / "out")
        except OrthrusError as error:
            assert "\n" not in str(error)
            str(error).encode()  # printable whatever the file said
            assert [entry.name for entry in Path(folder).iterdir()] == ["source"]
            return str(error)
        open_checkpoint(Path(folder) / "out")
        return None


def split_header(file: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(file[:8], "little")
    return json.loads(file[8 : 8 + length]), file[8 + length :]


def join_header(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_an_undamaged_checkpoint_converts():
    for shards in (1, 2):
        assert convert_damaged(source_files(shards)) is None


@settings(max_examples=150, deadline=DEADLINE)
@given(st.data())
def test_flipped_bytes_in_a_header(data):
    files = dict(source_files(1))
    damaged = bytearray(files["model.safetensors"])
    header_end = 8 + int.from_bytes(damaged[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, header_end - 1))] = data.draw(st.integers(0, 255))
    convert_damaged(files | {"model.safetensors": bytes(damaged)})


@settings(max_examples=100, deadline=DEADLINE)
@given(st.data())
def test_values_in_a_header(data):
    files = dict(source_files(1))
    header, weights = split_header(files["model.safetensors"])
    name = data.draw(st.sampled_from(sorted(header)))
    if data.draw(st.booleans()):
        header[name] = data.draw(json_values)
    else:
        key = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "new"]))
        header[name][key] = data.draw(json_values | st.lists(st.integers(-1, 20_000), max_size=3))
    if data.draw(st.booleans()):
        header[data.draw(st.text(max_size=8))] = header.pop(name)
    convert_damaged(files | {"model.safetensors": join_header(header, weights)})


@settings(max_examples=60, deadline=DEADLINE)
@given(st.integers(0, 40_000), st.binary(max_size=12))
def test_cut_and_padded_files(length, tail):
    files = dict(source_files(1))
    convert_damaged(files | {"model.safetensors": files["model.safetensors"][:length] + tail})


@settings(max_examples=100, deadline=DEADLINE)
@given(st.binary(max_size=200))
@example(b"")
@example((2).to_bytes(8, "little") + b"{}")
def test_files_of_noise(noise):
    convert_damaged(dict(source_files(1)) | {"model.safetensors": noise})


@settings(max_examples=150, deadline=DEADLINE)
@given(st.data())
def test_indices(data):
    files = dict(source_files(2))
    index = json.loads(files[INDEX])
    weight_map = index["weight_map"]
    action = data.draw(st.sampled_from(["whole", "map", "entry", "drop", "add", "swap"]))
    name = data.draw(st.sampled_from(sorted(weight_map)))
    if action == "whole":
        index = data.draw(json_values)
    elif action == "map":
        index["weight_map"] = data.draw(json_values)
    elif action == "entry":
        weight_map[name] = data.draw(json_values)
    elif action == "drop":
        del weight_map[name]
    elif action == "add":
        weight_map[data.draw(st.text(max_size=8))] = data.draw(st.sampled_from(sorted(set(weight_map.values()))))
    else:
        weight_map[name] = next(target for target in sorted(set(weight_map.values())) if target != weight_map[name])
    convert_damaged(files | {INDEX: json.dumps(index).encode()})


@settings(max_examples=300, deadline=DEADLINE)
@given(
    st.dictionaries(
        st.sampled_from(
            [*sorted(SMALL), "rope_scaling", "rope_parameters", "layer_types", "orthrus", "quantization", "x"]
        ),
        json_values,
        min_size=1,
        max_size=3,
    ),
    st.sets(st.sampled_from(sorted(SMALL)), max_size=2),
)
def test_configs(changes, removed):
    config = {key: value for key, value in (SMALL | changes).items() if key not in removed}
    convert_damaged(dict(source_files(1)) | {"config.json": json.dumps(config).encode()})


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json"])
@settings(max_examples=60, deadline=DEADLINE)
@given(
    st.dictionaries(st.sampled_from(["eos_token_id", "eos_token", "tokenizer_class", "auto_map"]), json_values)
    | json_values
)
def test_settings_files(name, content):
    convert_damaged(dict(source_files(1)) | {name: json.dumps(content).encode()})


@settings(max_examples=120, deadline=DEADLINE)
@given(st.data())
def test_tokenizers(data):
    files = dict(source_files(1))
    tokenizer = json.loads(files["tokenizer.json"])
    path = data.draw(st.sampled_from([(), ("model",), ("model", "vocab"), ("added_tokens",), ("added_tokens", 0)]))
    value = data.draw(json_values)
    if path:
        place = tokenizer
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    else:
        tokenizer = value
    convert_damaged(files | {"tokenizer.json": json.dumps(tokenizer).encode()})


@settings(max_examples=80, deadline=DEADLINE)
@given(st.binary(max_size=64))
def test_sentencepiece_noise(noise):
    files = {name: data for name, data in source_files(1).items() if name != "tokenizer.json"}
    convert_damaged(files | {"tokenizer.model": noise})


@settings(max_examples=300, deadline=DEADLINE)
@given(st.binary(max_size=64) | st.text(alphabet='{}[]",:0123456789eE+-.ntfa\\u ', max_size=64).map(str.encode))
def test_json_of_noise(noise):
    try:
        parse_object(noise, "file")
    except OrthrusError as error:
        assert "\n" not in str(error)
