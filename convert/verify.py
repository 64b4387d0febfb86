"""The proof before the rename: what is on the disk is what was meant to be written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orthrus_mlx.errors import CheckpointError
from orthrus_mlx.safetensors_file import open_checkpoint

from .encode import is_finite
from .plan import FLOATS, FilePlan


def verify_folder(
    folder: Path,
    files: Sequence[FilePlan],
    digests: Mapping[str, str],
    slab_bytes: int,
    advance: Callable[[str, int], None],
) -> None:
    """Read every weight file of `folder` back and compare with the plan and the digests taken while writing.

    `advance(file name, bytes)` is called as reading goes on. Memory is one slab.

    Raises:
        CheckpointError: a tensor missing, extra, of another dtype or shape, of other bytes, or not finite.
    """
    written = open_checkpoint(folder)
    planned = {output.name: (file.name, output.dtype, output.shape) for file in files for output in file.outputs}
    if {name: (entry.file.name, entry.dtype, entry.shape) for name, entry in written.items()} != planned:
        raise CheckpointError(f"{folder}: the written headers differ from the plan; please report this")
    for name, entry in written.items():
        digest = hashlib.sha256()
        for _, raw in entry.slabs(slab_bytes):
            digest.update(raw)
            if entry.dtype in FLOATS and not is_finite(raw, entry.dtype):
                raise CheckpointError(f"{entry.file}: tensor {name} is not finite when read back")
            advance(entry.file.name, len(raw))
        if digest.hexdigest() != digests[name]:
            raise CheckpointError(f"{entry.file}: tensor {name} reads back differently; the disk may be failing")
