"""A conversion from beginning to end: read headers, plan, write, verify, rename."""

from __future__ import annotations

import errno
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthrus_mlx.config import ModelArgs
from orthrus_mlx.errors import CheckpointError, ConfigError
from orthrus_mlx.hub import resolve
from orthrus_mlx.json_file import read_object
from orthrus_mlx.model import parameter_shapes
from orthrus_mlx.safetensors_file import BACKBONE, DIFFUSION, TensorEntry, check_shapes, open_checkpoint

from .config import make_config, refuse_quantized
from .encode import encode_rows
from .plan import FLOATS, FilePlan, WeightPlan, is_diffusion, plan_files, plan_weights
from .quantization import Quantization
from .target import check_apart, check_space, check_target, fresh_folder, write_file
from .tokenizer import check_tokenizer, copy_tokenizer
from .verify import verify_folder
from .writer import TensorWriter

LAYOUTS = ("sidecar", "single")

# Rows are handled in slabs of about this size, so that memory does not depend on the model: 32 MiB was as fast
# as 256 MiB here and keeps the whole process within some 150 MiB of what it takes to import MLX.
SLAB_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Progress:
    """What `on_progress` is told after every slab."""

    stage: str
    """"write", then "verify"."""
    file: str
    """The output file at hand."""
    done: int
    total: int
    """Bytes of the stage: source bytes read for "write", output bytes read back for "verify"."""


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Conversion:
    """What a conversion wrote."""

    path: Path
    args: ModelArgs
    files: dict[str, int]
    """Weight files by name with their bytes (tensor data, headers not counted)."""
    quantization: Quantization | None
    diff_quantization: Quantization | None
    dropped: tuple[str, ...]
    """Source tensors that the model does not need: a tied head's copy, rotary tables."""
    source_bytes: int
    seconds: float

    @property
    def written_bytes(self) -> int:
        return sum(self.files.values())


def convert(
    hf_path: str | Path,
    mlx_path: str | Path = "mlx_model",
    quantize: bool = False,
    q_group_size: int | None = None,
    q_bits: int | None = None,
    q_mode: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    *,
    diff_quantize: bool | None = None,
    diff_q_group_size: int | None = None,
    diff_q_bits: int | None = None,
    diff_q_mode: str | None = None,
    layout: str = "sidecar",
    force: bool = False,
    max_shard_size: int | str = "5GB",
    on_progress: OnProgress | None = None,
) -> Conversion:
    """Convert a checkpoint to an MLX folder that orthrus_mlx loads, and in the side-car layout stock mlx-lm too.

    Memory stays near two slabs of 32 MiB whatever the model's size. The folder appears under its name only when
    every tensor has been read back and compared.

    Args:
        hf_path: a folder or hub id with safetensors weights in bf16, fp16 or fp32: Orthrus in any layout, or a
            plain Qwen3, which then has the AR view only.
        mlx_path: the folder to write.
        quantize, q_group_size, q_bits, q_mode: `mx.quantize` settings of the backbone (mode "affine" when None).
        dtype: "bfloat16", "float16" or "float32" for all weights that are not packed; None keeps each one's own.
        revision: branch, tag or commit of a hub id.
        diff_quantize: quantise the diffusion weights; None follows the backbone, or True where a `diff_q_*`
            setting is given. The `diff_q_*` settings are the backbone's where none of them is given.
        layout: "sidecar" (diffusion weights in files of their own) or "single".
        force: replace an existing model folder.
        max_shard_size: bytes of tensor data per file, as a number or like "5GB", "500MB" (powers of ten).
        on_progress: called after each slab; an exception from it cancels the conversion and leaves nothing.

    Raises:
        ConfigError: a setting of the model or an option that cannot be honoured.
        CheckpointError: anything else wrong with the source, the target or the disk.
    """
    started = time.monotonic()
    quantization, diff_quantization = _quantizations(
        quantize, (q_mode, q_bits, q_group_size), diff_quantize, (diff_q_mode, diff_q_bits, diff_q_group_size)
    )
    if layout not in LAYOUTS:
        raise ConfigError(f"layout {layout!r} is not supported; expected one of {', '.join(LAYOUTS)}")
    max_shard_bytes = _size(max_shard_size)
    output_dtype = _dtype(dtype)
    target = Path(mlx_path).expanduser()
    if not target.name or target.name == "..":
        raise CheckpointError(f"--mlx-path {str(mlx_path)!r} does not name a folder")
    try:
        check_target(target, force)
        source = resolve(hf_path, revision)
        check_apart(target, source)
        config = read_object(source / "config.json")
        refuse_quantized(config)
        tensors = open_checkpoint(source)
        args = ModelArgs.from_dict(config)
        kept, dropped = _select(source, tensors, args)
        check_tokenizer(source, args, config)
        if not args.has_diffusion_view:
            if diff_quantize is not None or any((diff_q_mode, diff_q_bits, diff_q_group_size)):
                raise ConfigError(f"{source}: has no diffusion weights; leave out the --diff options")
            diff_quantization = None

        weights = plan_weights(kept, output_dtype, quantization, diff_quantization)
        side_car = layout == "sidecar"
        files = plan_files(weights, side_car, max_shard_bytes)
        new_config = make_config(config, args, weights, side_car, quantization, diff_quantization)
        with fresh_folder(target, force) as folder:
            check_space(folder, sum(file.nbytes for file in files))
            _write_folder(folder, source, files, new_config, on_progress or (lambda progress: None))
    except OSError as error:
        raise CheckpointError(_disk_error(error, target)) from error
    return Conversion(
        path=target,
        args=args,
        files={file.name: file.nbytes for file in files},
        quantization=quantization,
        diff_quantization=diff_quantization,
        dropped=dropped,
        source_bytes=sum(entry.nbytes for entry in tensors.values()),
        seconds=time.monotonic() - started,
    )


