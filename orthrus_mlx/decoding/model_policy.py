"""The policy of a request on a loaded model, and what the model's requests share: pass costs and what was learned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import cast

import mlx.core as mx
from mlx.utils import tree_flatten

from ..cache import CHUNK, KVCache
from ..config import MAX_BLOCK_SIZE
from ..errors import OrthrusError
from ..exactness import Exactness, trees_agree
from ..kernels.tuning import recall, remember
from ..model import Model, OrthrusModel
from ..passes import Block, run_pass
from ..weights import AR, DIFFUSION
from .auto_policy import AutoPolicy
from .costs import AR as AR_PASS
from .costs import CostTable
from .measure_costs import CONTEXTS, measure_costs
from .policy import FixedPolicy
from .policy_memory import PolicyMemory
from .steps import Policy

CACHE_BYTES = 256 * 2**20
"""Most bytes of cached keys and values that passes are timed with; longer contexts are extrapolated."""


def make_policy(
    model: Model, mode: str, block_rows: int, exactness: Exactness, *, prompt: Sequence[int], sampled: bool
) -> Policy:
    """The policy of a decoding mode: "ar", "diffusion" or "auto".

    Args:
        block_rows: most rows of a pass; 1 where there is no diffusion view.
        prompt: what the text goes on from.
        sampled: whether tokens are drawn, not the likeliest.
    """
    if mode != "auto" or block_rows == 1:
        return FixedPolicy(block_rows if mode == "diffusion" else 1)
    return AutoPolicy(
        costs_of(model, exactness),
        memory_of(model),
        block_rows=exactness.most(block_rows),
        prompt=prompt,
        padded=exactness.padded,
        trees=_takes_trees(model) and trees_agree(model, exactness),
        sampled=sampled,
    )


def _takes_trees(model: Model) -> bool:
    """Whether attention takes a tree in one piece.

    Stock MLX and the CPU attend to every path by itself, which costs what trees save: on the demo model and a CPU
    `auto` without trees was up to 1.2 times as fast.
    """
    attention = model.kernels.attention if hasattr(model, "kernels") else None
    return attention is not None


def memory_of(model: Model) -> PolicyMemory:
    """What the model's texts taught, one object per loaded model."""
    found = getattr(model, "_policy_memory", None)
    if found is None:
        found = model._policy_memory = PolicyMemory()
    return found


def forget(model: Model) -> None:
    """Drop what the model's texts taught, as a new process would; pass costs stay."""
    model._policy_memory = PolicyMemory()


def costs_of(model: Model, exactness: Exactness) -> CostTable:
    """The model's pass costs: measured once per machine, kept on disk, corrected while the model is loaded."""
    tables = getattr(model, "_pass_costs", None)
    if tables is None:
        tables = model._pass_costs = {}
    if exactness.rows not in tables:
        tables[exactness.rows] = _recalled_or_measured(model, exactness)
    return tables[exactness.rows]


def _recalled_or_measured(model: Model, exactness: Exactness) -> CostTable:
    what = f"passes of {_fingerprint(model)}, padded to {exactness.rows}"
    entry = recall(what)
    if entry is not None:
        with suppress(OrthrusError):
            return CostTable.from_dict(entry)
    args = model.args
    attention = model.layers[0].self_attn
    row_bytes = 2 * len(model.layers) * attention.n_kv_heads * attention.head_dim * _dtype(model).size
    fitting = min(CACHE_BYTES // row_bytes, args.context_length - MAX_BLOCK_SIZE)
    if type(model.model) is not OrthrusModel:
        # A model divided among machines has caches elsewhere, too, that cannot be filled from here.
        fitting = 0
    table, settled = measure_costs(
        _runner(model, exactness),
        most_rows=exactness.most(MAX_BLOCK_SIZE),
        draft_rows=MAX_BLOCK_SIZE if args.has_diffusion_view else 1,
        padded=exactness.padded,
        contexts=[context for context in CONTEXTS if context <= fitting],
    )
    if settled:
        remember(what, table.to_dict())
    return table


def _fingerprint(model: Model) -> str:
    """Names what decides a pass's cost: shapes and formats of all weights, and the layers that compute with them."""
    digest = hashlib.sha256()
    for name, array in cast(list[tuple[str, mx.array]], tree_flatten(model.parameters())):
        digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
    for name, module in model.named_modules():
        digest.update(f"{name} {type(module).__name__} {getattr(module, 'family', '')}\n".encode())
    plan = getattr(model, "kernels", None)
    digest.update(f"{plan and plan.chosen} {mx.default_device()} {getattr(model.draft_head, 'size', None)}".encode())
    return digest.hexdigest()[:16]


def _runner(model: Model, exactness: Exactness) -> Callable[[str, int, int], None]:
    caches: dict[int, KVCache] = {}
    masks = mx.full((MAX_BLOCK_SIZE,), model.args.mask_token_id or 0, dtype=mx.int32)
    mx.eval(masks)

    def run(view: str, rows: int, context: int) -> None:
        if rows == 0:
            mx.eval(masks + 1)
            return
        if context not in caches:
            caches[context] = _filled(model, context)
        block = Block(caches[context], masks[:rows], AR if view == AR_PASS else DIFFUSION)
        (logits,) = run_pass(model, [block], exactness.rows)
        mx.eval(mx.argmax(logits, axis=-1))

    return run


def _filled(model: Model, context: int) -> KVCache:
    """A cache of `context` rows of zeros."""
    cache = KVCache(len(model.layers))
    cache.offset = context
    if context:
        rows = -(-(context + MAX_BLOCK_SIZE) // CHUNK) * CHUNK
        attention = model.layers[0].self_attn
        shape = (1, attention.n_kv_heads, rows, attention.head_dim)
        for layer in cache.layers:
            layer.keys, layer.values = mx.zeros(shape, _dtype(model)), mx.zeros(shape, _dtype(model))
        mx.eval(cache.arrays)
    return cache


def _dtype(model: Model) -> mx.Dtype:
    return model.model.norm.weight.dtype
