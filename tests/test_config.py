"""Settings: what is read from which layout, and what is refused by name rather than ignored."""

from __future__ import annotations

import math

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from orthrus_mlx.config import MAX_BLOCK_SIZE, MODEL_TYPES, ModelArgs
from orthrus_mlx.errors import CheckpointError, ConfigError
from orthrus_mlx.model import Model


def read(**changes) -> ModelArgs:
    return ModelArgs.from_dict(tiny.config(**changes))


def test_the_hugging_face_layout_is_read_whatever_its_model_type():
    for model_type in MODEL_TYPES:
        args = read(model_type=model_type, architectures=["OrthrusLM"], auto_map={"AutoConfig": "x.Y"})
        assert (args.block_size, args.mask_token_id) == (32, tiny.VOCABULARY - 1)
        assert args.has_diffusion_view


def test_the_side_car_layout_is_the_hugging_face_layout_in_an_object():
    side_car = tiny.plain_config(orthrus={"block_size": 32, "mask_token_id": tiny.VOCABULARY - 1})
    expected = read()
    expected.model_type = "qwen3"
    assert ModelArgs.from_dict(side_car) == expected


def test_a_plain_qwen3_has_no_diffusion_view():
    args = ModelArgs.from_dict(tiny.plain_config())
    assert (args.block_size, args.mask_token_id, args.has_diffusion_view) == (None, None, False)


def test_settings_written_as_a_plain_config_are_read_back():
    for changes in ({}, {"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": 0.1 * math.log(4) + 1}}):
        args = read(**changes)
        again = ModelArgs.from_dict({**args.to_dict(), "block_size": 32, "mask_token_id": tiny.VOCABULARY - 1})
        assert again == args


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}


@pytest.mark.parametrize("scaling", [None, {"rope_type": "default"}, {"rope_type": "linear", "factor": 2.0}, YARN])
def test_rope_parameters_of_transformers_5_equal_rope_theta_and_rope_scaling(scaling):
    theta = tiny.CONFIG["rope_theta"]
    nested = {"rope_theta": theta, "rope_type": "default", **(scaling or {})}
    assert read(rope_theta=None, rope_parameters=nested) == read(rope_scaling=scaling)
    assert read(rope_parameters={**nested, "partial_rotary_factor": 1.0}) == read(rope_scaling=scaling)
    if scaling:
        old_name = {"type" if k == "rope_type" else k: v for k, v in scaling.items()}
        assert read(rope_scaling=old_name) == read(rope_scaling=scaling)


def test_yarn_settings_count_as_in_transformers():
    standard = 0.1 * math.log(4) + 1
    for harmless in ({"attention_factor": standard}, {"attention_factor": None}, {"truncate": True}, {"mscale": 0.5},
                     {"mscale_all_dim": 1.0}, {"mscale": 0, "mscale_all_dim": 1}):  # fmt: skip
        assert read(rope_scaling={**YARN, **harmless}) == read(rope_scaling=YARN)
    together = read(rope_scaling={**YARN, "mscale": 1.0, "mscale_all_dim": 1.0})
    assert together != read(rope_scaling=YARN)
    assert Model(together).layers[0].self_attn.rope.mscale == 1.0
    assert Model(read(rope_scaling=YARN)).layers[0].self_attn.rope.mscale == pytest.approx(standard)


def test_context_length():
    assert read().context_length == 4096
    assert read(rope_scaling=YARN).context_length == 4096
    assert read(rope_scaling={**YARN, "original_max_position_embeddings": 4096}).context_length == 16384
    assert read(rope_scaling={"rope_type": "linear", "factor": 8.0}).context_length == 4096
    without = {k: v for k, v in YARN.items() if k != "original_max_position_embeddings"}
    assert read(rope_scaling=without).context_length == 4 * 32768


def test_absent_settings_have_qwen3_s_defaults():
    args = read(num_key_value_heads=None, head_dim=None, rms_norm_eps=None, max_position_embeddings=None,
                tie_word_embeddings=None)  # fmt: skip
    assert (args.num_key_value_heads, args.head_dim) == (4, 8)
    assert (args.rms_norm_eps, args.max_position_embeddings, args.tie_word_embeddings) == (1e-6, 32768, False)