def _quantizations(
    quantize: bool, own: tuple[Any, Any, Any], diff_quantize: bool | None, diff: tuple[Any, Any, Any]
) -> tuple[Quantization | None, Quantization | None]:
    if not quantize and any(setting is not None for setting in own):
        raise ConfigError("--q-bits, --q-group-size and --q-mode need --quantize")
    mode, bits, group_size = own
    quantization = Quantization.make(mode or "affine", bits, group_size) if quantize else None
    has_settings = any(setting is not None for setting in diff)
    if diff_quantize is False:
        if has_settings:
            raise ConfigError("--diff-no-quantize contradicts --diff-q-bits, --diff-q-group-size and --diff-q-mode")
        return quantization, None
    if has_settings:
        mode, bits, group_size = diff
        return quantization, Quantization.make(mode or "affine", bits, group_size)
    return quantization, quantization or (Quantization.make() if diff_quantize else None)


def _select(
    source: Path, tensors: Mapping[str, TensorEntry], args: ModelArgs
) -> tuple[list[TensorEntry], tuple[str, ...]]:
    """(the tensors that `args` demands, in model order; names of those it can do without)."""
    if not args.has_diffusion_view and any(is_diffusion(name) for name in tensors):
        raise ConfigError(
            f"{source / 'config.json'}: block_size and mask_token_id are missing, but there are diffusion weights"
        )
    if any(name.endswith((".scales", ".qweight", ".weight_scale_inv")) for name in tensors):
        raise CheckpointError(f"{source}: the weights are already quantised; convert the original checkpoint")
    expected = parameter_shapes(args)
    droppable = {name for name in tensors if name.endswith("rotary_emb.inv_freq")}
    if args.tie_word_embeddings and "lm_head.weight" in tensors:
        _check_tied(tensors["lm_head.weight"], tensors.get("model.embed_tokens.weight"))
        droppable.add("lm_head.weight")
    needed = {name: entry for name, entry in tensors.items() if name not in droppable}
    if args.has_diffusion_view and not any(is_diffusion(name) for name in needed):
        raise CheckpointError(f"{source}: config.json says Orthrus, but there is no diffusion weight (*_diff)")
    check_shapes(needed, expected)
    return [needed[name] for name in expected], tuple(sorted(droppable))


