"""Writing trained models: a plain Qwen3 folder, or the side-car layout with its diffusion weights beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..atomic_file import write_json
from ..config import ModelArgs
from ..errors import TrainingError
from ..model import DIFFUSION, Model
from .distill import start_from_ar_view
from .parameters import flat_parameters, load_parameters
from .trainer import write_safetensors

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def save_model(model: Model, config: dict[str, Any], folder: Path, dtype: mx.Dtype | None = None) -> None:
    """Write weights and `config.json` into `folder`; the config last, so that a half-written folder does not load.

    Diffusion weights go to `orthrus_diff.safetensors`, the backbone to `model.safetensors`; `dtype` casts both.
    """
    weights = {k: v if dtype is None else v.astype(dtype) for k, v in flat_parameters(model).items()}
    diffusion = {k: v for k, v in weights.items() if f"{DIFFUSION}." in k}
    backbone = {k: v for k, v in weights.items() if k not in diffusion}
    if diffusion:
        write_safetensors(folder / "orthrus_diff.safetensors", diffusion, {"format": "mlx"})
    write_safetensors(folder / "model.safetensors", backbone, {"format": "mlx"})
    write_json(folder / "config.json", config)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files and the generation settings that `source` has."""
    target.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def side_car_config(config: dict[str, Any], block_size: int, mask_token_id: int) -> dict[str, Any]:
    """A plain Qwen3's config with the `orthrus` object added."""
    skip = ("block_size", "mask_token_id", "auto_map", "architectures", "model_type", "orthrus")
    return {
        **{k: v for k, v in config.items() if k not in skip},
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "orthrus": {"block_size": block_size, "mask_token_id": mask_token_id},
    }


def with_diffusion_view(model: Model, config: dict[str, Any]) -> Model:
    """A model of the side-car `config` that shares `model`'s weights; its diffusion view starts as the AR view's copy.

    A model that has a diffusion view already is returned as it is.

    Raises:
        TrainingError: the model is quantised; what is trained must be floating point.
    """
    weights = flat_parameters(model)
    if any(k.endswith(".scales") for k in weights):
        raise TrainingError("the model is quantised; train on the unquantised checkpoint and convert the result")
    if model.args.has_diffusion_view:
        return model
    extended = Model(ModelArgs.from_dict(config))
    load_parameters(extended, weights, mx.array)
    start_from_ar_view(extended)
    mx.eval(extended.parameters())
    return extended
