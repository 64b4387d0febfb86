"""The `config.json` that is written: Qwen3's settings, Orthrus's, the quantisation, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orthrus_mlx.config import ModelArgs
from orthrus_mlx.draft_vocabulary import DRAFT_VOCABULARY, DraftVocabulary
from orthrus_mlx.weights import is_diffusion

from .plan import FLOATS, WeightPlan, module_path
from .quantization import Quantization

# Carried over beside the model's own settings. Whatever else a config holds (auto_map and model_file name code
# to run, quantize_activations changes what stock mlx-lm computes) stays behind.
_KEPT = ("bos_token_id", "eos_token_id", "pad_token_id", "attention_dropout", "hidden_act", "initializer_range")


def make_config(
    source: dict[str, Any],
    args: ModelArgs,
    weights: Iterable[WeightPlan],
    side_car: bool,
    quantization: Quantization | None,
    diff_quantization: Quantization | None,
    draft_vocabulary: DraftVocabulary | None = None,
) -> dict[str, Any]:
    """The new config, keys sorted. `source` is the old one, `args` what was read from it."""
    weights = list(weights)
    config = {key: source[key] for key in _KEPT if key in source} | args.to_dict()
    if args.rope_scaling is None:
        del config["rope_scaling"]  # transformers 5 warns of the very name
    # transformers 4 and mlx-lm read this name; transformers 5 takes it as well as its own `dtype`.
    config["torch_dtype"] = FLOATS[weights[0].dtype]
    config["use_sliding_window"] = False
    backbone = [w for w in weights if not is_diffusion(w.source.name)]
    diffusion = [w for w in weights if is_diffusion(w.source.name)]
    config |= {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    if not args.has_diffusion_view:
        settings = _quantization(backbone, quantization)
    elif side_car:
        orthrus: dict[str, Any] = {"block_size": args.block_size, "mask_token_id": args.mask_token_id}
        if diff_settings := _quantization(diffusion, diff_quantization):
            orthrus["quantization"] = diff_settings
        config["orthrus"] = orthrus
        settings = _quantization(backbone, quantization)
    else:
        config |= {"model_type": "orthrus", "architectures": ["OrthrusLM"]}
        config |= {"block_size": args.block_size, "mask_token_id": args.mask_token_id}
        settings = _quantization(weights, quantization or diff_quantization)
    if draft_vocabulary is not None:
        config.get("orthrus", config)[DRAFT_VOCABULARY] = draft_vocabulary.to_dict()
    if settings:
        config["quantization"] = config["quantization_config"] = settings
    return dict(sorted(config.items()))


def _quantization(weights: list[WeightPlan], default: Quantization | None) -> dict[str, Any] | None:
    """mlx-lm's form: the default, then each module that departs from it (false: not quantised)."""
    if default is None or all(w.quantization is None for w in weights):
        return None
    settings: dict[str, Any] = default.to_dict()
    for weight in weights:
        if len(weight.source.shape) == 2 and weight.quantization != default:
            own = weight.quantization
            settings[module_path(weight.source.name)] = own.to_dict() if own else False
    return settings
