"""CUDA kernels of a short pass, for NVIDIA GPUs of compute capability 8.0 and up, and their host side.

Like the Metal kernels they give a row the same bits whatever rows travel with it, and they read each weight once. All
layers are one launch: with a launch per operation, preparing them took the host longer than they took the device
(docs/performance.md).
"""

from .operations import (
    MAX_ROWS,
    LayerShape,
    Turns,
    layer_arrays,
    layers,
    layers_per_launch,
    linear,
    settings,
    supports,
)

__all__ = [
    "MAX_ROWS",
    "LayerShape",
    "Turns",
    "layer_arrays",
    "layers",
    "layers_per_launch",
    "linear",
    "settings",
    "supports",
]
