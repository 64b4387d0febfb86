"""A rank's part of a checkpoint: only the bytes of its own rows and columns are read."""

from __future__ import annotations

from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..errors import CheckpointError
from ..model import Model
from ..safetensors_file import TensorEntry
from .job import Ranks

_VIEWS: dict[str, tuple[Any, mx.Dtype]] = {
    "F32": (np.float32, mx.float32),
    "F16": (np.float16, mx.float16),
    "BF16": (np.uint16, mx.bfloat16),
    "U32": (np.uint32, mx.uint32),
    "U8": (np.uint8, mx.uint8),
}
"""NumPy's type of the same width (it has no bfloat16), and MLX's."""


def read_part(ranks: Ranks, model: Model, tensors: dict[str, TensorEntry]) -> dict[str, mx.array]:
    """Reduce `model` to this rank's part, and read that. Tokens become embeddings, and logits, on the leader alone.

    Raises:
        ConfigError: the model cannot be divided by the number of ranks.
        CheckpointError: a file ends early.
    """
    model.shard(ranks.group)
    if not ranks.leads:
        del model.model.embed_tokens
        if "lm_head" in model:
            del model.lm_head
    parameters = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
    return {name: _read(tensors[name], kept.shape, ranks.rank) for name, kept in parameters}


def _read(entry: TensorEntry, shape: tuple[int, ...], rank: int) -> mx.array:
    """The part `rank` of a tensor that was divided along one axis to `shape`, or all of it."""
    divided = [axis for axis, (whole, kept) in enumerate(zip(entry.shape, shape, strict=True)) if whole != kept]
    # Divided along axis a, the tensor is so many runs of bytes, a part of each of which is this rank's.
    runs = int(np.prod(entry.shape[: divided[0]])) if divided else 1
    run = entry.nbytes // runs
    part = run * shape[divided[0]] // entry.shape[divided[0]] if divided else run
    data = np.empty((runs, part), np.uint8)
    try:
        with entry.file.open("rb", buffering=0) as stream:
            for i in range(runs):
                stream.seek(entry.start + i * run + rank * part * bool(divided))
                _fill(stream, memoryview(data[i]), entry)
    except OSError as error:
        raise CheckpointError(f"{entry.file}: {error.strerror}") from error
    number, dtype = _VIEWS[entry.dtype]
    return mx.array(data.reshape(-1).view(number)).view(dtype).reshape(shape)


def _fill(stream: Any, buffer: memoryview, entry: TensorEntry) -> None:
    while buffer:
        count = stream.readinto(buffer)
        if not count:
            raise CheckpointError(f"{entry.file}: ends inside {entry.name}; it changed while being read")
        buffer = buffer[count:]
