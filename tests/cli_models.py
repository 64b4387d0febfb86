"""Tiny checkpoints with a chat template, and the command line as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from orthrus_mlx.config import ModelArgs
from orthrus_mlx.model import Model

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
# Qwen's shape: turns between markers, thoughts of earlier turns left out, an empty thought where it is switched off.
TEMPLATE = (
    "{%- for m in messages %}"
    "{%- set said = m.content.split('</think>')[-1].lstrip('\n') if m.role == 'assistant' else m.content %}"
    "{{- '<|im_start|>' + m.role + '\n' + said + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)
TEMPLATE_TEXT = "hello hello hello user assistant system hello world who are you what is this é ü 日本 how when"
CONTEXT = 4096


def _config(block_size: int | None, context: int) -> dict:
    config = {
        "model_type": "qwen3",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 320,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
        "rope_theta": 1e6,
        "eos_token_id": [2],
    }
    if block_size is not None:
        config["orthrus"] = {"block_size": block_size, "mask_token_id": 319}
    return config


def write_checkpoint(
    folder: Path, *, says: str | None = None, block_size: int | None = 8, context: int = CONTEXT, template: bool = True
) -> Path:
    """A checkpoint of random weights; with `says`, one that says this one-token text for ever, drafts included."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=319,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEMPLATE_TEXT] * 5, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    if template:
        settings["chat_template"] = TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    config = _config(block_size, context)
    (folder / "config.json").write_text(json.dumps(config))
    mx.random.seed(7)
    weights = dict(tree_flatten(Model(ModelArgs.from_dict(config)).parameters()))
    if says is not None:
        # Layers that add nothing, and embeddings of one direction: the longest one always wins.
        (token,) = tokenizer.encode(says).ids
        weights = {k: mx.zeros_like(w) if "o_proj" in k or "down_proj" in k else w for k, w in weights.items()}
        lengths = mx.where(mx.arange(config["vocab_size"]) == token, 2.0, 1.0)
        weights["model.embed_tokens.weight"] = mx.broadcast_to(lengths[:, None], (config["vocab_size"], 32)) + 0
    diffusion = {k: w for k, w in weights.items() if "_diff" in k}
    mx.save_safetensors(str(folder / "model.safetensors"), {k: w for k, w in weights.items() if "_diff" not in k})
    if diffusion:
        mx.save_safetensors(str(folder / "orthrus_diff.safetensors"), diffusion)
    return folder


def token_id(folder: Path, text: str) -> int:
    """The id of a one-token text; for one byte, the id of that byte."""
    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids[0]


COMMAND = [sys.executable, "-m", "orthrus_mlx"]


def run_process(*arguments: str, environment: dict[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`orthrus-mlx ARGUMENTS` as a process of its own, away from any terminal."""
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, input=stdin, text=True, capture_output=True, timeout=60
    )
