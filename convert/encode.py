"""Raw rows of a weight to the bytes that are written: finite check, cast, quantise."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from orthrus_mlx.errors import CheckpointError

from .plan import FLOATS, WeightPlan

# The exponent bits of each float format: all set means Inf or NaN. NumPy has no bfloat16, its bits will do.
_EXPONENT: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "BF16": (np.uint16, 0x7F80),
    "F16": (np.uint16, 0x7C00),
    "F32": (np.uint32, 0x7F800000),
}


def is_finite(raw: bytes, dtype: str) -> bool:
    """Whether a buffer of BF16, F16 or F32 values has neither NaN nor Inf."""
    bits, mask = _EXPONENT[dtype]
    exponents = np.frombuffer(raw, bits) & bits(mask)
    return exponents.size == 0 or int(exponents.max()) != mask


def encode_rows(raw: bytes, rows: int, weight: WeightPlan) -> list[bytes]:
    """The bytes of each of `weight.outputs` for `rows` whole rows of the source. Rows are independent of each other.

    Raises:
        CheckpointError: NaN or Inf in the source, or a value that the target dtype cannot hold.
    """
    source = weight.source
    if not is_finite(raw, source.dtype):
        raise CheckpointError(f"{source.file}: tensor {source.name} contains NaN or Inf")
    if weight.quantization is None and weight.dtype == source.dtype:
        return [raw]
    array = _to_array(raw, source.dtype, (rows, *source.shape[1:])).astype(getattr(mx, FLOATS[weight.dtype]))
    arrays = [array] if weight.quantization is None else list(mx.quantize(array, **weight.quantization.to_dict()))
    encoded = [_to_bytes(a) for a in arrays]
    for data, output in zip(encoded, weight.outputs, strict=True):
        if output.dtype in FLOATS and not is_finite(data, output.dtype):
            raise CheckpointError(
                f"{source.file}: tensor {source.name} overflows {FLOATS[output.dtype]}; use --dtype bfloat16 or float32"
            )
    return encoded


def _to_array(raw: bytes, dtype: str, shape: tuple[int, ...]) -> mx.array:
    if dtype == "BF16":
        return mx.array(np.frombuffer(raw, np.uint16).reshape(shape)).view(mx.bfloat16)
    return mx.array(np.frombuffer(raw, np.float16 if dtype == "F16" else np.float32).reshape(shape))


def _to_bytes(array: mx.array) -> bytes:
    return np.array(array.view(mx.uint8)).tobytes()
