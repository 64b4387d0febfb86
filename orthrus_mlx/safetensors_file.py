"""Safetensors headers and indices, checked before any weight is read.

A safetensors file is an unsigned 64-bit little-endian header length, a JSON header, then the data. The header
maps a tensor's name to its dtype, shape and byte range within the data; ranges must fill the data without holes
or overlaps (https://github.com/huggingface/safetensors, "Format"). MLX's own reader trusts the header, so a
checkpoint passes through here first: reading costs the headers only, some 100 kB for an 8B model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CheckpointError
from .json_file import parse_object, read_object

BACKBONE = "model"
DIFFUSION = "orthrus_diff"
"""Families of weight files by the beginning of their names; the second exists in the side-car layout only."""

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_MAX_DIMS = 8
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors")


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a weight file: where its bytes are, and what they mean."""

    file: Path
    name: str
    dtype: str
    """As safetensors spells it: "BF16", "F32", "U32", ..."""
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the beginning of the file."""
    nbytes: int

    def read(self, start: int, nbytes: int) -> bytes:
        """`nbytes` raw bytes from byte `start` of the tensor. Raises CheckpointError if the file has become shorter."""
        try:
            with self.file.open("rb") as stream:
                stream.seek(self.start + start)
                data = stream.read(nbytes)
        except OSError as error:
            raise CheckpointError(f"{self.file}: {error.strerror}") from error
        if len(data) != nbytes:
            raise CheckpointError(f"{self.file}: ends inside {self.name}; it changed while being read")
        return data

    def slabs(self, max_bytes: int) -> Iterator[tuple[int, bytes]]:
        """The tensor in pieces of whole rows (first axis), each about `max_bytes` or one row: (rows, raw bytes)."""
        rows = self.shape[0] if self.shape else 1
        row_bytes = self.nbytes // rows if rows else 0
        step = max(1, max_bytes // max(row_bytes, 1))
        for row in range(0, rows, step):
            count = min(step, rows - row)
            yield count, self.read(row * row_bytes, count * row_bytes)


def open_checkpoint(folder: Path) -> dict[str, TensorEntry]:
    """Every tensor of the folder's weight files by name, read from checked headers; no weight is read.

    Takes `model*.safetensors` and, where present, `orthrus_diff*.safetensors`; each family may have an index
    (`<family>.safetensors.index.json`), which must then agree with the headers.

    Raises:
        CheckpointError: no weight files, only pickled ones, a file missing or damaged, an index that disagrees
            with the files or names a path outside the folder, a tensor in two files.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    tensors = _open_family(folder, BACKBONE)
    if not tensors:
        raise CheckpointError(_why_no_weights(folder))
    for name, entry in _open_family(folder, DIFFUSION).items():
        _add(tensors, name, entry)
    return tensors


def read_header(file: Path) -> dict[str, TensorEntry]:
    """The tensors of one safetensors file by name, in the order of the header.

    Raises:
        CheckpointError: the file is missing, truncated or longer than its header says, or the header is damaged.
    """
    if not file.is_file():  # also keeps pipes and devices from being opened
        raise CheckpointError(f"{file}: no such file")
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            header_bytes = int.from_bytes(stream.read(8), "little")
            if size < 8 or header_bytes > size - 8 or header_bytes > MAX_HEADER_BYTES:
                raise CheckpointError(
                    f"{file}: corrupt or truncated header: it claims {header_bytes} bytes, the file has {size}"
                )
            text = stream.read(header_bytes)
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror}") from error
    header = parse_object(text, f"{file} header")
    metadata = header.pop("__metadata__", None) or {}  # MLX writes null where there is none
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{file}: header: __metadata__ must map strings to strings")
    data_start = 8 + header_bytes
    entries = {name: _entry(file, name, value, data_start) for name, value in header.items()}
    _check_ranges(file, list(entries.values()), data_start, size)
    return entries


