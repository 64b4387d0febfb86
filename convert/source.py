"""The checkpoint to convert: config, headers and tokenizer read and checked, no weight yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthrus_mlx.config import ModelArgs
from orthrus_mlx.draft_vocabulary import DraftVocabulary, take_draft_vocabulary
from orthrus_mlx.errors import CheckpointError, ConfigError
from orthrus_mlx.json_file import read_object
from orthrus_mlx.safetensors_file import TensorEntry, check_shapes, open_checkpoint
from orthrus_mlx.weights import is_diffusion, parameter_shapes

from .tokenizer import check_tokenizer


@dataclass(frozen=True)
class Source:
    folder: Path
    config: dict[str, Any]
    args: ModelArgs
    tensors: tuple[TensorEntry, ...]
    """What `args` demands, in model order."""
    dropped: tuple[TensorEntry, ...]
    """What a checkpoint may carry without need: a tied head's copy, rotary tables."""
    draft_vocabulary: DraftVocabulary | None = None
    """The one that an earlier conversion chose."""

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.tensors, *self.dropped))


def open_source(folder: Path) -> Source:
    """Read and check everything but the weights.

    Raises:
        ConfigError: a setting is missing, wrong or cannot be honoured.
        CheckpointError: the files are missing, damaged, already quantised or do not fit the config.
    """
    config = read_object(folder / "config.json")
    _refuse_quantized_config(config)
    args = ModelArgs.from_dict(config)
    tensors = open_checkpoint(folder)
    if any(name.endswith((".scales", ".qweight", ".weight_scale_inv")) for name in tensors):
        raise CheckpointError(f"{folder}: the weights are already quantised; convert the original checkpoint")
    _check_views(folder, tensors, args)
    draft_vocabulary = take_draft_vocabulary(config, tensors, args)
    unneeded = {name for name in tensors if name.endswith("rotary_emb.inv_freq")}
    if args.tie_word_embeddings:
        unneeded |= tensors.keys() & {"lm_head.weight"}
    needed = {name: entry for name, entry in tensors.items() if name not in unneeded}
    shapes = parameter_shapes(args)
    check_shapes(needed, shapes)
    check_tokenizer(folder, args, config)
    dropped = tuple(tensors[name] for name in sorted(unneeded))
    return Source(folder, config, args, tuple(needed[name] for name in shapes), dropped, draft_vocabulary)


def check_tied_head(source: Source, slab_bytes: int) -> None:
    """A tied checkpoint may carry its head again; one that differs would be another model.

    Raises:
        CheckpointError: `lm_head.weight` is there and not bit-equal to the embedding.
    """
    embedding = next(tensor for tensor in source.tensors if tensor.name == "model.embed_tokens.weight")
    for head in (tensor for tensor in source.dropped if tensor.name == "lm_head.weight"):
        same = (head.dtype, head.shape) == (embedding.dtype, embedding.shape) and all(
            a == b for a, b in zip(head.slabs(slab_bytes), embedding.slabs(slab_bytes), strict=True)
        )
        if not same:
            raise CheckpointError(f"{head.file}: lm_head.weight differs from the embedding that config.json ties it to")


def _refuse_quantized_config(config: dict[str, Any]) -> None:
    nested = config.get("orthrus")
    for where, settings in (("", config), ("orthrus.", nested if isinstance(nested, dict) else {})):
        for key in ("quantization", "quantization_config"):
            if settings.get(key):
                raise CheckpointError(
                    f"config.json: {where}{key} says the weights are already quantised; convert the original checkpoint"
                )


def _check_views(folder: Path, tensors: Mapping[str, TensorEntry], args: ModelArgs) -> None:
    has_weights = any(is_diffusion(name) for name in tensors)
    if has_weights and not args.has_diffusion_view:
        raise ConfigError(
            f"{folder / 'config.json'}: block_size and mask_token_id are missing, but there are diffusion weights"
        )
    if args.has_diffusion_view and not has_weights:
        raise CheckpointError(f"{folder}: config.json says Orthrus, but there are no diffusion weights (*_diff)")
