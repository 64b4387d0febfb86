"""`orthrus-mlx info`: versions, device, a model's settings, the kernels chosen for it, what the probe found."""

from __future__ import annotations

import argparse
import platform
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..machine import BACKEND_WHEELS, installed
from ..units import byte_count
from .options import add_model_arguments
from .terminal import printable

if TYPE_CHECKING:
    from ..model import Model

Row = tuple[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `info` on `parser`."""
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print everything on stdout, a section at a time. Raises OrthrusError; returns the exit code."""
    _print_section("Package", _package())
    _print_section("Device", _device())

    from ..acceleration import accelerate
    from ..draft_head import install_draft_head
    from ..loading import load_model, read_config
    from .progress import spinner
    from .start import model_folder

    folder = model_folder(args.model, args.revision)
    config = read_config(folder)
    with spinner(f"Loading {folder}"):
        model = load_model(folder, config)
    _print_section("Model", _settings(folder, config, model))
    _print_section("Files", _files(folder))
    # Only now: kernels join and replace the layers that were counted above.
    with spinner("Testing and timing kernels"):
        plan = accelerate(model)
        draft_head = install_draft_head(model)
    notes = [*plan.notes, *([draft_head] if draft_head else [])]
    _print_section("Kernels", [_labelled(note) for note in notes])
    with spinner("Comparing the bits of passes of different widths"):
        found = _exactness(model)
    _print_section("Exactness", found)
    return 0


def _print_section(title: str, rows: Iterable[Row]) -> None:
    rows = list(rows)
    width = max(len(label) for label, _ in rows)
    print(title)
    for label, value in rows:
        print(f"  {label:<{width}}  {printable(value)}")


def _labelled(note: str) -> Row:
    label, _, value = note.partition(": ")
    return label, value


def _package() -> list[Row]:
    return [
        ("orthrus-mlx", version("orthrus-mlx")),
        ("mlx", version("mlx")),
        ("mlx wheel", ", ".join(installed(BACKEND_WHEELS)) or "none found"),
        ("mlx-lm", version("mlx-lm")),
        ("Python", f"{platform.python_version()} on {platform.platform()}"),
    ]


def _device() -> list[Row]:
    import mlx.core as mx

    info = mx.device_info()
    return [
        ("default device", str(mx.default_device().type).removeprefix("DeviceType.")),
        ("name", str(info.get("device_name", "unknown"))),
        ("Metal", "available" if mx.metal.is_available() else "not available"),
        ("CUDA", "available" if mx.cuda.is_available() else "not available"),
    ]


def _settings(folder: Path, config: dict[str, Any], model: Model) -> list[Row]:
    from mlx.utils import tree_flatten

    args = model.args
    parameters = dict(tree_flatten(model.parameters()))
    norm = model.model.norm.weight.dtype
    # The cache has the dtype of the activations, which the norms set.
    kv_bytes = 2 * args.num_hidden_layers * args.num_key_value_heads * args.head_dim * norm.size
    rows = [
        ("folder", str(folder)),
        ("layout", _layout(config, has_diffusion_view=args.has_diffusion_view)),
        ("layers", str(args.num_hidden_layers)),
        ("hidden size", f"{args.hidden_size}, MLP {args.intermediate_size}"),
        ("heads", f"{args.num_attention_heads}, key/value {args.num_key_value_heads}, head size {args.head_dim}"),
        ("vocabulary", f"{args.vocab_size}, {'tied' if args.tie_word_embeddings else 'separate'} head"),
        ("context", f"{args.context_length} tokens"),
        ("block size", str(args.block_size) if args.has_diffusion_view else "none: autoregressive view only"),
        ("dtype", str(norm).removeprefix("mlx.core.")),
        ("backbone", _quantisation(model, diffusion=False)),
    ]
    if args.has_diffusion_view:
        rows.append(("diffusion", _quantisation(model, diffusion=True)))
    return [
        *rows,
        ("weights in memory", byte_count(sum(p.nbytes for p in parameters.values()))),
        ("KV cache", f"{kv_bytes} bytes per token, {byte_count(kv_bytes * args.context_length)} for a full context"),
    ]


def describe_weights(model: Model) -> str:
    """Dtype and quantisation of both views on one line."""
    views = [f"backbone {_quantisation(model, diffusion=False)}"]
    if model.args.has_diffusion_view:
        views.append(f"diffusion {_quantisation(model, diffusion=True)}, block size {model.args.block_size}")
    return ", ".join([str(model.model.norm.weight.dtype).removeprefix("mlx.core."), *views])


def _layout(config: dict[str, Any], *, has_diffusion_view: bool) -> str:
    if not has_diffusion_view:
        return "plain Qwen3"
    return "side-car (orthrus_diff*.safetensors)" if "orthrus" in config else "both views in model*.safetensors"


def _quantisation(model: Model, *, diffusion: bool) -> str:
    """The forms that the matrices of a view really have; the config may ask for one that they are too narrow for."""
    import mlx.nn as nn

    from ..weights import is_diffusion

    forms = Counter(
        f"{module.mode}, {module.bits} bits, groups of {module.group_size}" if hasattr(module, "bits") else ""
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding | nn.QuantizedLinear | nn.QuantizedEmbedding)
        and is_diffusion(path) == diffusion
    )
    total = forms.total()
    del forms[""]
    return "; ".join(f"{form} ({count} of {total} matrices)" for form, count in forms.items()) or "not quantised"


def _files(folder: Path) -> list[Row]:
    files = sorted(f for f in folder.iterdir() if f.suffix in (".safetensors", ".json"))
    return [(f.name, byte_count(f.stat().st_size)) for f in files]


def _exactness(model: Model) -> list[Row]:
    from ..exactness import exactness_of

    found = exactness_of(model)
    return [("target passes", str(found)), ("evidence", found.evidence)]
