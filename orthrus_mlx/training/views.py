"""Both views' forward passes as training needs them: packed rows, and many blocks per row.

Shapes: B rows, L tokens per row, A anchors per row, K block size, H query heads, G key/value heads,
R = H / G, D head_dim.
"""

from __future__ import annotations

import mlx.core as mx

from ..model import DIFFUSION, Model

KeysValues = tuple[mx.array, mx.array]


class _Recorder:
    """Stands in for one layer's cache: keeps the keys and values [B, G, L, D] of a pass from position 0."""

    offset = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KeysValues:
        self.prefix = keys, values
        return keys, values


def packed_mask(segments: mx.array, dtype: mx.Dtype) -> mx.array:
    """Additive mask [B, 1, L, L] of rows whose documents are `segments` [B, L]: causal, within a document."""
    positions = mx.arange(segments.shape[1])
    causal = positions[:, None] >= positions[None, :]
    same = segments[:, :, None] == segments[:, None, :]
    return mx.where(causal & same, 0.0, -mx.inf).astype(dtype)[:, None]


def packed_pass(
    model: Model, tokens: mx.array, segments: mx.array, embeddings: mx.array | None = None
) -> tuple[mx.array, list[KeysValues]]:
    """The AR view over packed rows.

    Positions run on through the row; as rotary embeddings are relative, each document sees what it would
    see alone. Returns hidden states [B, L, hidden] and each layer's keys and values [B, G, L, D].
    """
    h = model.model.embed_tokens(tokens) if embeddings is None else embeddings
    mask = packed_mask(segments, h.dtype)
    recorders = [_Recorder() for _ in model.layers]
    for layer, recorder in zip(model.layers, recorders, strict=True):
        h = layer(h, mask, recorder)
    return model.model.norm(h), [r.prefix for r in recorders]


def visible_prefix(anchors: mx.array, segments: mx.array) -> mx.array:
    """Which keys each block may see [B, A, L]: those of the anchor's document, strictly before the anchor."""
    own = mx.take_along_axis(segments, anchors, axis=1)
    before = mx.arange(segments.shape[1]) < anchors[..., None]
    return before & (segments[:, None, :] == own[..., None])


def block_pass(
    model: Model,
    blocks: mx.array,
    anchors: mx.array,
    prefix: list[KeysValues],
    visible: mx.array,
    embeddings: mx.array | None = None,
) -> mx.array:
    """The diffusion view over token ids `blocks` [B, A, K] standing at positions `anchors` [B, A].

    A block attends to the AR keys that `visible` [B, A, L] names and to itself in both directions; blocks do
    not see each other. Returns hidden states [B, A, K, hidden].
    """
    B, A, K = blocks.shape
    offsets = anchors.reshape(-1)
    x = model.model.embed_tokens(blocks) if embeddings is None else embeddings
    x = x.reshape(B * A, K, -1)
    for layer, (keys, values) in zip(model.layers, prefix, strict=True):
        attention = layer.self_attn
        q, k, v = attention.qkv(layer.input_layernorm(x), offsets, DIFFUSION)
        attended = _block_attention(q, k, v, keys, values, visible, attention.scale)
        x = x + attention.output(attended, DIFFUSION)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.model.norm(x).reshape(B, A, K, -1)


def _block_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    prefix_keys: mx.array,
    prefix_values: mx.array,
    visible: mx.array,
    scale: float,
) -> mx.array:
    """Attention of q [B*A, H, K, D] over prefix [B, G, L, D] and own k, v [B*A, G, K, D]; same shape as q.

    Scores against the prefix and against the block are two products under one softmax, so nothing of the size
    (A K) x (L + A K) is ever built; the heads of a group are stacked so that no key is repeated.
    """
    B, A, L = visible.shape
    _, H, K, D = q.shape
    G = k.shape[1]
    rows = H // G * K
    q = (q * scale).reshape(B, A, G, rows, D).transpose(0, 2, 1, 3, 4)
    k, v = (t.reshape(B, A, G, K, D).transpose(0, 2, 1, 3, 4) for t in (k, v))
    to_prefix = (q.reshape(B, G, A * rows, D) @ prefix_keys.swapaxes(-1, -2)).reshape(B, G, A, rows, L)
    to_prefix = mx.where(visible[:, None, :, None, :], to_prefix, mx.array(-mx.inf, to_prefix.dtype))
    to_block = q @ k.swapaxes(-1, -2)
    weights = mx.softmax(mx.concatenate([to_prefix, to_block], axis=-1), axis=-1, precise=True)
    from_prefix = weights[..., :L].reshape(B, G, A * rows, L) @ prefix_values
    attended = from_prefix.reshape(B, G, A, rows, D) + weights[..., L:] @ v
    return attended.transpose(0, 2, 1, 3, 4).reshape(B * A, H, K, D)
