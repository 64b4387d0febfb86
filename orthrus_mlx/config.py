"""Model settings: read from any of the checkpoint layouts, checked by name, nothing silently ignored."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from .errors import ConfigError

MAX_BLOCK_SIZE = 32
"""Most rows a pass may have: at 33 every 32-row tile of MLX's matrix kernels doubles (docs/exactness.md)."""

MODEL_TYPES = ("qwen3", "orthrus")
_ROPE_TYPES = ("default", "linear", "yarn")
_YARN_KEYS = {
    "factor",
    "original_max_position_embeddings",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "attention_factor",
    "truncate",
}


@dataclass
class ModelArgs:
    """Settings of a dense Qwen3 with, where `block_size` is set, a diffusion view.

    Field names are those of Hugging Face's Qwen3 config. `block_size` and `mask_token_id` are None for a
    plain Qwen3, which has the autoregressive view only.
    """

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    rope_theta: float
    rope_scaling: dict[str, Any] | None = None
    block_size: int | None = None
    mask_token_id: int | None = None

    @property
    def has_diffusion_view(self) -> bool:
        return self.block_size is not None

    @property
    def context_length(self) -> int:
        """Positions the model can address: YaRN stretches the trained length by its factor."""
        scaling = self.rope_scaling or {}
        if scaling.get("rope_type") == "yarn":
            stretched = int(scaling["factor"] * scaling["original_max_position_embeddings"])
            return max(self.max_position_embeddings, stretched)
        return self.max_position_embeddings

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> ModelArgs:
        """Read a `config.json` object in the Hugging Face, side-car or all-in-one layout, or a plain Qwen3's.

        Raises:
            ConfigError: a setting is missing, out of range, or one that this model cannot honour.
        """
        if not isinstance(config, dict):
            raise ConfigError("config.json: expected a JSON object at the top level")
        config = {**config, **_orthrus_object(config)}
        model_type = config.get("model_type")
        if model_type not in MODEL_TYPES:
            raise ConfigError(
                f"config.json: model_type {model_type!r} is not supported; expected one of {', '.join(MODEL_TYPES)}"
            )
        _refuse_unsupported(config)
        heads = _integer(config, "num_attention_heads", 1, 4096)
        hidden = _integer(config, "hidden_size", 1, 1 << 20)
        theta, scaling = _rope(config)
        args = cls(
            model_type=model_type,
            hidden_size=hidden,
            num_hidden_layers=_integer(config, "num_hidden_layers", 1, 1024),
            intermediate_size=_integer(config, "intermediate_size", 1, 1 << 22),
            num_attention_heads=heads,
            num_key_value_heads=_integer(config, "num_key_value_heads", 1, heads, default=heads),
            head_dim=_integer(config, "head_dim", 2, 1024, default=max(hidden // heads, 2)),
            vocab_size=_integer(config, "vocab_size", 1, 1 << 24),
            rms_norm_eps=_positive(config, "rms_norm_eps", default=1e-6),
            max_position_embeddings=_integer(config, "max_position_embeddings", 1, 1 << 30, default=32768),
            tie_word_embeddings=_boolean(config, "tie_word_embeddings", default=False),
            rope_theta=theta,
            rope_scaling=scaling,
        )
        if args.num_attention_heads % args.num_key_value_heads:
            raise ConfigError(
                f"config.json: num_attention_heads {heads} is not a multiple of "
                f"num_key_value_heads {args.num_key_value_heads}"
            )
        if args.head_dim % 2:
            raise ConfigError(f"config.json: head_dim {args.head_dim} is odd; rotary embeddings need an even one")
        _read_diffusion(config, args)
        return args

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain Qwen3 keys (no diffusion settings), for writing a `config.json`."""
        skip = {"block_size", "mask_token_id"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skip}


def _orthrus_object(config: dict[str, Any]) -> dict[str, Any]:
    side_car = config.get("orthrus", {})
    if not isinstance(side_car, dict):
        raise ConfigError("config.json: `orthrus` must be an object with block_size and mask_token_id")
    missing = [k for k in ("block_size", "mask_token_id") if "orthrus" in config and k not in side_car]
    if missing:
        raise ConfigError(f"config.json: `orthrus` lacks {' and '.join(missing)}; convert the checkpoint again")
    return {k: v for k, v in side_car.items() if k in ("block_size", "mask_token_id")}


def _read_diffusion(config: dict[str, Any], args: ModelArgs) -> None:
    named = [k for k in ("block_size", "mask_token_id") if config.get(k) is not None]
    architectures = config.get("architectures")
    claims = args.model_type == "orthrus" or (isinstance(architectures, list) and "OrthrusLM" in architectures)
    if not named and not claims:
        return
    for key in ("block_size", "mask_token_id"):
        if key not in named:
            raise ConfigError(f"config.json: {key} is missing; an Orthrus model needs block_size and mask_token_id")
    args.block_size = _block_size(config)
    args.mask_token_id = _integer(config, "mask_token_id", 0, args.vocab_size - 1)


def _block_size(config: dict[str, Any]) -> int:
    size = config["block_size"]
    if isinstance(size, int) and size > MAX_BLOCK_SIZE:
        raise ConfigError(
            f"config.json: block_size {size!r:.80} is more than {MAX_BLOCK_SIZE}: from 33 rows on, MLX's 32-row tiles "
            "double and so does the cost of a pass (docs/exactness.md); "
            f"set it to {MAX_BLOCK_SIZE}: drafts get shorter, the text stays"
        )
    return _integer(config, "block_size", 2, MAX_BLOCK_SIZE)


def _refuse_unsupported(config: dict[str, Any]) -> None:
    if config.get("use_sliding_window"):
        raise ConfigError("config.json: use_sliding_window is on; only full attention is supported")
    layer_types = config.get("layer_types") or []
    if not isinstance(layer_types, list):
        raise ConfigError("config.json: layer_types must be a list")
    other = [t for t in layer_types if t != "full_attention"]
    if other:
        raise ConfigError(f"config.json: layer_types contains {other[0]!r}; only full_attention is supported")
    if config.get("attention_bias"):
        raise ConfigError("config.json: attention_bias is on; Qwen3 attention without bias is supported")
    if config.get("hidden_act", "silu") != "silu":
        raise ConfigError(f"config.json: hidden_act {config['hidden_act']!r} is not supported; expected 'silu'")


def _rope(config: dict[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """(theta, scaling) from either form: transformers 5 nests both in `rope_parameters`."""
    nested = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or nested
    for name, value in (("rope_parameters", nested), ("rope_scaling", scaling)):
        if not isinstance(value, dict):
            raise ConfigError(f"config.json: {name} must be an object")
    theta = config.get("rope_theta")
    theta = _positive({"rope_theta": nested.get("rope_theta") if theta is None else theta}, "rope_theta")
    if scaling.get("partial_rotary_factor", 1.0) != 1.0:
        raise ConfigError("config.json: partial_rotary_factor is not 1; only whole heads are rotated")
    scaling = {k: v for k, v in scaling.items() if k not in ("rope_theta", "type", "partial_rotary_factor")} | {
        "rope_type": scaling.get("rope_type") or scaling.get("type") or "default"
    }
    kind = scaling["rope_type"]
    if kind not in _ROPE_TYPES:
        raise ConfigError(f"config.json: rope type {kind!r} is not supported; expected one of {', '.join(_ROPE_TYPES)}")
    if kind == "default":
        return theta, None
    scaling["factor"] = _positive(scaling, "factor")
    if kind == "yarn":
        if theta <= 1:
            raise ConfigError(f"config.json: rope_theta must be above 1 for yarn, not {theta!r}")
        _check_yarn(scaling)
    return theta, scaling


def _check_yarn(scaling: dict[str, Any]) -> None:
    # 32768 is Qwen3's trained length; a config that leaves it out means that one.
    scaling["original_max_position_embeddings"] = _integer(
        scaling, "original_max_position_embeddings", 1, 1 << 30, default=32768
    )
    unknown = sorted(set(scaling) - _YARN_KEYS - {"rope_type"})
    if unknown:
        raise ConfigError(f"config.json: yarn setting {unknown[0]!r} is not supported")
    for key in ("beta_fast", "beta_slow"):
        if key in scaling:
            scaling[key] = _positive(scaling, key)
    if scaling.get("beta_fast", 32) <= scaling.get("beta_slow", 1):
        raise ConfigError("config.json: yarn beta_fast must be above beta_slow")
    standard = 0.1 * math.log(scaling["factor"]) + 1.0 if scaling["factor"] > 1 else 1.0
    factor = scaling.pop("attention_factor", None)
    # As in transformers: the two mscales count only together, and not beside an attention_factor.
    mscales = {key: scaling.pop(key, None) for key in ("mscale", "mscale_all_dim")}
    if all(mscales.values()) and factor is None:
        scaling |= {key: _positive(mscales, key) for key in mscales}
    if factor is not None and not (_is_number(factor) and math.isclose(factor, standard, rel_tol=1e-6)):
        raise ConfigError(f"config.json: yarn attention_factor {factor!r} is not supported; expected {standard:.6f}")
    if scaling.pop("truncate", True) is not True:
        raise ConfigError("config.json: yarn truncate=false is not supported")


def _is_number(value: Any) -> bool:
    """A JSON number that float32 can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _integer(config: dict[str, Any], name: str, low: int, high: int, default: int | None = None) -> int:
    value = config.get(name)
    if value is None and default is not None:
        value = default
    if value is None:
        raise ConfigError(f"config.json: {name} is missing")
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"config.json: {name} must be an integer in {low}..{high}, not {value!r:.80}")
    return value


def _positive(config: dict[str, Any], name: str, default: float | None = None) -> float:
    value = config.get(name)
    if value is None and default is not None:
        return default
    if value is None:
        raise ConfigError(f"config.json: {name} is missing")
    if not _is_number(value) or value < 1e-30:
        raise ConfigError(f"config.json: {name} must be a positive number, not {value!r:.80}")
    return float(value)


def _boolean(config: dict[str, Any], name: str, default: bool) -> bool:
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise ConfigError(f"config.json: {name} must be true or false, not {value!r}")
    return value
