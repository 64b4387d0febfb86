"""The converter: a Hugging Face Orthrus or Qwen3 checkpoint to a verified MLX folder (docs/converter.md)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .converter import Conversion, Progress, convert

__all__ = ["Conversion", "Progress", "convert"]


def __getattr__(name: str) -> Any:
    # MLX, NumPy and the hub's client are half a second of import, which declaring the command's flags does without.
    if name in __all__:
        return getattr(import_module(".converter", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
