"""Kernel objects from the text in `metal/`."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import mlx.core as mx


@cache
def text(file: str) -> str:
    """Contents of a file in `metal/`."""
    return (resources.files("orthrus_mlx.metal") / file).read_text()


@cache
def kernel(
    name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], body: tuple[str, ...], header: tuple[str, ...]
) -> Any:
    """A `mx.fast.metal_kernel` whose text is the named files of `metal/`, in order.

    Built on first use, because MLX regenerates and hashes the text at every call of a kernel object anyway
    and a machine without Metal should not pay for any of it.
    """
    return mx.fast.metal_kernel(
        name=f"orthrus_{name}",
        input_names=list(inputs),
        output_names=list(outputs),
        source="".join(text(file) for file in body),
        header="".join(text(file) for file in header),
    )
