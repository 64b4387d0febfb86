"""Loading a checkpoint of any layout (docs/converter.md): headers first, weights last, remote code never."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm import tokenizer_utils
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import Qwen3Config

from .acceleration import accelerate
from .config import ModelArgs
from .draft_head import install_draft_head
from .draft_vocabulary import take_draft_vocabulary
from .errors import CheckpointError, ConfigError
from .hub import resolve
from .json_file import read_object
from .model import Model
from .safetensors_file import TensorEntry, check_shapes, open_checkpoint
from .weights import QUANTIZATION_MODES, is_diffusion

Parameters = list[tuple[str, mx.array]]
Reader = Callable[[Model, dict[str, TensorEntry]], dict[str, mx.array]]
_FLOATS = ("F32", "F16", "BF16")
_UNSIGNED = {mx.uint32: ("U32",), mx.uint8: ("U8",)}


def demo_folder() -> Path:
    """The folder of the demo model that ships with the package."""
    return Path(str(files("orthrus_mlx.assets") / "demo"))


def load(
    path_or_hf_repo: str | Path,
    tokenizer_config: dict[str, Any] | None = None,
    *,
    lazy: bool = False,
    revision: str | None = None,
    kernels: str | None = None,
) -> tuple[Model, TokenizerWrapper]:
    """Load a model and its tokenizer.

    Args:
        path_or_hf_repo: a folder, or a Hugging Face id such as "chiennv/Orthrus-Qwen3-1.7B". Hugging Face's own
            layout, a converted folder (side-car or all-in-one) and a plain Qwen3 (AR view only) all load.
        tokenizer_config: extra settings for the tokenizer.
        lazy: leave the weights on disk until they are used.
        revision: a branch, tag or commit of the repository.
        kernels: "auto", "off" or "force" this package's kernels for Metal, or on the CPU NumPy's; default:
            `$ORTHRUS_KERNELS`, else "auto". So with a checkpoint's draft vocabulary (`draft_head`). A lazily loaded
            model is left without.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or not of this kind; the message names the culprit.
        RequestError: `kernels` is none of the three.
    """
    folder = resolve(path_or_hf_repo, revision)
    config = read_config(folder)
    model = load_model(folder, config, lazy=lazy)
    if not lazy:
        accelerate(model, kernels)
        install_draft_head(model, kernels)
    return model, load_tokenizer(folder, config, tokenizer_config)


def load_model_and_tokenizer(repo_id: str | Path) -> tuple[Model, TokenizerWrapper]:
    """`load` under the name that the official Orthrus code gives it. Raises CheckpointError as `load`."""
    return load(repo_id)


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json`, with `generation_config.json`'s EOS ids where there are any, as mlx-lm reads them.

    Raises:
        CheckpointError: one of them is no JSON object, or `config.json` is missing.
    """
    config = read_object(folder / "config.json")
    generation = folder / "generation_config.json"
    if generation.is_file():
        eos = read_object(generation).get("eos_token_id")
        if eos is not None:
            config["eos_token_id"] = eos
    return config


def load_model(folder: Path, config: dict[str, Any], *, lazy: bool = False, read: Reader | None = None) -> Model:
    """The model alone, weights read from `folder`; `config` is from `read_config`. No kernels are installed.

    `read` may reduce the model, still without weights, and returns those that are left; the default reads all.

    Raises:
        ConfigError: a setting of `config` is missing, contradictory or cannot be honoured.
        CheckpointError: weights are missing, damaged, mis-shaped, or do not fit `config`.
    """
    tensors = open_checkpoint(folder)
    args = ModelArgs.from_dict(config)
    if not args.has_diffusion_view and any(map(is_diffusion, tensors)):
        raise ConfigError(
            f"{folder}/config.json: block_size and mask_token_id are missing, but the folder has diffusion weights"
        )
    model = Model(args)
    model.draft_vocabulary = take_draft_vocabulary(config, tensors, args)
    tensors = model.sanitize(tensors)
    _quantize(model, config, tensors)
    check_shapes(tensors, {name: p.shape for name, p in cast(Parameters, tree_flatten(model.parameters()))})
    _check_dtypes(tensors, model)
    model.load_weights(list(_read(tensors).items() if read is None else read(model, tensors).items()))
    model.eval()
    if not lazy:
        mx.eval(model.parameters())
    return model


