"""A conversion from beginning to end: read headers, plan, write, verify, rename."""

from __future__ import annotations

import errno
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthrus_mlx.config import ModelArgs
from orthrus_mlx.draft_vocabulary import DraftVocabulary
from orthrus_mlx.errors import CheckpointError, ConfigError
from orthrus_mlx.hub import resolve
from orthrus_mlx.safetensors_file import BACKBONE, DIFFUSION

from .config import make_config
from .encode import encode_rows
from .plan import FLOATS, FilePlan, plan_files, plan_weights
from .quantization import Quantization, choose
from .source import check_tied_head, open_source
from .target import check_apart, check_space, check_target, fresh_folder, write_file
from .tokenizer import copy_tokenizer
from .verify import verify_folder
from .vocabulary import as_tensor, choose_vocabulary
from .writer import TensorWriter

LAYOUTS = ("sidecar", "single")

# Rows are handled in slabs of about this size, so that memory does not depend on the model. On a Linux CPU 4 MiB
# was as fast as 256 MiB and added 12 MB to the process (21 MB with -q, 110 MB with mxfp4) instead of 490 to 650.
SLAB_BYTES = 4 * 1024 * 1024


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
    draft_vocabulary: DraftVocabulary | None
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
    draft_vocabulary: int | None = None,
    draft_text: Sequence[str | Path] = (),
    layout: str = "sidecar",
    force: bool = False,
    max_shard_size: int | str = "5GB",
    on_progress: OnProgress | None = None,
) -> Conversion:
    """Convert a checkpoint to an MLX folder that orthrus_mlx loads, and in the side-car layout stock mlx-lm too.

    Weights pass through memory in slabs of a few MiB, whatever the model's size. The folder appears under its
    name only when every tensor has been read back and compared.

    Args:
        hf_path: a folder or hub id with safetensors weights in bf16, fp16 or fp32: Orthrus in any layout, or a
            plain Qwen3, which then has the AR view only.
        mlx_path: the folder to write.
        quantize, q_group_size, q_bits, q_mode: `mx.quantize` settings of the backbone (mode "affine" when None).
        dtype: "bfloat16", "float16" or "float32" for all weights that are not packed; None keeps each one's own.
        revision: branch, tag or commit of a hub id.
        diff_quantize: quantise the diffusion weights; None follows the backbone, or True where a `diff_q_*`
            setting is given. The `diff_q_*` settings are the backbone's where none of them is given.
        draft_vocabulary: how many ids draft passes may be limited to, the most frequent of `draft_text`; None keeps
            what the source has.
        draft_text: files of text like that to be written, plain or `.jsonl`.
        layout: "sidecar" (diffusion weights in files of their own) or "single".
        force: replace an existing model folder.
        max_shard_size: bytes of tensor data per file, as a number or like "5GB", "500MB" (powers of ten).
        on_progress: called after each slab; an exception from it cancels the conversion and leaves nothing.

    Raises:
        ConfigError: a setting of the model or an option that cannot be honoured.
        CheckpointError: anything else wrong with the source, the target or the disk.
    """
    started = time.monotonic()
    diff_settings = (diff_q_mode, diff_q_bits, diff_q_group_size)
    quantization, diff_quantization = choose(quantize, (q_mode, q_bits, q_group_size), diff_quantize, diff_settings)
    if layout not in LAYOUTS:
        raise ConfigError(f"layout {layout!r} is not supported; expected one of {', '.join(LAYOUTS)}")
    max_shard_bytes = _size(max_shard_size)
    output_dtype = _dtype(dtype)
    target = Path(mlx_path).expanduser()
    if not target.name or target.name == "..":
        raise CheckpointError(f"--mlx-path {str(mlx_path)!r} does not name a folder")
    try:
        check_target(target, force)
        folder = resolve(hf_path, revision)
        check_apart(target, folder)
        source = open_source(folder)
        if not source.args.has_diffusion_view:
            if diff_quantize is not None or diff_settings != (None, None, None):
                raise ConfigError(f"{folder}: has no diffusion weights; leave out the --diff options")
            diff_quantization = None
        chosen = choose_vocabulary(folder, source.config, source.args, draft_vocabulary, draft_text)
        vocabulary = chosen or source.draft_vocabulary
        weights = plan_weights(source.tensors, output_dtype, quantization, diff_quantization)
        side_car = layout == "sidecar"
        constants = () if vocabulary is None else (as_tensor(vocabulary),)
        files = plan_files(weights, side_car, max_shard_bytes, constants)
        config = make_config(source.config, source.args, weights, side_car, quantization, diff_quantization, vocabulary)
        check_tied_head(source, SLAB_BYTES)
        with fresh_folder(target, force) as fresh:
            check_space(fresh, sum(file.nbytes for file in files))
            _write_folder(fresh, folder, files, config, on_progress)
    except OSError as error:
        raise CheckpointError(_disk_error(error, target)) from error
    return Conversion(
        path=target,
        args=source.args,
        files={file.name: file.nbytes for file in files},
        quantization=quantization,
        diff_quantization=diff_quantization,
        draft_vocabulary=vocabulary,
        dropped=tuple(tensor.name for tensor in source.dropped),
        source_bytes=source.nbytes,
        seconds=time.monotonic() - started,
    )


def _write_folder(
    folder: Path, source: Path, files: Sequence[FilePlan], config: dict[str, Any], on_progress: OnProgress | None
) -> None:
    """Fill `folder`; config.json comes last, because nothing loads without it."""
    digests: dict[str, str] = {}
    advance = _counter(on_progress, "write", sum(w.source.nbytes for file in files for w in file.weights))
    for file in files:
        with TensorWriter(folder / file.name, file.outputs) as writer:
            for weight in file.weights:
                for rows, raw in weight.source.slabs(SLAB_BYTES):
                    for output, data in zip(weight.outputs, encode_rows(raw, rows, weight), strict=True):
                        writer.append(output.name, data)
                    advance(file.name, len(raw))
            for constant in file.constants:
                writer.append(constant.output.name, constant.data)
        digests |= writer.digests()
    for family in (BACKBONE, DIFFUSION):
        _write_index(folder, family, [file for file in files if file.name.startswith(f"{family}-")])
    copy_tokenizer(source, folder)
    verify_folder(
        folder, files, digests, SLAB_BYTES, _counter(on_progress, "verify", sum(file.nbytes for file in files))
    )
    write_file(folder / "config.json", json.dumps(config, indent=4).encode())


def _write_index(folder: Path, family: str, shards: Sequence[FilePlan]) -> None:
    if not shards:
        return  # one file needs no index
    index = {
        "metadata": {"total_size": sum(shard.nbytes for shard in shards)},
        "weight_map": {output.name: shard.name for shard in shards for output in shard.outputs},
    }
    write_file(folder / f"{family}.safetensors.index.json", json.dumps(index, indent=4, sort_keys=True).encode())


def _counter(on_progress: OnProgress | None, stage: str, total: int) -> Callable[[str, int], None]:
    done = 0

    def advance(file: str, nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if on_progress is not None:
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
        return f"{target}: disk full; nothing was left behind; free some space or choose another --mlx-path"
    return f"{error.filename or target}: {error.strerror or error}"