def _check_tied(head: TensorEntry, embedding: TensorEntry | None) -> None:
    """A tied checkpoint may carry its head again; one that differs would be another model."""
    if embedding is None:
        return  # reported as missing with all the others
    same = (head.dtype, head.shape) == (embedding.dtype, embedding.shape) and all(
        a == b for a, b in zip(head.slabs(SLAB_BYTES), embedding.slabs(SLAB_BYTES), strict=True)
    )
    if not same:
        raise CheckpointError(
            f"{head.file}: lm_head.weight differs from model.embed_tokens.weight, though config.json ties them"
        )


def _write_folder(
    folder: Path, source: Path, files: Sequence[FilePlan], config: dict[str, Any], on_progress: OnProgress
) -> None:
    """Fill `folder`; config.json comes last, because nothing loads without it."""
    digests: dict[str, str] = {}
    advance = _counter(on_progress, "write", sum(w.source.nbytes for file in files for w in file.weights))
    for file in files:
        with TensorWriter(folder / file.name, file.outputs) as writer:
            for weight in file.weights:
                _write_weight(writer, weight, lambda nbytes, name=file.name: advance(name, nbytes))
        digests |= writer.digests()
    for family in (BACKBONE, DIFFUSION):
        _write_index(folder, family, [file for file in files if file.name.startswith(f"{family}-")])
    copy_tokenizer(source, folder)
    verify_folder(
        folder, files, digests, SLAB_BYTES, _counter(on_progress, "verify", sum(file.nbytes for file in files))
    )
    write_file(folder / "config.json", json.dumps(config, indent=4).encode())


def _write_weight(writer: TensorWriter, weight: WeightPlan, advance: Callable[[int], None]) -> None:
    for rows, raw in weight.source.slabs(SLAB_BYTES):
        for output, data in zip(weight.outputs, encode_rows(raw, rows, weight), strict=True):
            writer.append(output.name, data)
        advance(len(raw))


def _write_index(folder: Path, family: str, shards: Sequence[FilePlan]) -> None:
    if not shards:
        return  # one file needs no index
    index = {
        "metadata": {"total_size": sum(shard.nbytes for shard in shards)},
        "weight_map": {output.name: shard.name for shard in shards for output in shard.outputs},
    }
    write_file(folder / f"{family}.safetensors.index.json", json.dumps(index, indent=4, sort_keys=True).encode())


def _counter(on_progress: OnProgress, stage: str, total: int) -> Callable[[str, int], None]:
    done = 0

    def advance(file: str, nbytes: int) -> None:
        nonlocal done
        done += nbytes
        on_progress(Progress(stage, file, done, total))

    return advance


def _dtype(dtype: str | None) -> str | None:
    names = {mlx_name: name for name, mlx_name in FLOATS.items()}
    if dtype is not None and dtype not in names:
        raise ConfigError(f"dtype {dtype!r} is not supported; expected one of {', '.join(names)}")
    return None if dtype is None else names[dtype]


def _size(size: int | str) -> int:
    match = re.fullmatch(r"(\d{1,15})\s*([KMGT]?)B?", str(size).strip().upper())
    nbytes = int(match[1]) * 1000 ** " KMGT".index(match[2] or " ") if match else 0
    if nbytes < 1:
        raise ConfigError(f"max shard size {size!r} is not a size; expected a number of bytes or like 5GB, 500MB")
    return nbytes


def _disk_error(error: OSError, target: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{target}: disk full while writing; nothing was left behind; free some space or choose another --mlx-path"
        )
    return f"{error.filename or target}: {error.strerror or error}"