def load_tokenizer(
    folder: Path, config: dict[str, Any], tokenizer_config: dict[str, Any] | None = None
) -> TokenizerWrapper:
    """The folder's tokenizer with mlx-lm's streaming detokenizer; EOS ids are those of `config`.

    Raises:
        CheckpointError: there is none, or it cannot be read without running code of the checkpoint.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise CheckpointError(f"{folder}: no tokenizer.json or tokenizer.model; the tokenizer is missing")
    eos = config.get("eos_token_id")
    if eos is not None:
        eos = [eos] if isinstance(eos, int) else eos
        if not isinstance(eos, list) or not all(isinstance(t, int) for t in eos):
            raise ConfigError(f"{folder}/config.json: eos_token_id must be an id or a list of ids, not {eos!r}")
    # The model's config is given: transformers would read config.json for it, and knows no "orthrus".
    extra = {**(tokenizer_config or {}), "config": Qwen3Config(), "trust_remote_code": False}
    try:
        return tokenizer_utils.load(folder, extra, eos_token_ids=eos)
    except BaseException as error:
        # transformers raises whatever its parsers meet, down to a panic of the Rust ones, which is no Exception;
        # the file is at fault in every case seen.
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder}: the tokenizer cannot be read ({reason})") from error


def _quantize(model: Model, config: dict[str, Any], tensors: dict[str, TensorEntry]) -> None:
    """Give the quantised modules of the checkpoint their quantised form."""
    if "quantization" not in config and config.get("quantization_config"):
        raise ConfigError("config.json: quantization_config is not MLX's; convert the unquantised checkpoint instead")
    backbone = config.get("quantization")
    orthrus = config.get("orthrus")
    diffusion = orthrus.get("quantization") if isinstance(orthrus, dict) else backbone

    def settings(path: str, module: nn.Module) -> dict[str, Any] | bool:
        chosen = diffusion if is_diffusion(path) else backbone
        if not chosen or not hasattr(module, "to_quantized") or f"{path}.scales" not in tensors:
            return False
        return _checked_settings(path, chosen, module.weight.shape[-1])

    nn.quantize(model, class_predicate=settings)


def _checked_settings(path: str, chosen: Any, width: int) -> dict[str, Any]:
    if not isinstance(chosen, dict):
        raise ConfigError(f"config.json: quantization must be an object, not {chosen!r}")
    own = chosen.get(path)
    merged = {k: chosen.get(k) for k in ("group_size", "bits", "mode")} | (own if isinstance(own, dict) else {})
    mode, group_size, bits = merged.get("mode") or "affine", merged.get("group_size"), merged.get("bits")
    groups, widths = QUANTIZATION_MODES.get(mode, ((), ())) if isinstance(mode, str) else ((), ())
    whole = isinstance(group_size, int) and isinstance(bits, int)
    if not whole or group_size not in groups or bits not in widths or width % group_size:
        raise ConfigError(
            f"config.json: quantization of {path} (mode {mode!r}, {bits!r} bits, group size {group_size!r}) "
            f"is not one that MLX has for {width} columns"
        )
    return {"group_size": group_size, "bits": bits, "mode": mode}


def _check_dtypes(tensors: dict[str, TensorEntry], model: Model) -> None:
    """Refuse what the modules cannot compute with: packed weights and the scales of the mx and nv formats are
    unsigned integers, all else is floating point."""
    for name, parameter in cast(Parameters, tree_flatten(model.parameters())):
        entry = tensors[name]
        expected = _UNSIGNED.get(parameter.dtype, _FLOATS)
        if entry.dtype not in expected:
            raise CheckpointError(
                f"{entry.file}: tensor {name} has dtype {entry.dtype}; expected {' or '.join(expected)} "
                "(convert the unquantised checkpoint)"
            )


def _read(tensors: dict[str, TensorEntry]) -> dict[str, mx.array]:
    """The arrays of `tensors`, lazily, file by file."""
    arrays: dict[str, mx.array] = {}
    for file in sorted({entry.file for entry in tensors.values()}):
        try:
            loaded = cast(dict[str, mx.array], mx.load(str(file), format="safetensors"))
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{file}: MLX cannot read it ({error})") from error
        arrays |= {name: loaded[name] for name, entry in tensors.items() if entry.file == file}
    return arrays
