"""The KV cache that both views share.

Invariant: rows below `offset` hold verified tokens of the AR view and never change; rows at and above it are
scratch. A pass stages a block's keys and values behind the prefix, or holds them beside it where attention can
read both, and attends to prefix + block; `commit` advances the offset over the rows that were accepted.
Rejecting is doing nothing, so whatever interrupts a pass (an exception, a closed iterator, Ctrl-C) leaves a
valid cache.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models import cache as mlx_lm_cache

from .atomic_file import replacing
from .errors import CheckpointError, RequestError
from .numpy_floats import numpy_view
from .safetensors_file import read_header

CHUNK = 256
"""Rows by which a buffer grows, mlx-lm's step: growth copies the buffer, so not row by row."""


class LayerCache:
    """One layer's keys and values [1, G, capacity, D], seen by attention as an mlx-lm cache."""

    def __init__(self, shared: KVCache):
        # Weak, as the cache holds its layers: buffers then go with the last reference to the cache, and not when
        # Python's collector comes by.
        self._shared: KVCache = weakref.proxy(shared)
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self._held: tuple[mx.array, mx.array] | None = None
        self._own: tuple[mx.array, mx.array] | None = None
        self._views: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def offset(self) -> int:
        return self._shared.offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Stage keys and values [1, G, L, D] at rows offset..offset+L-1; returns prefix + block [1, G, offset+L, D]."""
        self._held = None
        buffers = self._write(keys, values)
        end = self.offset + keys.shape[2]
        return buffers[0][..., :end, :], buffers[1][..., :end, :]

    def hold(self, keys: mx.array, values: mx.array) -> tuple[mx.array | None, mx.array | None]:
        """Keep a block's keys and values [1, G, L, D] beside the buffers until `commit`; returns the buffers, if any.

        Nothing is written while a pass may still be reading, so MLX never has to copy a buffer to keep it whole.
        """
        self._held = keys, values
        return self.keys, self.values

    @property
    def prefix(self) -> tuple[mx.array, mx.array]:
        """Keys and values [1, G, offset, D] of the verified tokens, once a block was staged."""
        assert self.keys is not None and self.values is not None
        return self.keys[:, :, : self.offset], self.values[:, :, : self.offset]

    def in_place(self, rows: int, like: mx.array) -> tuple[mx.array, mx.array]:
        """The buffers, for a kernel that writes `rows` rows behind the prefix into them, behind MLX's back.

        They are nobody else's: a buffer that came from elsewhere, or that others may hold, is copied first.

        Args:
            like: a block [1, G, any, D] of the rows' shape and dtype.
        """
        self._held = None
        start, end = self.offset, self.offset + rows
        keys, values = (_grown(a, like, start, end) for a in (self.keys, self.values))
        if not self._owns or keys is not self.keys or values is not self.values:
            if not self._owns:
                keys, values = (_copied(a) if a is b else a for a, b in ((keys, self.keys), (values, self.values)))
                # A cache from elsewhere may be of another dtype, which the kernel cannot read.
                keys, values = keys.astype(like.dtype), values.astype(like.dtype)
            mx.eval(keys, values)
            self._become(keys, values)
        return keys, values

    def as_numpy(self, rows: int, like: mx.array) -> tuple[np.ndarray, np.ndarray]:
        """The buffers of `in_place`, for NumPy to write `rows` rows into; see `numpy_view` for the types."""
        buffers = self.in_place(rows, like)
        if self._views is None:
            self._views = numpy_view(buffers[0]), numpy_view(buffers[1])
        return self._views

    def disown(self) -> None:
        """Others may hold the buffers from now on."""
        self._own = None

    def commit(self, rows: int, path: Sequence[int] | None = None) -> None:
        """Bring the accepted rows of the last block behind the prefix: the first `rows`, or those on `path`."""
        if self._held is not None:
            keys, values = self._held
            self._held = None
            self._write(*(_accepted(a, 0, rows, path) for a in (keys, values)))
        elif path is not None and self.keys is not None and self.values is not None:
            self._write(*(_accepted(a, self.offset, rows, path) for a in (self.keys, self.values)))

    def _write(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Put rows behind the prefix; returns the buffers."""
        # MLX writes into a buffer that nobody looks at, and else into a copy.
        self._views = None
        start, end = self.offset, self.offset + keys.shape[2]
        grown_keys, grown_values = _grown(self.keys, keys, start, end), _grown(self.values, values, start, end)
        # Whoever else holds a buffer keeps it as it is: MLX copies it then, and the copy is ours.
        owned = self._owns or (grown_keys is not self.keys and grown_values is not self.values)
        grown_keys[..., start:end, :] = keys
        grown_values[..., start:end, :] = values
        self._become(grown_keys, grown_values, owned=owned)
        return grown_keys, grown_values

    @property
    def _owns(self) -> bool:
        return self._own is not None and self._own[0] is self.keys and self._own[1] is self.values

    def _become(self, keys: mx.array, values: mx.array, owned: bool = True) -> None:
        self.keys, self.values = keys, values
        self._views = None
        self._own = (keys, values) if owned else None


