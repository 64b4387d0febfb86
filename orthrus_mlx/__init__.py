"""Lossless block-diffusion decoding of Orthrus-Qwen3 models with MLX."""

__version__ = "0.1.0"
