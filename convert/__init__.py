"""The converter: a Hugging Face Orthrus or Qwen3 checkpoint to a verified MLX folder (docs/converter.md)."""

from .converter import LAYOUTS, Conversion, Progress, convert

__all__ = ["LAYOUTS", "Conversion", "Progress", "convert"]
