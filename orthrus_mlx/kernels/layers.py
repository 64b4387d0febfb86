"""Linear layers whose passes run on `block_linear` (up to 32 rows; prefill stays with MLX).

They are the layers that they replace, with the same parameters under the same names, so saving, sharding and
counting see no difference.
"""

from __future__ import annotations

from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn

from .linear import MAX_ROWS, LinearWeight, block_linear

Layer = TypeVar("Layer", bound=nn.Module)


def linear_weight(layer: nn.Module) -> LinearWeight | None:
    """The weight of a linear layer or of an embedding that may serve as one; None for other modules.

    A layer with a bias has no kernel, and neither has a subclass, which may compute something else.
    """
    if type(layer) in _DENSE:
        return None if "bias" in layer else LinearWeight(layer["weight"])
    if type(layer) in _QUANTIZED:
        settings = layer.group_size, layer.bits, layer.mode
        return (
            None if "bias" in layer else LinearWeight(layer["weight"], layer["scales"], layer.get("biases"), *settings)
        )
    return None


def with_kernels(layer: nn.Module, family: str) -> nn.Module:
    """`layer`, one that `linear_weight` knows, computing as `family` does."""
    stock = next(kind for kind in _REPLACEMENTS if isinstance(layer, kind))
    return _adopted(_REPLACEMENTS[stock], layer, family)


class BlockLinear(nn.Linear):
    _family: str

    def __call__(self, x: mx.array) -> mx.array:
        return _short(self, x) if x.size <= MAX_ROWS * x.shape[-1] else super().__call__(x)


class BlockQuantizedLinear(nn.QuantizedLinear):
    _family: str

    def __call__(self, x: mx.array) -> mx.array:
        return _short(self, x) if x.size <= MAX_ROWS * x.shape[-1] else super().__call__(x)


class BlockEmbedding(nn.Embedding):
    _family: str

    def as_linear(self, x: mx.array) -> mx.array:
        return _short(self, x) if x.size <= MAX_ROWS * x.shape[-1] else super().as_linear(x)


class BlockQuantizedEmbedding(nn.QuantizedEmbedding):
    _family: str

    def as_linear(self, x: mx.array) -> mx.array:
        return _short(self, x) if x.size <= MAX_ROWS * x.shape[-1] else super().as_linear(x)


_DENSE = (nn.Linear, nn.Embedding, BlockLinear, BlockEmbedding)
_QUANTIZED = (nn.QuantizedLinear, nn.QuantizedEmbedding, BlockQuantizedLinear, BlockQuantizedEmbedding)
_REPLACEMENTS: dict[Any, Any] = {
    nn.Linear: BlockLinear,
    nn.QuantizedLinear: BlockQuantizedLinear,
    nn.Embedding: BlockEmbedding,
    nn.QuantizedEmbedding: BlockQuantizedEmbedding,
}


def _short(layer: Any, x: mx.array) -> mx.array:
    weight = linear_weight(layer)
    assert weight is not None
    return block_linear(x, weight, layer._family)


def _adopted(replacement: type[Layer], layer: nn.Module, family: str) -> Layer:
    new = replacement.__new__(replacement)
    new.__dict__.update(layer.__dict__)
    dict.update(new, layer)
    new.__dict__["_family"] = family
    return new