def _accepted(block: mx.array, start: int, rows: int, path: Sequence[int] | None) -> mx.array:
    """Rows of a block that stands at `start`: the first ones, or those on `path`."""
    if path is None:
        return block[..., start : start + rows, :]
    return mx.take(block, start + mx.array(list(path)), axis=2)


def _grown(buffer: mx.array | None, block: mx.array, start: int, end: int) -> mx.array:
    # Verified rows keep their dtype. Before there are any, the newest block decides, and that is the verified
    # one: a diffusion view of another dtype must not change what the autoregressive view computes.
    if buffer is None or (start == 0 and buffer.dtype != block.dtype):
        return mx.zeros(_with_rows(block, -(-end // CHUNK) * CHUNK), block.dtype)
    if end <= buffer.shape[2]:
        return buffer
    more = mx.zeros(_with_rows(block, -(-end // CHUNK) * CHUNK - start), buffer.dtype)
    return mx.concatenate([buffer[..., :start, :], more], axis=2)


def _copied(buffer: mx.array) -> mx.array:
    return mx.concatenate([buffer[..., :1, :], buffer[..., 1:, :]], axis=2)


def _with_rows(block: mx.array, rows: int) -> tuple[int, ...]:
    return (*block.shape[:2], rows, block.shape[3])


class KVCache(Sequence[LayerCache]):
    """The cache of one sequence of tokens: a `LayerCache` per layer and one common `offset`."""

    on_commit: Callable[[int, Sequence[int] | None], None] | None = None
    """Told the arguments of every `commit`, where caches of other ranks follow this one (orthrus_mlx.distributed)."""

    def __init__(self, num_layers: int):
        self.offset = 0
        self.layers = [LayerCache(self) for _ in range(num_layers)]

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index):
        return self.layers[index]

    def commit(self, rows: int, path: Sequence[int] | None = None) -> None:
        """Keep `rows` rows of the last pass: its first ones, or in a tree those on `path`, from the root on."""
        for layer in self.layers:
            layer.commit(rows, path)
        self.offset += rows
        if self.on_commit is not None:
            self.on_commit(rows, path)

    def trim(self, rows: int) -> None:
        """Forget the last `rows` committed rows (all of them where there are fewer)."""
        dropped = min(max(rows, 0), self.offset)
        self.offset -= dropped
        if dropped:
            # Who holds the buffers still counts on the rows that will be written again.
            self._disown()

    def _disown(self) -> None:
        for layer in self.layers:
            layer.disown()

    def __deepcopy__(self, memo: dict[int, Any]) -> KVCache:
        """A cache of the same tokens that goes on by itself; buffers are shared until one of the two writes."""
        self._disown()
        twin = KVCache(len(self.layers))
        twin.offset = self.offset
        for mine, theirs in zip(self.layers, twin.layers, strict=True):
            if mine.keys is not None and mine.values is not None:
                theirs.keys, theirs.values = mx.array(mine.keys), mx.array(mine.values)
        return twin

    def release(self) -> None:
        """Forget everything and let the buffers go now, whoever still holds the cache."""
        self.offset = 0
        self.layers = []

    @property
    def arrays(self) -> list[mx.array]:
        """Every buffer, for `mx.eval`."""
        return [a for layer in self.layers for a in (layer.keys, layer.values) if a is not None]

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.arrays)

    # mlx-lm's prompt caches -------------------------------------------------------------------------

    @classmethod
    def from_mlx_lm(cls, caches: Sequence[Any]) -> KVCache:
        """Adopt the buffers of an mlx-lm prompt cache (a list of its plain `KVCache`, one per layer).

        Raises:
            RequestError: a layer is of another class (rotating, quantised) or holds fewer rows than it claims or
                a batch, or layers disagree on the offset.
        """
        for i, c in enumerate(caches):
            if type(c) is not mlx_lm_cache.KVCache:
                raise RequestError(
                    f"prompt_cache: layer {i} is a {type(c).__name__}; only mlx-lm's plain KVCache is supported"
                )
            if not _is_sound(c):
                raise RequestError(f"prompt_cache: layer {i} does not hold the keys and values of one sequence")
        if len({c.offset for c in caches}) > 1:
            raise RequestError("prompt_cache: layers disagree on the offset; rebuild the cache")
        shared = cls(len(caches))
        for layer, c in zip(shared.layers, caches, strict=True):
            layer.keys, layer.values = c.keys, c.values
        shared.offset = caches[0].offset if caches else 0
        return shared

    def write_to(self, caches: Sequence[Any]) -> None:
        """Give the buffers and the offset to an mlx-lm prompt cache of as many layers, in place."""
        self._disown()
        for layer, c in zip(self.layers, caches, strict=True):
            c.keys, c.values, c.offset = layer.keys, layer.values, self.offset

    def save(self, path: str | Path, metadata: dict[str, str] | None = None) -> None:
        """Write an mlx-lm prompt-cache file (`.safetensors`), atomically; mlx-lm can load it and so can `load`."""
        if self.offset == 0:
            raise RequestError("the cache is empty; there is nothing to save")
        path = Path(path)
        if path.suffix != ".safetensors":
            raise RequestError(f"{path}: the name of a cache file must end in .safetensors")
        if not path.parent.is_dir():
            raise RequestError(f"{path}: there is no folder {path.parent}")
        caches = [mlx_lm_cache.KVCache() for _ in self.layers]
        self.write_to(caches)
        with replacing(path) as partial:
            mlx_lm_cache.save_prompt_cache(str(partial), caches, metadata)

    @classmethod
    def load(cls, path: str | Path) -> tuple[KVCache, dict[str, str]]:
        """Read an mlx-lm prompt-cache file. Returns the cache and the file's metadata.

        Raises:
            CheckpointError: the file is missing, damaged, or holds another kind of cache.
        """
        read_header(Path(path))  # MLX trusts the header
        try:
            caches, metadata = mlx_lm_cache.load_prompt_cache(str(path), return_metadata=True)
            shared = cls.from_mlx_lm(caches)
            mx.eval(shared.arrays)
            return shared, metadata
        except RequestError as error:
            raise CheckpointError(f"{path}: {error}") from error
        except Exception as error:
            # mlx-lm unpacks the file by position: a damaged one fails with whatever the first step raises.
            raise CheckpointError(f"{path}: not a readable mlx-lm prompt cache ({error})") from error


def _is_sound(c: mlx_lm_cache.KVCache) -> bool:
    if c.keys is None or c.values is None:
        return c.keys is None and c.values is None and c.offset == 0
    if not isinstance(c.offset, int) or not all(isinstance(a, mx.array) and a.ndim == 4 for a in (c.keys, c.values)):
        return False
    return c.keys.shape[:3] == c.values.shape[:3] and c.keys.shape[0] == 1 and 0 <= c.offset <= c.keys.shape[2]
