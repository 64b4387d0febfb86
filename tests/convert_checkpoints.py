"""Tiny synthetic checkpoints in Hugging Face's form, written without the code under test."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 320
MASK = 319
"""A row of the embedding that the tokenizer does not use, as in the released checkpoints."""
EOS = 0

ORTHRUS: dict[str, Any] = {
    "architectures": ["OrthrusLM"],
    "model_type": "orthrus",
    "auto_map": {"AutoConfig": "configuration_orthrus.OrthrusConfig", "AutoModelForCausalLM": "model.OrthrusLM"},
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 512,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "eos_token_id": EOS,
    "block_size": 4,
    "mask_token_id": MASK,
}
QWEN3 = {k: v for k, v in ORTHRUS.items() if k not in ("auto_map", "block_size", "mask_token_id")} | {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
}

Weights = dict[str, np.ndarray]


def make_weights(config: dict[str, Any], seed: int = 0) -> Weights:
    """Float32 weights by Hugging Face's names, drawn for `config`."""
    rng = np.random.default_rng(seed)
    hidden, D = config["hidden_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * D, config["num_key_value_heads"] * D
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for view in ("", "_diff") if "block_size" in config else ("",):
            attention = f"{layer}self_attn."
            shapes |= {f"{attention}q_proj{view}.weight": (q, hidden), f"{attention}o_proj{view}.weight": (hidden, q)}
            shapes |= {f"{attention}{name}_proj{view}.weight": (kv, hidden) for name in "kv"}
            shapes |= {f"{attention}{name}_norm{view}.weight": (D,) for name in "qk"}
        shapes |= {f"{layer}mlp.{name}_proj.weight": (config["intermediate_size"], hidden) for name in ("gate", "up")}
        shapes[f"{layer}mlp.down_proj.weight"] = (hidden, config["intermediate_size"])
        shapes |= {f"{layer}{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return {
        name: (rng.standard_normal(shape) / math.sqrt(shape[-1]) + (len(shape) == 1)).astype(np.float32)
        for name, shape in shapes.items()
    }


def encode(array: np.ndarray, dtype: str) -> bytes:
    """`array` as safetensors stores it; bfloat16 is float32 without its lower half."""
    if dtype == "BF16":
        return (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return array.astype({"F16": np.float16, "F32": np.float32, "F64": np.float64, "I8": np.int8}[dtype]).tobytes()


def write_safetensors(file: Path, weights: Weights, dtype: str = "BF16") -> None:
    """One file, tensors in the order given."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data, end = [], 0
    for name, array in weights.items():
        data.append(encode(array, dtype))
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, end + len(data[-1])]}
        end += len(data[-1])
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data))


def write_checkpoint(
    folder: Path,
    config: dict[str, Any] = ORTHRUS,
    *,
    dtype: str = "BF16",
    shards: int = 1,
    weights: Weights | None = None,
) -> Weights:
    """Write a whole checkpoint, remote code and all, and return its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = make_weights(config) if weights is None else weights
    if shards == 1:
        write_safetensors(folder / "model.safetensors", weights, dtype)
    else:
        weight_map = {}
        for i in range(shards):
            name = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
            part = dict(list(weights.items())[i::shards])
            write_safetensors(folder / name, part, dtype)
            weight_map |= dict.fromkeys(part, name)
        write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"eos_token_id": [EOS, 1], "use_cache": False})
    (folder / "model.py").write_text("raise SystemExit('remote code was run')\n")
    (folder / "configuration_orthrus.py").write_text("raise SystemExit('remote code was run')\n")
    (folder / "LICENSE").write_text("a licence\n")
    write_tokenizer(folder)
    return weights


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value))


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE whose ids 0 and 1 end a text; `extra_special_tokens` is a list, as in the released ones."""
    (folder / "tokenizer.json").write_text(_tokenizer())
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "extra_special_tokens": ["<|endoftext|>", "<|im_end|>"],
        "auto_map": {"AutoTokenizer": ["tokenization.Tokenizer", None]},
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    write_json(folder / "tokenizer_config.json", settings)


@cache
def _tokenizer() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog " * 20], trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    return tokenizer.to_str()
