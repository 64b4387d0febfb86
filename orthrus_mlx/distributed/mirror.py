"""A model whose passes run on all ranks: the leader announces each one, the followers repeat it.

Before a pass the leader tells the followers its blocks, and where in which cache each one stands; also what it
commits to a cache, which they commit to their own. What goes into the first layer comes from the leader within the
graph, so the host waits for nothing. Nobody but the leader sees tokens or logits: whatever it does between passes
(sampling, user code, timing, stopping half-way) needs no agreement.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakKeyDictionary, finalize

import mlx.core as mx
from mlx_lm.generate import wired_limit
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..acceleration import accelerate
from ..cache import KVCache
from ..config import MAX_BLOCK_SIZE
from ..errors import RequestError
from ..hub import resolve
from ..loading import load_model, load_tokenizer, read_config
from ..model import Model, OrthrusModel, Part
from ..weights import AR
from .control import let_the_lost_speak
from .job import Ranks
from .parts import read_part

_CLEAR_EVERY = 256
"""Passes between two releases of MLX's buffer cache on a follower."""


def load(
    path_or_hf_repo: str | Path, ranks: Ranks, *, revision: str | None = None, kernels: str | None = None
) -> tuple[Model, TokenizerWrapper]:
    """`orthrus_mlx.load`, each rank its part. Returns on the leader only; followers follow to the end, and exit.

    Raises:
        CheckpointError: as `orthrus_mlx.load`; also a model that cannot be divided by the number of ranks.
        RanksError: another rank could not load its part; the message says which and why.
        SystemExit: on a follower.
    """
    with ranks.agreement():
        folder = resolve(path_or_hf_repo, revision)
        config = read_config(folder)
        model = load_model(folder, config, read=lambda m, tensors: read_part(ranks, m, tensors))
        accelerate(model, kernels)
        if not ranks.leads:
            # Ctrl-C reaches every rank of a terminal; what it means is the leader's to decide.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not ranks.leads:
        _follow_to_the_end(model, ranks)
    model.model = _LeadingModel.adopting(model.model, ranks)
    return model, load_tokenizer(folder, config)


def _follow_to_the_end(model: Model, ranks: Ranks) -> NoReturn:
    try:
        with wired_limit(model):
            _follow(model, ranks)
    except Exception as error:
        let_the_lost_speak()
        ranks.fail(f"{type(error).__name__}: {error}")
    raise SystemExit(0)


def _follow(model: Model, ranks: Ranks) -> None:
    caches: dict[int, KVCache] = {}
    passes = 0
    while (told := ranks.next()) is not None:
        kind = told["kind"]
        if kind == "commit":
            caches[told["cache"]].commit(told["rows"], told["path"])
            continue
        for number in told["dropped"]:
            caches.pop(number, None)
        nothing = mx.zeros(told["shape"], getattr(mx, told["dtype"]))
        embedded = mx.distributed.all_sum(nothing, group=ranks.group)
        parts = [_part(caches, len(model.layers), *part) for part in told["parts"]]
        if kind == "parts":
            hidden = model.model.parts(embedded, parts, embedded)
        else:
            (part,) = parts
            hidden = model.model(embedded, part.cache or None, input_embeddings=embedded, view=part.view)
        mx.async_eval(hidden)
        passes += 1
        if hidden.shape[1] > MAX_BLOCK_SIZE or passes % _CLEAR_EVERY == 0:
            mx.eval(hidden)
            mx.clear_cache()


def _part(
    caches: dict[int, KVCache],
    layers: int,
    start: int,
    stop: int,
    view: str,
    number: int | None,
    offset: int,
    parents: list[int] | None,
    rows: int | None,
) -> Part:
    """What `_Announcer.part` described, over this rank's cache; no cache is an empty one."""
    if number is None:
        return Part(start, stop, view, ())
    cache = caches.setdefault(number, KVCache(layers))
    cache.trim(cache.offset - offset)
    return Part(start, stop, view, cache, None if parents is None else tuple(parents), rows)


class _LeadingModel(OrthrusModel):
    """The leader's `OrthrusModel`: announces a pass, then runs its part of it."""

    _announcer: _Announcer

    @classmethod
    def adopting(cls, inner: OrthrusModel, ranks: Ranks) -> _LeadingModel:
        leading = cls.__new__(cls)
        leading.__dict__.update(inner.__dict__)
        dict.update(leading, inner)
        leading.__dict__["_announcer"] = _Announcer(ranks)
        return leading

    def __call__(
        self,
        inputs: mx.array,
        cache: Sequence[Any] | None = None,
        input_embeddings: mx.array | None = None,
        view: str = AR,
    ) -> mx.array:
        embedded = self.embed_tokens(inputs) if input_embeddings is None else input_embeddings
        shared = self._announcer.announce("call", embedded, [Part(0, embedded.shape[1], view, cache or ())])
        return _begun(super().__call__(inputs, cache, shared, view))

    def parts(self, inputs: mx.array, parts: Sequence[Part], input_embeddings: mx.array | None = None) -> mx.array:
        embedded = self.embed_tokens(inputs[None]) if input_embeddings is None else input_embeddings
        shared = self._announcer.announce("parts", embedded, parts)
        return _begun(super().parts(inputs, parts, shared))


def _begun(hidden: mx.array) -> mx.array:
    """Announced, a pass must run, and in this order, whether or not its result is ever asked for."""
    mx.async_eval(hidden)
    return hidden


class _Announcer:
    """Numbers the caches that the leader uses, and tells the followers about passes and commits."""

    def __init__(self, ranks: Ranks):
        self._ranks = ranks
        self._numbers: WeakKeyDictionary[KVCache, int] = WeakKeyDictionary()
        self._count = 0
        self._dropped: deque[int] = deque()

    def announce(self, kind: str, embedded: mx.array, parts: Sequence[Part]) -> mx.array:
        """Tell the followers of a pass over rows `embedded` [1, N, hidden]; returns the rows as all ranks see them.

        Raises:
            RequestError: a cache is not this package's, or was not filled by this model.
        """
        described = [self._described(part) for part in parts]
        self._ranks.announce(
            {
                "kind": kind,
                "shape": embedded.shape,
                "dtype": str(embedded.dtype).removeprefix("mlx.core."),
                "parts": described,
                "dropped": [self._dropped.popleft() for _ in range(len(self._dropped))],
            }
        )
        return mx.distributed.all_sum(embedded, group=self._ranks.group)

    def _described(self, part: Part) -> list[Any]:
        if isinstance(part.cache, KVCache):
            place: list[int | None] = [self._number(part.cache), part.cache.offset]
        elif len(part.cache) == 0:
            place = [None, 0]
        else:
            raise RequestError("over several ranks only this package's KVCache can be used")
        return [part.start, part.stop, part.view, *place, part.parents, part.rows]

    def _number(self, cache: KVCache) -> int:
        if cache not in self._numbers:
            if cache.offset:
                raise RequestError("over several ranks a prompt cache cannot be read from elsewhere; start without it")
            self._count += 1
            self._numbers[cache] = self._count
            cache.on_commit = partial(self._commit, self._count)
            # Runs wherever the last reference goes: nothing may be sent from there.
            finalize(cache, self._dropped.append, self._count)
        return self._numbers[cache]

    def _commit(self, number: int, rows: int, path: Sequence[int] | None) -> None:
        told = {"kind": "commit", "cache": number, "rows": rows, "path": None if path is None else list(path)}
        self._ranks.announce(told)
