"""Lossless block-diffusion decoding of Orthrus-Qwen3 models with MLX.

from orthrus_mlx import load_model_and_tokenizer, mlx_generate

model, tokenizer = load_model_and_tokenizer("chiennv/Orthrus-Qwen3-1.7B")
prompt_tokens = tokenizer.encode("If a rectangle has length 12 and width 7, what is its area?")
for token in mlx_generate(model, prompt_tokens, tokenizer.eos_token_id, max_tokens=128):
    print(tokenizer.decode([token]), end="", flush=True)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cache import KVCache
    from .decoding.stats import DecodeStats
    from .errors import CheckpointError, ConfigError, OrthrusError, RequestError, TrainingError
    from .exactness import exactness_of
    from .generation import GenerationResponse, generate, mlx_generate, stream_generate
    from .loading import demo_folder, load, load_model_and_tokenizer
    from .sampling import Sampling

__version__ = "0.1.0"

_HOME = {
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DecodeStats": "decoding.stats",
    "GenerationResponse": "generation",
    "KVCache": "cache",
    "OrthrusError": "errors",
    "RequestError": "errors",
    "Sampling": "sampling",
    "TrainingError": "errors",
    "demo_folder": "loading",
    "exactness_of": "exactness",
    "generate": "generation",
    "load": "loading",
    "load_model_and_tokenizer": "loading",
    "mlx_generate": "generation",
    "stream_generate": "generation",
}
__all__ = [
    "CheckpointError",
    "ConfigError",
    "DecodeStats",
    "GenerationResponse",
    "KVCache",
    "OrthrusError",
    "RequestError",
    "Sampling",
    "TrainingError",
    "demo_folder",
    "exactness_of",
    "generate",
    "load",
    "load_model_and_tokenizer",
    "mlx_generate",
    "stream_generate",
]


def __getattr__(name: str) -> Any:
    # mlx-lm pulls in transformers, a second of import: `orthrus-mlx --help` and the converter do without it.
    if name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
