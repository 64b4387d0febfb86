"""CUDA kernels of a short pass, for NVIDIA GPUs of compute capability 8.0 and up, and their host side.

Like the Metal kernels they give a row the same bits whatever rows travel with it, and they read each weight once.
MLX's own way there costs a pass of several rows two to three times as many launches, and plans every attention
anew whenever the context has grown (docs/performance.md).
"""

from .operations import MAX_ROWS, attention, linear, rotate, settings, supports

__all__ = ["MAX_ROWS", "attention", "linear", "rotate", "settings", "supports"]
