"""Loading: every layout gives the same model; everything else is refused with one line, whatever the file holds."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from orthrus_mlx import load, load_model_and_tokenizer, mlx_generate
from orthrus_mlx.cache import KVCache
from orthrus_mlx.errors import CheckpointError, ConfigError, OrthrusError
from orthrus_mlx.hub import resolve
from orthrus_mlx.loading import read_config
from orthrus_mlx.model import DIFFUSION, Model

SETTINGS = tiny.text_config(eos_token_id=[tiny.IM_END, tiny.END_OF_TEXT])
DRAWN = tiny.weights(SETTINGS)
IDS = mx.array([[5, 80, 200, 258, 3]])


def both_views(model: Model) -> list[mx.array]:
    cache = KVCache(len(model.layers))
    logits = [model(IDS, cache)]
    cache.commit(IDS.size)
    if model.args.has_diffusion_view:
        logits.append(model(IDS, cache, view=DIFFUSION))
    return logits


def assert_same_model(loaded: Model, built: Model) -> None:
    for a, b in zip(both_views(loaded), both_views(built), strict=True):
        assert a.dtype == b.dtype
        assert mx.array_equal(a, b)


# Layouts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", tiny.DTYPES)
@pytest.mark.parametrize("model_type", ["orthrus", "qwen3"])
def test_the_hugging_face_layout_loads(tmp_path, dtype, model_type):
    config = {**SETTINGS, "model_type": model_type, "architectures": ["OrthrusLM"], "auto_map": {"AutoModel": "m.X"}}
    model, tokenizer = load(tiny.write_checkpoint(tmp_path, config, DRAWN, dtype))
    assert_same_model(model, tiny.build(SETTINGS, DRAWN, dtype))
    assert tokenizer.eos_token_ids == {tiny.IM_END, tiny.END_OF_TEXT}


@pytest.mark.parametrize("backbone, diffusion", [("none", "none"), ("affine4", "none"), ("none", "affine8"),
                                                 ("mxfp4", "affine8"), ("nvfp4", "mxfp8")])  # fmt: skip
def test_the_side_car_layout_loads_here_and_as_plain_qwen3_in_stock_mlx_lm(tmp_path, backbone, diffusion):
    folder = tiny.write_side_car(tmp_path, SETTINGS, DRAWN, backbone, diffusion)
    model, tokenizer = load(folder)
    ar = both_views(model)[0]
    assert mx.array_equal(ar, both_views(tiny.build(SETTINGS, DRAWN, quantization=backbone))[0])
    if backbone == diffusion:
        assert_same_model(model, tiny.build(SETTINGS, DRAWN))
    attention = model.layers[0].self_attn
    for module, expected in ((attention.q_proj, backbone), (attention.q_proj_diff, diffusion)):
        wanted = tiny.QUANTIZATIONS[expected] or {}
        assert {k: getattr(module, k, None) for k in wanted} == wanted
        assert hasattr(module, "scales") == bool(wanted)
    stock, stock_tokenizer = mlx_lm.load(folder)
    assert mx.array_equal(stock(IDS), model(IDS))
    assert tokenizer.encode("the ring é") == stock_tokenizer.encode("the ring é")
    assert list(mlx_generate(model, [5], None, 12, mode="diffusion")) == list(mlx_generate(model, [5], None, 12))


@pytest.mark.parametrize("quantization", [q for q in tiny.QUANTIZATIONS if q != "none"])
@pytest.mark.parametrize("has_view", [True, False], ids=["all-in-one", "plain qwen3"])
def test_quantised_checkpoints_load(tmp_path, quantization, has_view):
    config = SETTINGS if has_view else tiny.plain_config(vocab_size=tiny.TEXT_VOCABULARY)
    built = tiny.build(config, tiny.weights(config), quantization=quantization)
    tiny.write_checkpoint(tmp_path, {**config, "quantization": tiny.QUANTIZATIONS[quantization]}, {})
    built.save_weights(str(tmp_path / "model.safetensors"))
    assert_same_model(load(tmp_path)[0], built)


def test_modules_with_their_own_quantisation_load(tmp_path):
    path = "model.layers.1.mlp.down_proj"
    own = {"group_size": 32, "bits": 8, "mode": "affine"}
    built = tiny.build(SETTINGS, DRAWN)

    def chosen(name: str, module: nn.Module) -> Any:
        if not hasattr(module, "to_quantized") or name == "lm_head":
            return False
        return own if name == path else tiny.QUANTIZATIONS["affine4"]

    nn.quantize(built, class_predicate=chosen)
    quantization = {**tiny.QUANTIZATIONS["affine4"], path: own, "lm_head": False}
    tiny.write_checkpoint(tmp_path, {**SETTINGS, "quantization": quantization}, {})
    built.save_weights(str(tmp_path / "model.safetensors"))
    assert_same_model(load(tmp_path)[0], built)


def test_a_plain_qwen3_loads_and_decodes_one_token_at_a_time(tmp_path):
    config = tiny.plain_config(vocab_size=tiny.TEXT_VOCABULARY)
    drawn = tiny.weights(config)
    model, _ = load(tiny.write_checkpoint(tmp_path, config, drawn))
    assert_same_model(model, tiny.build(config, drawn))
    assert len(list(mlx_generate(model, [1], None, 5))) == 5


def test_sharded_checkpoints_load(tmp_path):
    hugging_face = tiny.write_checkpoint(tmp_path / "hf", SETTINGS, DRAWN)
    tiny.shard(hugging_face / "model.safetensors", 3)
    side_car = tiny.write_side_car(tmp_path / "side-car", SETTINGS, DRAWN)
    tiny.shard(side_car / "model.safetensors", 2)
    tiny.shard(side_car / "orthrus_diff.safetensors", 2)
    for folder in (hugging_face, side_car):
        assert_same_model(load(folder)[0], tiny.build(SETTINGS, DRAWN))


def test_lazy_loading_a_string_path_and_the_official_name_give_the_same_model(tmp_path):
    tiny.write_checkpoint(tmp_path, SETTINGS, DRAWN)
    built = tiny.build(SETTINGS, DRAWN)
    assert_same_model(load(str(tmp_path), lazy=True)[0], built)
    model, tokenizer = load_model_and_tokenizer(str(tmp_path))
    assert_same_model(model, built)
    # The snippet of the README, with a folder for the hub id.
    tokens = mlx_generate(model, tokenizer.encode("he"), tokenizer.eos_token_id, max_tokens=4)
    assert all(isinstance(t, int) for t in tokens)


def test_a_copy_of_a_tied_head_and_rotary_tables_are_left_out(tmp_path):
    config = {**SETTINGS, "tie_word_embeddings": True}
    drawn = tiny.weights(config)
    spare = {"lm_head.weight": drawn["model.embed_tokens.weight"],
             "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}  # fmt: skip
    model, _ = load(tiny.write_checkpoint(tmp_path, config, drawn | spare))
    assert_same_model(model, tiny.build(config, drawn))


def test_transformers_5_s_rope_parameters_and_yarn_load(tmp_path):
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    old = {**SETTINGS, "rope_scaling": scaling}
    new = {k: v for k, v in SETTINGS.items() if k != "rope_theta"}
    new["rope_parameters"] = {**scaling, "rope_theta": SETTINGS["rope_theta"]}
    built = tiny.build(old, DRAWN)
    for i, config in enumerate((old, new)):
        for model_type in ("orthrus", "qwen3"):
            folder = tiny.write_checkpoint(tmp_path / f"{i}{model_type}", {**config, "model_type": model_type}, DRAWN)
            assert_same_model(load(folder)[0], built)


def test_eos_ids_of_generation_config_count_as_in_mlx_lm(tmp_path):
    folder = tiny.write_side_car(tmp_path, SETTINGS, DRAWN)
    tiny.write_json(folder / "generation_config.json", {"eos_token_id": [1, 2], "use_cache": False})
    _, tokenizer = load(folder)
    assert tokenizer.eos_token_ids == mlx_lm.load(folder)[1].eos_token_ids == {1, 2, tiny.IM_END}
    assert read_config(folder)["eos_token_id"] == [1, 2]


def test_remote_code_is_never_asked_for_nor_run(tmp_path, capfd):
    trap = {
        "AutoConfig": "trap.Config",
        "AutoModelForCausalLM": "trap.Model",
        "AutoTokenizer": ["trap.Tokenizer", None],
    }
    folder = tiny.write_checkpoint(tmp_path, {**SETTINGS, "auto_map": trap}, DRAWN)
    (folder / "trap.py").write_text("raise SystemExit('remote code ran')")
    load(folder, {"trust_remote_code": True})
    # transformers says on the console what it cannot make of a config it does not know; it must not be asked.
    assert capfd.readouterr() == ("", "")


# Refusals -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("sound"), SETTINGS, DRAWN)


@pytest.fixture(scope="module")
def sound_quantised(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("quantised")
    tiny.write_checkpoint(folder, {**SETTINGS, "quantization": tiny.QUANTIZATIONS["affine4"]}, {})
    tiny.build(SETTINGS, DRAWN, quantization="affine4").save_weights(str(folder / "model.safetensors"))
    return folder


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        tiny.write_json(folder / "config.json", {k: v for k, v in config.items() if v is not None})

    return change


def change_tensors(change: Callable[[dict[str, mx.array]], Any]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = mx.load(str(folder / "model.safetensors"))
        mx.eval(tensors)
        change(tensors)
        tiny.write_tensors(folder / "model.safetensors", tensors)

    return rewrite


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text)


def cut(name: str, nbytes: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:nbytes])


def change_tokenizer(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        tiny.write_json(folder / "tokenizer.json", content)

    return rewrite


def shard_and(change: Callable[[dict[str, str]], Any]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tiny.shard(folder / "model.safetensors", 2)
        index = folder / "model.safetensors.index.json"
        content = json.loads(index.read_text())
        change(content["weight_map"])
        tiny.write_json(index, content)

    return rewrite


Q = "model.layers.0.self_attn.q_proj.weight"
DIFF = "model.layers.1.self_attn.v_proj_diff.weight"
REFUSED = {
    "no config": (lambda f: (f / "config.json").unlink(), r"holds no config\.json; give the folder of a checkpoint"),
    "config no JSON": (write("config.json", "{"), r"config\.json: not valid JSON"),
    "config a list": (write("config.json", "[]"), "expected a JSON object at the top level"),
    "config not UTF-8": (lambda f: (f / "config.json").write_bytes(b"\xff{}"), "not valid JSON"),
    "config with NaN": (write("config.json", '{"rms_norm_eps": NaN}'), "NaN is not JSON"),
    "config a key twice": (write("config.json", '{"a": 1, "a": 2}'), "key 'a' appears twice"),
    "config nested deeply": (write("config.json", "[" * 100_000), "JSON is nested too deeply|not valid JSON"),
    "generation config": (write("generation_config.json", "nonsense"), r"generation_config\.json: not valid JSON"),
    "sliding window": (change_config(use_sliding_window=True), "use_sliding_window is on"),
    "attention bias": (change_config(attention_bias=True), "attention_bias is on"),
    "unknown model type": (change_config(model_type="llama"), "model_type 'llama' is not supported"),
    "no block size": (change_config(block_size=None), "block_size is missing; an Orthrus model needs"),
    "block size 33": (change_config(block_size=33), "block_size 33 is more than 32: .*; set it to 32"),
    "mask id": (change_config(mask_token_id=288), r"mask_token_id must be an integer in 0\.\.287, not 288"),
    "no settings for diffusion weights": (
        change_config(model_type="qwen3", block_size=None, mask_token_id=None),
        "block_size and mask_token_id are missing, but the folder has diffusion weights",
    ),
    "wrong width": (change_config(hidden_size=64), r"has shape \[288, 32\], config\.json asks for \[288, 64\]"),
    "fewer layers": (change_config(num_hidden_layers=1), r"tensor 'model\.layers\.1\..*' is not part of this model"),
    "more layers": (change_config(num_hidden_layers=3), r"tensor model\.layers\.2\..* is missing \(and 16 more\)"),
    "tied": (change_config(tie_word_embeddings=False, vocab_size=289), "asks for"),
    "foreign quantisation": (
        change_config(quantization_config={"quant_method": "gptq"}),
        "quantization_config is not MLX's; convert the unquantised checkpoint",
    ),
    "eos ids": (change_config(eos_token_id="<eos>"), "eos_token_id must be an id or a list of ids, not '<eos>'"),
    "missing tensor": (change_tensors(lambda t: t.pop(Q)), f"tensor {Q} is missing; the checkpoint is incomplete"),
    "missing diffusion tensor": (change_tensors(lambda t: t.pop(DIFF)), f"tensor {DIFF} is missing"),
    "extra tensor": (change_tensors(lambda t: t.update(other=mx.zeros(2))), "tensor 'other' is not part of this model"),
    "mis-shaped tensor": (change_tensors(lambda t: t.update({Q: mx.zeros((64, 31))})), rf"{Q} has shape \[64, 31\]"),
    "integer tensor": (
        change_tensors(lambda t: t.update({Q: t[Q].astype(mx.int32)})),
        rf"tensor {Q} has dtype I32; expected F32 or F16 or BF16",
    ),
    "packed without scales": (
        change_tensors(lambda t: t.update({Q: t[Q].astype(mx.uint32)})),
        rf"tensor {Q} has dtype U32",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"no model\*\.safetensors; pickled weights"),
    "pickled weights": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        r"only pickled weights \(pytorch_model\.bin\), which can run code",
    ),
    "truncated": (cut("model.safetensors", 5000), "corrupt or truncated header|truncated: 5000 bytes"),
    "truncated data": (cut("model.safetensors", 100_000), "truncated: 100000 bytes"),
    "empty weights": (cut("model.safetensors", 0), "corrupt or truncated header"),
    "weights twice": (
        lambda f: shutil.copy(f / "model.safetensors", f / "model-2.safetensors"),
        r"is in both .*model-2\.safetensors and .*model\.safetensors|is in both",
    ),
    "index lists another file": (shard_and(lambda m: m.update({"other": "model-9.safetensors"})), "no such file, but"),
    "index leaves the folder": (shard_and(lambda m: m.update({Q: "../x.safetensors"})), "leaves the folder"),
    "index absolute": (shard_and(lambda m: m.update({Q: "/etc/passwd"})), "leaves the folder"),
    "index not of strings": (shard_and(lambda m: m.update({Q: 5})), "corrupt index"),
    "index lacks a tensor": (shard_and(lambda m: m.pop(Q)), "is not listed there by"),
    "index lists a tensor too many": (
        shard_and(lambda m: m.update({"other": "model-00001-of-00002.safetensors"})),
        "lacks tensor 'other'",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"no tokenizer\.json or tokenizer\.model"),
    "tokenizer no JSON": (write("tokenizer.json", "{"), "the tokenizer cannot be read"),
    "tokenizer of nothing": (write("tokenizer.json", "{}"), "the tokenizer cannot be read"),
    "tokenizer config": (write("tokenizer_config.json", "["), "the tokenizer cannot be read"),
    "tokenizer that makes its parser panic": (
        change_tokenizer(lambda t: t["model"].update(continuing_subword_prefix="longer than a merge")),
        "the tokenizer cannot be read",
    ),
}


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to, dirs_exist_ok=True)
    return to


@pytest.mark.parametrize("damage, message", REFUSED.values(), ids=REFUSED)
def test_a_checkpoint_that_cannot_be_used_is_refused_by_name(sound, tmp_path, damage, message):
    damage(copied(sound, tmp_path))
    with pytest.raises(CheckpointError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def quantised(**quantization: Any) -> Callable[[Path], None]:
    return change_config(quantization={**tiny.QUANTIZATIONS["affine4"], **quantization})


QUANTISED_REFUSED = {
    "no settings": (change_config(quantization=None), "is not part of this model"),
    "a list": (change_config(quantization=[4]), r"quantization must be an object, not \[4\]"),
    "bits": (quantised(bits=7), r"\(mode 'affine', 7 bits, group size 32\) is not one that MLX has for 32 columns"),
    "bits fractional": (quantised(bits=4.0), "4.0 bits"),
    "bits true": (quantised(bits=True), "True bits"),
    "group size": (quantised(group_size=48), "group size 48"),
    "group size fractional": (quantised(group_size=32.0), "group size 32.0"),
    "group size too wide": (quantised(group_size=64), "is not one that MLX has for 32 columns"),
    "mode": (quantised(mode="int4"), "mode 'int4'"),
    "mode kind": (quantised(mode=["affine"]), r"mode \['affine'\]"),
    "other bits than the weights": (quantised(bits=8), "has shape"),
    "other mode than the weights": (quantised(mode="mxfp4"), "is not part of this model|has dtype"),
    "packed as floats": (
        change_tensors(lambda t: t.update({Q: t[Q].astype(mx.float32)})),
        rf"tensor {Q} has dtype F32; expected U32",
    ),
    "scales as integers": (
        change_tensors(lambda t: t.update({Q.replace("weight", "scales"): mx.ones((64, 1), mx.uint8)})),
        r"q_proj\.scales has dtype U8; expected F32",
    ),
    "no biases": (
        change_tensors(lambda t: t.pop(Q.replace("weight", "biases"))),
        r"tensor model\.layers\.0\.self_attn\.q_proj\.biases is missing",
    ),
}


@pytest.mark.parametrize("damage, message", QUANTISED_REFUSED.values(), ids=QUANTISED_REFUSED)
def test_a_quantised_checkpoint_that_cannot_be_used_is_refused_by_name(sound_quantised, tmp_path, damage, message):
    damage(copied(sound_quantised, tmp_path))
    with pytest.raises(CheckpointError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


PATHS = {
    "absent folder": ("./absent/model", "no such folder, and not a Hugging Face id"),
    "no id": ("no-such-thing", r"no such folder, and not a Hugging Face id \(owner/name\)"),
    "unreachable hub": ("owner/model", "downloaded yet, and the hub cannot be reached|the download failed"),
    "home of nobody": ("~nobody-at-all/model", "cannot be opened"),
    "too long": ("a" * 5000, "cannot be opened"),
    "zero byte": ("a\0b", "no such folder|cannot be opened"),
}


@pytest.mark.parametrize("path, message", PATHS.values(), ids=PATHS)
def test_a_path_that_leads_nowhere_is_refused(path, message):
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"not a folder; give the folder that holds config\.json"):
        resolve(tmp_path / "model.safetensors")


# Fuzz -----------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**12) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def loads_or_refuses(folder: Path) -> None:
    try:
        model, _ = load(folder)
        list(mlx_generate(model, [1, 2, 3], None, 3, mode="ar", exact=False))
    except OrthrusError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def victim(sound, tmp_path_factory) -> Path:
    return copied(sound, tmp_path_factory.mktemp("victim"))


@settings(max_examples=250)
@given(
    changes=st.dictionaries(
        st.sampled_from([*SETTINGS, "quantization", "orthrus", "rope_scaling", "rope_parameters", "layer_types"]),
        JSON | st.sampled_from([tiny.QUANTIZATIONS["affine4"], 2, 16, 32, 10**400]),
        min_size=1,
        max_size=3,
    ),
    removed=st.sets(st.sampled_from(list(SETTINGS)), max_size=1),
)
def test_no_mutation_of_config_json_crashes_the_loader(victim, changes, removed):
    config = {k: v for k, v in {**SETTINGS, **changes}.items() if k not in removed}
    tiny.write_json(victim / "config.json", config)
    loads_or_refuses(victim)


@settings(max_examples=150)
@given(data=st.data())
def test_no_mutation_of_config_bytes_crashes_the_loader(victim, data):
    text = bytearray(json.dumps(SETTINGS).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    (victim / "config.json").write_bytes(text)
    loads_or_refuses(victim)


def safetensors_parts(file: Path) -> tuple[dict[str, Any], bytes]:
    raw = file.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def write_safetensors(file: Path, header: Any, data: bytes) -> None:
    encoded = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


@settings(max_examples=300)
@given(data=st.data())
def test_no_mutation_of_a_safetensors_header_crashes_the_loader(sound, victim, data):
    tiny.write_json(victim / "config.json", SETTINGS)
    header, body = safetensors_parts(sound / "model.safetensors")
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(sorted(header)))
        kind = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "drop", "rename", "replace"]))
        entry = header[name]
        if kind == "drop":
            del header[name]
        elif kind == "rename":
            header[data.draw(st.text(max_size=30))] = header.pop(name)
        elif kind == "replace" or not isinstance(entry, dict):
            header[name] = data.draw(JSON)
        elif kind == "dtype":
            entry["dtype"] = data.draw(st.sampled_from(["F32", "F16", "I64", "U8", "F8_E4M3", "F4", "BOOL", "", None]))
        else:
            entry[kind] = data.draw(st.lists(st.integers(-2, 2**65) | st.integers(0, 20_000), max_size=4) | JSON)
    write_safetensors(victim / "model.safetensors", header, body)
    loads_or_refuses(victim)


@settings(max_examples=200)
@given(data=st.data())
def test_no_mutation_of_weight_file_bytes_crashes_the_loader(sound, victim, data):
    tiny.write_json(victim / "config.json", SETTINGS)
    raw = bytearray((sound / "model.safetensors").read_bytes())
    header = 8 + struct.unpack("<Q", raw[:8])[0]
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, 15) | st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    (victim / "model.safetensors").write_bytes(raw[: data.draw(st.sampled_from([len(raw), len(raw), header, 7]))])
    loads_or_refuses(victim)


@settings(max_examples=100)
@given(data=st.data())
def test_no_mutation_of_tokenizer_files_crashes_the_loader(sound, tmp_path_factory, data):
    folder = copied(sound, tmp_path_factory.getbasetemp() / "tokenizer-victim")
    name = data.draw(st.sampled_from(["tokenizer.json", "tokenizer_config.json"]))
    content = json.loads((sound / name).read_text())
    key = data.draw(st.sampled_from(sorted(content)))
    inner = content[key]
    if isinstance(inner, dict) and data.draw(st.booleans()):
        inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(JSON)
    else:
        content[key] = data.draw(JSON)
    tiny.write_json(folder / name, content)
    try:
        load(folder)
    except OrthrusError as error:
        assert "\n" not in str(error)


def test_config_errors_are_checkpoint_errors():
    assert issubclass(ConfigError, CheckpointError)