def check_shapes(tensors: Mapping[str, TensorEntry], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse missing, extra and mis-shaped tensors. Raises CheckpointError naming the first of its kind."""
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise CheckpointError(f"tensor {missing[0]} is missing{_others(missing)}; the checkpoint is incomplete")
    extra = [name for name in tensors if name not in expected]
    if extra:
        raise CheckpointError(
            f"{tensors[extra[0]].file}: tensor {quoted(extra[0])} is not part of this model{_others(extra)}"
        )
    for name, shape in expected.items():
        entry = tensors[name]
        if entry.shape != shape:
            raise CheckpointError(
                f"{entry.file}: tensor {name} has shape {list(entry.shape)}, config.json asks for {list(shape)}"
            )


def quoted(name: str) -> str:
    """A name out of a file as one short printable line, whatever is in it."""
    return repr(name if len(name) <= 120 else name[:117] + "...")


def _others(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _open_family(folder: Path, family: str) -> dict[str, TensorEntry]:
    present = sorted(p for p in folder.glob(f"{family}*.safetensors"))
    index_file = folder / f"{family}.safetensors.index.json"
    tensors: dict[str, TensorEntry] = {}
    if not index_file.exists():
        for file in present:
            for name, entry in read_header(file).items():
                _add(tensors, name, entry)
        return tensors

    weight_map = _read_index(index_file)
    files = sorted(set(weight_map.values()))
    for file in present:
        if file.name not in files:
            raise CheckpointError(f"{file}: not listed in {index_file.name}; remove one of the two")
    for file_name in files:
        if not (folder / file_name).is_file():
            raise CheckpointError(f"{folder / file_name}: no such file, but {index_file.name} lists it")
        for name, entry in read_header(folder / file_name).items():
            if weight_map.get(name) != file_name:
                raise CheckpointError(f"{entry.file}: tensor {quoted(name)} is not listed there by {index_file.name}")
            tensors[name] = entry
    for name, file_name in weight_map.items():
        if name not in tensors:
            raise CheckpointError(f"{folder / file_name}: lacks tensor {quoted(name)} that {index_file.name} lists")
    return tensors


def _read_index(file: Path) -> dict[str, str]:
    weight_map = read_object(file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{file}: corrupt index: weight_map must map tensor names to files")
    for name, target in weight_map.items():
        if not isinstance(target, str):
            raise CheckpointError(f"{file}: corrupt index: {quoted(name)} must be in a file, not {target!r:.80}")
        # A link inside the folder may lead elsewhere (Hugging Face's cache is made of links); a name may not.
        if "/" in target or "\\" in target or target.startswith("."):
            raise CheckpointError(f"{file}: {quoted(target)} leaves the folder; expected a file name")
        if not _FILE_NAME.fullmatch(target):
            raise CheckpointError(f"{file}: {quoted(target)} is not the name of a safetensors file")
    return weight_map


def _add(tensors: dict[str, TensorEntry], name: str, entry: TensorEntry) -> None:
    if name in tensors:
        raise CheckpointError(f"tensor {quoted(name)} is in both {tensors[name].file} and {entry.file}")
    tensors[name] = entry


def _why_no_weights(folder: Path) -> str:
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLED)
    if pickled:
        return f"{folder}: only pickled weights ({pickled[0]}), which can run code; convert them to safetensors first"
    return f"{folder}: no model*.safetensors; pickled weights (.bin, .pt) are never read"


def _entry(file: Path, name: str, value: Any, data_start: int) -> TensorEntry:
    where = f"{file}: header: tensor {quoted(name)}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise CheckpointError(f"{where} has unknown dtype {dtype!r:.80}")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMS or not all(_is_size(n) for n in shape):
        raise CheckpointError(f"{where} has a bad shape {shape!r:.80}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(n) for n in offsets):
        raise CheckpointError(f"{where} has bad data_offsets {offsets!r:.80}")
    begin, end = offsets
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if (end - begin) * 8 != bits:
        raise CheckpointError(
            f"{where}: {dtype} {shape!r:.80} takes {bits // 8} bytes, data_offsets give {end - begin}"
        )
    return TensorEntry(file, name, dtype, tuple(shape), data_start + begin, end - begin)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _check_ranges(file: Path, entries: list[TensorEntry], data_start: int, size: int) -> None:
    end = data_start
    for entry in sorted(entries, key=lambda e: (e.start, e.nbytes)):
        if entry.start != end:
            fault = "overlaps the one before it" if entry.start < end else "leaves a hole before it"
            raise CheckpointError(f"{file}: header: tensor {quoted(entry.name)} {fault}")
        end = entry.start + entry.nbytes
    if size < end:
        raise CheckpointError(f"{file}: truncated: {size} bytes, its header asks for {end}; download it again")
    if size > end:
        raise CheckpointError(f"{file}: {size - end} bytes too long for its header; download it again")
