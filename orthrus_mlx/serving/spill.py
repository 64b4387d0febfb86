"""Evicted prefixes on disk: one file a node, written whole or not at all, believed only if nothing in it changed.

A file begins with a line that names this format, the SHA-256 of all that follows, the length of a JSON header, the
header, and the bytes of the arrays. The header says which model, MLX and machine computed them: keys and values of
another are other bits. A file that is damaged, foreign or of another version is removed. The files hold what people
said to the model: the folder is made for its owner alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..atomic_file import replacing
from ..errors import RequestError
from ..exactness import Exactness
from ..model import Model

log = logging.getLogger(__name__)

MAGIC = b"orthrus-mlx prefix 1\n"
SUFFIX = ".prefix"
_DIGEST = hashlib.sha256().digest_size
_LENGTH_BYTES = 8
_MOST_HEADER = 64 * 2**20
_PIECE = 2**24


class Spill:
    """A folder of prefixes.

    Args:
        folder: made if need be.
        limit: most bytes of files; the caller removes the oldest beyond it.
        identity: of what computes keys and values (see `identity_of`).

    Attributes:
        nbytes: bytes of the files that are known.

    Raises:
        RequestError: the folder cannot be made.
    """

    def __init__(self, folder: Path, limit: int, identity: str):
        self._folder, self.limit, self._identity = folder, limit, identity
        self._sizes: dict[Path, int] = {}
        self.nbytes = 0
        self._failing = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"{folder}: prefixes cannot be kept there ({error.strerror})") from error

    def found(self) -> list[tuple[Path, tuple[int, ...], int]]:
        """(file, tokens from the beginning of the text, how many of the last ones it holds) of every file of ours."""
        entries = []
        for partial in self._folder.glob(f".*.partial-*{SUFFIX}"):
            partial.unlink(missing_ok=True)
        for file in sorted(self._folder.glob(f"*{SUFFIX}")):
            header = self._header(file)
            if header is None:
                file.unlink(missing_ok=True)
                continue
            self._know(file)
            entries.append((file, tuple(header["tokens"]), header["count"]))
        return entries

    def write(self, tokens: Sequence[int], count: int, rows: Sequence[mx.array]) -> Path | None:
        """Keep `rows` of the last `count` of `tokens`; None where the disk does not take them."""
        header = json.dumps(
            {
                "identity": self._identity,
                "tokens": list(tokens),
                "count": count,
                "arrays": [[str(a.dtype).removeprefix("mlx.core."), list(a.shape)] for a in rows],
            }
        ).encode()
        name = hashlib.sha256(self._identity.encode() + np.array([count, *tokens], np.int64).tobytes()).hexdigest()
        file = self._folder / f"{name[:32]}{SUFFIX}"
        parts: list[bytes | memoryview] = [
            len(header).to_bytes(_LENGTH_BYTES, "little"),
            header,
            *(_bytes_of(a) for a in rows),
        ]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        if sum(map(len, parts)) > self.limit:
            return None
        try:
            with replacing(file) as partial, partial.open("wb") as stream:
                partial.chmod(0o600)
                stream.write(MAGIC + digest.digest())
                for part in parts:
                    stream.write(part)
        except OSError as error:
            if not self._failing:
                log.warning("prefixes cannot be kept on disk in %s: %s", self._folder, error)
            self._failing = True
            return None
        self._failing = False
        self._know(file)
        return file

    def read(self, file: Path, tokens: Sequence[int], count: int) -> list[mx.array] | None:
        """What was written for these `tokens`; None if it is not there as it was."""
        header = self._header(file)
        if header is None or tuple(header["tokens"]) != tuple(tokens) or header["count"] != count:
            return None
        try:
            with file.open("rb") as stream:
                stream.seek(len(MAGIC))
                digest = stream.read(_DIGEST)
                body = stream.read()
            if hashlib.sha256(body).digest() != digest:
                log.warning("%s is damaged and is removed", file)
                return None
            at = _LENGTH_BYTES + int.from_bytes(body[:_LENGTH_BYTES], "little")
            rows = []
            for name, shape in header["arrays"]:
                dtype = getattr(mx, name)
                size = math.prod(shape) * dtype.size
                rows.append(mx.array(np.frombuffer(body, np.uint8, size, at)).view(dtype).reshape(shape))
                at += size
            mx.eval(rows)
            return rows
        except (OSError, ValueError, AttributeError) as error:
            log.warning("%s cannot be read and is removed: %s", file, error)
            return None

    def remove(self, file: Path) -> None:
        """Remove a file, there or not."""
        self.nbytes -= self._sizes.pop(file, 0)
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", file, error)

    def _know(self, file: Path) -> None:
        self.nbytes -= self._sizes.pop(file, 0)
        self._sizes[file] = file.stat().st_size
        self.nbytes += self._sizes[file]

    def _header(self, file: Path) -> dict[str, Any] | None:
        """The header of a file of this format and identity; its bytes are not checked."""
        try:
            with file.open("rb") as stream:
                if stream.read(len(MAGIC)) != MAGIC:
                    return None
                stream.seek(_DIGEST, 1)
                length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
                if not 0 < length <= _MOST_HEADER:
                    return None
                header = json.loads(stream.read(length))
        except (OSError, ValueError):
            return None
        if not isinstance(header, dict) or header.get("identity") != self._identity:
            return None
        tokens, count = header.get("tokens"), header.get("count")
        if not isinstance(tokens, list) or not isinstance(count, int) or not 0 < count <= len(tokens):
            return None
        return header if all(isinstance(token, int) for token in tokens) else None


def identity_of(model: Model, exactness: Exactness, step_size: int) -> str:
    """A digest of everything that the bits of keys and values depend on: weights, kernels, MLX, device, chunks."""
    digest = hashlib.sha256()
    plan = getattr(model, "kernels", None)
    described = [
        model.args.to_dict(),
        str(exactness),
        plan and plan.chosen,
        version("mlx"),
        mx.device_info().get("device_name", ""),
        str(mx.default_device()),
        None if free_position(model, exactness) else step_size,
    ]
    digest.update(json.dumps(described, sort_keys=True, default=dict).encode())
    for name, array in sorted(parameters(model).items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        words = array.reshape(-1).view(mx.uint8)
        for start in range(0, words.size, _PIECE):
            piece = words[start : start + _PIECE].astype(mx.uint32)
            digest.update(str(mx.sum(piece * mx.arange(1, piece.size + 1, dtype=mx.uint32)).item()).encode())
    return digest.hexdigest()


def _bytes_of(array: mx.array) -> memoryview:
    return np.asarray(array.reshape(-1).view(mx.uint8)).data


def parameters(model: Model) -> dict[str, mx.array]:
    """All parameters by name."""
    return cast(dict[str, mx.array], tree_flatten(model.parameters(), destination={}))


def free_position(model: Model, exactness: Exactness) -> bool:
    """Whether a row has the same bits however it was computed: read with a prompt, in any chunks, or decoded.

    The probe shows it for short passes only. On the CPU every pass is computed as short ones are, unless prompts are
    read with another attention than blocks.
    """
    whole = model.model.fused
    same = whole.any_length if whole is not None else model.layers[0].self_attn.block_attention is None
    return same and exactness.kind == "row-exact" and mx.default_device() == mx.cpu