REFUSED = {
    "sliding window": ({"use_sliding_window": True}, "use_sliding_window is on; only full attention"),
    "sliding layers": ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types contains 'sliding_att"),
    "layer types": ({"layer_types": "full_attention"}, "layer_types must be a list"),
    "attention bias": ({"attention_bias": True}, "attention_bias is on"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported; expected 'silu'"),
    "model type": ({"model_type": "llama"}, "model_type 'llama' is not supported; expected one of qwen3, orthrus"),
    "no model type": ({"model_type": None}, "model_type None is not supported"),
    "no block size": ({"block_size": None}, "block_size is missing; an Orthrus model needs"),
    "no mask id": ({"mask_token_id": None}, "mask_token_id is missing; an Orthrus model needs"),
    "neither": ({"block_size": None, "mask_token_id": None}, "block_size is missing"),
    "neither, by architecture": (
        {"model_type": "qwen3", "architectures": ["OrthrusLM"], "block_size": None, "mask_token_id": None},
        "block_size is missing",
    ),
    "side-car lacks": ({"orthrus": {"block_size": 8}}, "`orthrus` lacks mask_token_id; convert the checkpoint again"),
    "side-car kind": ({"orthrus": 5}, "`orthrus` must be an object"),
    "block size 1": ({"block_size": 1}, r"block_size must be an integer in 2\.\.32, not 1"),
    "block size 33": ({"block_size": 33}, "block_size 33 is more than 32: from 33 rows on, .*; set it to 32"),
    "block size text": ({"block_size": "32"}, r"block_size must be an integer in 2\.\.32, not '32'"),
    "mask id": ({"mask_token_id": 64}, r"mask_token_id must be an integer in 0\.\.63, not 64"),
    "mask id negative": ({"mask_token_id": -1}, r"mask_token_id must be an integer in 0\.\.63, not -1"),
    "no hidden size": ({"hidden_size": None}, "hidden_size is missing"),
    "no layers": ({"num_hidden_layers": 0}, r"num_hidden_layers must be an integer in 1\.\.1024, not 0"),
    "heads": ({"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
    "more kv heads": ({"num_key_value_heads": 8}, r"num_key_value_heads must be an integer in 1\.\.4, not 8"),
    "odd head": ({"head_dim": 15}, "head_dim 15 is odd"),
    "vocabulary": ({"vocab_size": True}, "vocab_size must be an integer"),
    "epsilon": ({"rms_norm_eps": 0}, "rms_norm_eps must be a positive number, not 0"),
    "huge epsilon": ({"rms_norm_eps": 10**400}, "rms_norm_eps must be a positive number"),
    "tied": ({"tie_word_embeddings": 1}, "tie_word_embeddings must be true or false, not 1"),
    "no theta": ({"rope_theta": None}, "rope_theta is missing"),
    "theta": ({"rope_theta": -1}, "rope_theta must be a positive number"),
    "rope type": ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope type 'llama3' is not supported"),
    "nested rope type": (
        {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e6}},
        "rope type 'longrope' is not supported; expected one of default, linear, yarn",
    ),
    "rope kind": ({"rope_scaling": [4.0]}, "rope_scaling must be an object"),
    "rope parameters kind": ({"rope_parameters": 4}, "rope_parameters must be an object"),
    "no factor": ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
    "partial rotation": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5}},
        "partial_rotary_factor is not 1",
    ),
    "yarn attention factor": (
        {"rope_scaling": {**YARN, "attention_factor": 2.0}},
        r"yarn attention_factor 2\.0 is not supported; expected 1\.138629",
    ),
    "yarn truncate": ({"rope_scaling": {**YARN, "truncate": False}}, "yarn truncate=false is not supported"),
    "yarn unknown": ({"rope_scaling": {**YARN, "finetuned": True}}, "yarn setting 'finetuned' is not supported"),
    "yarn betas": ({"rope_scaling": {**YARN, "beta_fast": 1, "beta_slow": 8}}, "beta_fast must be above beta_slow"),
    "yarn mscale": ({"rope_scaling": {**YARN, "mscale": "a", "mscale_all_dim": 1}}, "mscale must be a positive number"),
    "yarn length": ({"rope_scaling": {**YARN, "original_max_position_embeddings": 0}}, "original_max_position_embed"),
    "yarn theta": ({"rope_scaling": YARN, "rope_theta": 1.0}, "rope_theta must be above 1 for yarn"),
}  # fmt: skip


@pytest.mark.parametrize("changes, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(**changes)
    assert isinstance(caught.value, CheckpointError)
    assert str(caught.value).startswith("config.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [[], None, "text", 3])
def test_a_config_that_is_no_object_is_refused(config):
    with pytest.raises(ConfigError, match="expected a JSON object at the top level"):
        ModelArgs.from_dict(config)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([10**400, -1, 0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ROPE_KEYS = ("rope_type", "type", "factor", "rope_theta", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
             "original_max_position_embeddings", "attention_factor", "truncate")  # fmt: skip
ROPE = st.dictionaries(
    st.sampled_from(ROPE_KEYS), JSON | st.sampled_from(["yarn", "linear", "default", 2.0, 1.5, 4096]), max_size=6
)
KEYS = st.sampled_from(
    [*tiny.CONFIG, "rope_scaling", "rope_parameters", "orthrus", "layer_types", "hidden_act", "architectures"]
)


@settings(max_examples=300)
@given(changes=st.dictionaries(KEYS, JSON | ROPE, max_size=3))
def test_any_config_is_read_or_refused_and_what_is_read_makes_a_model(changes):
    try:
        args = ModelArgs.from_dict({**tiny.CONFIG, **changes})
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    assert args.block_size is None or 2 <= args.block_size <= MAX_BLOCK_SIZE
    assert args.context_length >= 1
    # Sizes as large as these are refused where the weights are read; arrays are lazy until then.
    if args.num_hidden_layers < 8:
        Model(args)
