"""Writing safetensors files row by row: the header is known before any data, so each tensor has its place."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from orthrus_mlx.safetensors_file import DTYPE_BITS

from .plan import OutputTensor


class TensorWriter:
    """One safetensors file being written; tensors grow in any order, each from its first row to its last.

    Memory is what one `append` holds. Leaving the `with` block without an error flushes the file to the disk.
    """

    def __init__(self, file: Path, outputs: Sequence[OutputTensor]):
        # Widest dtype first keeps every tensor aligned to its element size, as the safetensors library does.
        ordered = sorted(outputs, key=lambda output: -DTYPE_BITS[output.dtype])
        header, self._position = _header(ordered)
        self._hash = {o.name: hashlib.sha256() for o in ordered}
        self._file = file.open("xb", buffering=0)
        self._write(header, 0)

    def append(self, name: str, data: bytes) -> None:
        """The next bytes of tensor `name`."""
        self._write(data, self._position[name])
        self._position[name] += len(data)
        self._hash[name].update(data)

    def digests(self) -> dict[str, str]:
        """SHA-256 of each tensor's bytes as they were handed to `append`."""
        return {name: digest.hexdigest() for name, digest in self._hash.items()}

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        try:
            if kind is None:
                os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def _write(self, data: bytes, position: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file.fileno(), view, position)
            view, position = view[written:], position + written


def _header(outputs: Sequence[OutputTensor]) -> tuple[bytes, dict[str, int]]:
    """The file's first bytes, and each tensor's position counted from the beginning of the file."""
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    offsets, end = {}, 0
    for output in outputs:
        offsets[output.name] = end
        end += output.nbytes
        data_offsets = [offsets[output.name], end]
        header[output.name] = {"dtype": output.dtype, "shape": list(output.shape), "data_offsets": data_offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {name: start + offset for name, offset in offsets.items()}
