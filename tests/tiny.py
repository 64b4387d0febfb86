"""Tiny models, tokenizers and checkpoints with random weights, built without downloads.

The weights of a tiny model are random but not arbitrary. Embeddings share a common part, so that a mask token
looks a little like any other token, and the diffusion view is a noisy copy of the autoregressive one: drafts are
then right sometimes and wrong sometimes, which is what a proof about accepting them needs.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, TokenizerWrapper
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from orthrus_mlx.config import ModelArgs
from orthrus_mlx.model import Model

Config = dict[str, Any]
Weights = dict[str, np.ndarray]

VOCABULARY = 64
CONFIG: Config = {
    "model_type": "orthrus",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 4096,
    "rope_theta": 100.0,
    "tie_word_embeddings": False,
    "block_size": 32,
    "mask_token_id": VOCABULARY - 1,
}
"""A Hugging Face Orthrus config. The small rope_theta makes 16 dimensions of head tell positions apart."""

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
QUANTIZATIONS: dict[str, Config | None] = {
    "none": None,
    "affine4": {"mode": "affine", "bits": 4, "group_size": 32},
    "affine8": {"mode": "affine", "bits": 8, "group_size": 32},
    "mxfp4": {"mode": "mxfp4", "bits": 4, "group_size": 32},
    "nvfp4": {"mode": "nvfp4", "bits": 4, "group_size": 16},
    "mxfp8": {"mode": "mxfp8", "bits": 8, "group_size": 32},
}


def config(**changes: Any) -> Config:
    """`CONFIG` with changes; a value of None removes the key."""
    return {k: v for k, v in {**CONFIG, **changes}.items() if v is not None}


def plain_config(**changes: Any) -> Config:
    """A Qwen3 without a diffusion view."""
    return config(model_type="qwen3", block_size=None, mask_token_id=None, **changes)


def weights(settings: Config, seed: int = 0, likeness: float = 4.0, noise: float = 0.1) -> Weights:
    """Float32 weights by Hugging Face's names.

    Args:
        likeness: how large the part is that all embeddings share; more makes more drafts right.
        noise: how far the diffusion view strays from the autoregressive one, in standard deviations.
    """
    rng = np.random.default_rng(seed)
    hidden, D, V = settings["hidden_size"], settings["head_dim"], settings["vocab_size"]
    q, kv = settings["num_attention_heads"] * D, settings["num_key_value_heads"] * D
    inner = settings["intermediate_size"]

    def matrix(rows: int, columns: int, scale: float) -> np.ndarray:
        return scale * rng.standard_normal((rows, columns)) / np.sqrt(columns)

    def gains(n: int, scale: float = 1.0) -> np.ndarray:
        return scale * (1 + 0.1 * rng.standard_normal(n))

    drawn: Weights = {
        "model.embed_tokens.weight": likeness * rng.standard_normal(hidden) + rng.standard_normal((V, hidden)),
        "model.norm.weight": gains(hidden),
    }
    if not settings.get("tie_word_embeddings"):
        drawn["lm_head.weight"] = matrix(V, hidden, 2.0)
    for i in range(settings["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        attention = {
            "q_proj.weight": matrix(q, hidden, 3.0),
            "k_proj.weight": matrix(kv, hidden, 3.0),
            "v_proj.weight": matrix(kv, hidden, 3.0),
            "o_proj.weight": matrix(hidden, q, 3.0),
            "q_norm.weight": gains(D, 1.5),
            "k_norm.weight": gains(D, 1.5),
        }
        for name, value in attention.items():
            drawn[f"{layer}.self_attn.{name}"] = value
            if "block_size" in settings or "orthrus" in settings:
                stray = noise * value.std() * rng.standard_normal(value.shape)
                drawn[f"{layer}.self_attn.{name.replace('.', '_diff.')}"] = value + stray
        drawn[f"{layer}.mlp.gate_proj.weight"] = matrix(inner, hidden, 2.0)
        drawn[f"{layer}.mlp.up_proj.weight"] = matrix(inner, hidden, 2.0)
        drawn[f"{layer}.mlp.down_proj.weight"] = matrix(hidden, inner, 2.0)
        drawn[f"{layer}.input_layernorm.weight"] = gains(hidden)
        drawn[f"{layer}.post_attention_layernorm.weight"] = gains(hidden)
    return {name: value.astype(np.float32) for name, value in drawn.items()}


def build(settings: Config, drawn: Weights, dtype: str = "float32", quantization: str = "none") -> Model:
    """A model with these weights, both views cast and quantised alike."""
    model = Model(ModelArgs.from_dict(settings))
    model.load_weights([(name, mx.array(value).astype(DTYPES[dtype])) for name, value in drawn.items()])
    chosen = QUANTIZATIONS[quantization]
    if chosen is not None:
        nn.quantize(model, **chosen)
    model.eval()
    mx.eval(model.parameters())
    return model


@cache
def tiny_model(
    seed: int = 0, likeness: float = 4.0, dtype: str = "float32", quantization: str = "none", **changes: Any
) -> Model:
    """A shared model: do not change it."""
    settings = config(**changes)
    return build(settings, weights(settings, seed, likeness), dtype, quantization)


def prompt(seed: int, length: int = 12, vocabulary: int = VOCABULARY - 1) -> list[int]:
    """Random ids; the last id of the vocabulary, the mask, is left out."""
    return np.random.default_rng(seed).integers(0, vocabulary, length).tolist()


# Tokenizers -----------------------------------------------------------------------------------------

BYTES = 256
END_OF_TEXT, IM_START, IM_END = 256, 257, 258
MERGED = ("he", "th", "the", "er", "in", "ing", "é", "日")
TEXT_VOCABULARY = 288
"""Bytes, three special tokens, some merges, and unused rows, the last of which is the mask."""


@cache
def byte_tokenizer() -> Tokenizer:
    """Byte-level BPE: ids 0..255 are the bytes (in the order of `ByteLevel.alphabet`), then specials and merges."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    vocabulary |= {name: BYTES + i for i, name in enumerate(specials)}
    merges = []
    for text in MERGED:
        (symbols, _), *_ = level.pre_tokenize_str(text)
        while len(symbols) > 1:
            known = [n for n in range(len(symbols) - 1, 0, -1) if symbols[:n] in vocabulary]
            left, right = symbols[: known[0]], symbols[known[0] :][:1]
            if left + right not in vocabulary:
                merges.append((left, right))
                vocabulary[left + right] = len(vocabulary)
            if left + right == symbols:
                break
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    return tokenizer


CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def text_tokenizer() -> TokenizerWrapper:
    """A tokenizer of the caller's own, as `load` returns it: `byte_tokenizer`, ending at <|im_end|>."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(), eos_token="<|im_end|>", chat_template=CHAT_TEMPLATE
    )
    return TokenizerWrapper(fast, BPEStreamingDetokenizer, eos_token_ids=[IM_END])


def text_config(**changes: Any) -> Config:
    return config(vocab_size=TEXT_VOCABULARY, mask_token_id=TEXT_VOCABULARY - 1, **changes)


@cache
def text_model(seed: int = 0, likeness: float = 4.0) -> Model:
    """A shared model whose ids are `text_tokenizer`'s."""
    settings = text_config()
    return build(settings, weights(settings, seed, likeness))


# Checkpoints ----------------------------------------------------------------------------------------


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")


def write_tensors(file: Path, tensors: dict[str, mx.array]) -> None:
    mx.save_safetensors(str(file), tensors, {"format": "mlx"})


def arrays(drawn: Weights, dtype: str = "float32") -> dict[str, mx.array]:
    return {name: mx.array(value).astype(DTYPES[dtype]) for name, value in drawn.items()}


def write_tokenizer(folder: Path) -> None:
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "chat_template": CHAT_TEMPLATE,
            "extra_special_tokens": ["<|im_start|>"],
        },
    )


def write_checkpoint(folder: Path, settings: Config, drawn: Weights, dtype: str = "float32") -> Path:
    """Hugging Face's layout (also the all-in-one layout without quantisation): one file of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", settings)
    write_tensors(folder / "model.safetensors", arrays(drawn, dtype))
    write_tokenizer(folder)
    return folder


def write_side_car(
    folder: Path, settings: Config, drawn: Weights, quantization: str = "none", diffusion: str = "none"
) -> Path:
    """The side-car layout: a plain Qwen3 that stock mlx-lm loads, the diffusion weights in a file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = build(settings, drawn)
    chosen = {"": QUANTIZATIONS[quantization], "_diff": QUANTIZATIONS[diffusion]}

    def settings_of(path: str, module: nn.Module) -> Config | bool:
        return (hasattr(module, "to_quantized") and chosen["_diff" if path.endswith("_diff") else ""]) or False

    nn.quantize(model, class_predicate=settings_of)
    parameters = dict(tree_flatten(model.parameters()))
    extra = {k: settings[k] for k in ("block_size", "mask_token_id")}
    if chosen["_diff"]:
        extra["quantization"] = chosen["_diff"]
    written = {k: v for k, v in settings.items() if k not in extra} | {"model_type": "qwen3", "orthrus": extra}
    if chosen[""]:
        written |= {"quantization": chosen[""], "quantization_config": chosen[""]}
    write_json(folder / "config.json", written)
    backbone = {k: v for k, v in parameters.items() if "_diff" not in k}
    write_tensors(folder / "model.safetensors", backbone)
    write_tensors(folder / "orthrus_diff.safetensors", {k: v for k, v in parameters.items() if k not in backbone})
    write_tokenizer(folder)
    return folder


def shard(file: Path, count: int) -> None:
    """Split a weight file into `count` files with an index, as large checkpoints are."""
    tensors = mx.load(str(file))
    mx.eval(tensors)
    names = sorted(tensors)
    weight_map = {}
    for i in range(count):
        target = file.with_name(f"{file.stem}-{i + 1:05}-of-{count:05}.safetensors")
        part = {name: tensors[name] for name in names[i::count]}
        write_tensors(target, part)
        weight_map |= dict.fromkeys(part, target.name)
    write_json(file.with_name(f"{file.name}.index.json"), {"metadata": {}, "weight_map": weight_map})
    file.unlink()
