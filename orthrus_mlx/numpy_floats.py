"""MLX's arrays in NumPy's hands, bfloat16 included, which NumPy does not have."""

from __future__ import annotations

import mlx.core as mx
import numpy as np


def numpy_view(array: mx.array) -> np.ndarray:
    """The memory of `array`, computed if it was not, as NumPy's; bfloat16 as its bits, uint16."""
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array, copy=False)


def widened(narrow: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """`wide` float32, filled with `narrow`, which is as `numpy_view` gives it."""
    if narrow.dtype != np.uint16:
        wide[...] = narrow
        return wide
    bits = wide.view(np.uint32)
    bits[...] = narrow
    return np.left_shift(bits, 16, out=bits).view(np.float32)


def narrowed(wide: np.ndarray, narrow: np.ndarray) -> None:
    """Round `wide` float32 into `narrow`, which is as `numpy_view` gives it."""
    if narrow.dtype != np.uint16:
        narrow[...] = wide
        return
    bits = wide.view(np.uint32)
    # To the nearest, and from the middle to the even one.
    narrow[...] = (bits + ((bits >> 16 & 1) + np.uint32(0x7FFF))) >> 16
