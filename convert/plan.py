"""What will be written, decided before a weight is read: files, tensors, dtypes, shapes, bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from orthrus_mlx.errors import CheckpointError
from orthrus_mlx.safetensors_file import BACKBONE, DIFFUSION, DTYPE_BITS, TensorEntry, quoted
from orthrus_mlx.weights import is_diffusion

from .quantization import Quantization

FLOATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
"""Dtypes of weights that can be read and written: safetensors' name to MLX's."""


@dataclass(frozen=True)
class OutputTensor:
    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True)
class WeightPlan:
    """One source tensor and what becomes of it: cast to `dtype`, then quantised if `quantization` is set."""

    source: TensorEntry
    dtype: str
    quantization: Quantization | None

    @property
    def outputs(self) -> tuple[OutputTensor, ...]:
        """The tensors written, in the order `mx.quantize` returns them."""
        name, shape, q = self.source.name, self.source.shape, self.quantization
        if q is None:
            return (OutputTensor(name, self.dtype, shape),)
        rows, columns = shape
        path = module_path(name)
        groups = (rows, columns // q.group_size)
        weight = OutputTensor(name, "U32", (rows, columns * q.bits // 32))
        if q.has_biases:
            scales = OutputTensor(f"{path}.scales", self.dtype, groups)
            return weight, scales, OutputTensor(f"{path}.biases", self.dtype, groups)
        return weight, OutputTensor(f"{path}.scales", "U8", groups)

    @property
    def nbytes(self) -> int:
        return sum(output.nbytes for output in self.outputs)


@dataclass(frozen=True)
class Constant:
    """A small tensor that no source tensor becomes: written as it is."""

    output: OutputTensor
    data: bytes


@dataclass(frozen=True)
class FilePlan:
    name: str
    weights: tuple[WeightPlan, ...]
    constants: tuple[Constant, ...] = ()

    @property
    def outputs(self) -> list[OutputTensor]:
        made = [output for weight in self.weights for output in weight.outputs]
        return made + [constant.output for constant in self.constants]

    @property
    def nbytes(self) -> int:
        return sum(output.nbytes for output in self.outputs)


def module_path(tensor_name: str) -> str:
    """The module a weight belongs to, as mlx-lm's quantisation settings name it."""
    return tensor_name.removesuffix(".weight")


def plan_weights(
    tensors: Iterable[TensorEntry],
    dtype: str | None,
    quantization: Quantization | None,
    diff_quantization: Quantization | None,
) -> list[WeightPlan]:
    """Decide each tensor's form; `dtype` None keeps the tensor's own.

    Raises:
        CheckpointError: a source tensor that is not bf16, fp16 or fp32.
    """
    weights = []
    for tensor in tensors:
        if tensor.dtype not in FLOATS:
            raise CheckpointError(
                f"{tensor.file}: tensor {quoted(tensor.name)} is {tensor.dtype}; expected one of {', '.join(FLOATS)}"
            )
        chosen = diff_quantization if is_diffusion(tensor.name) else quantization
        applies = chosen is not None and chosen.applies_to(tensor.shape)
        weights.append(WeightPlan(tensor, dtype or tensor.dtype, chosen if applies else None))
    return weights


def plan_files(
    weights: Iterable[WeightPlan], side_car: bool, max_shard_bytes: int, constants: tuple[Constant, ...] = ()
) -> list[FilePlan]:
    """Assign weights to files in order: `model*.safetensors`, and with `side_car` the diffusion set apart.

    `constants` go into the last file, which holds diffusion weights where there are any.
    """
    families: Mapping[str, list[WeightPlan]] = {BACKBONE: [], DIFFUSION: []}
    for weight in weights:
        families[DIFFUSION if side_car and is_diffusion(weight.source.name) else BACKBONE].append(weight)
    *files, last = (file for family, members in families.items() for file in _shard(family, members, max_shard_bytes))
    return [*files, replace(last, constants=constants)]


def _shard(family: str, weights: list[WeightPlan], max_bytes: int) -> list[FilePlan]:
    shards: list[list[WeightPlan]] = []
    room = 0
    for weight in weights:
        if not shards or weight.nbytes > room:
            shards.append([])
            room = max_bytes
        shards[-1].append(weight)
        room -= weight.nbytes
    if len(shards) == 1:
        return [FilePlan(f"{family}.safetensors", tuple(shards[0]))]
    return [
        FilePlan(f"{family}-{i:05d}-of-{len(shards):05d}.safetensors", tuple(shard))
        for i, shard in enumerate(shards, start=1)
    ]
