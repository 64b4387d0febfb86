"""Which weights are quantised and how: MLX's modes and mlx-lm's rule for choosing modules."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from orthrus_mlx.errors import ConfigError
from orthrus_mlx.loading import MODES

_AFFINE_DEFAULT = {"bits": 4, "group size": 64}  # as in mlx-lm; the other modes leave no choice


@dataclass(frozen=True)
class Quantization:
    """Settings of `mx.quantize`; the keys are those of mlx-lm's `config["quantization"]`."""

    group_size: int
    bits: int
    mode: str

    @classmethod
    def make(cls, mode: str = "affine", bits: int | None = None, group_size: int | None = None) -> Quantization:
        """Fill in the mode's defaults. Raises ConfigError for what MLX does not have."""
        if mode not in MODES:
            raise ConfigError(f"quantisation mode {mode!r} is not supported; expected one of {', '.join(MODES)}")
        groups, widths = MODES[mode]
        chosen = {}
        for what, value, allowed in (("bits", bits, widths), ("group size", group_size, groups)):
            default = _AFFINE_DEFAULT[what] if mode == "affine" else allowed[0]
            chosen[what] = default if value is None else value
            if chosen[what] not in allowed:
                choices = ", ".join(map(str, allowed))
                raise ConfigError(f"quantisation mode {mode} does not take {what} {value}; expected {choices}")
        return cls(chosen["group size"], chosen["bits"], mode)

    @property
    def has_biases(self) -> bool:
        return self.mode == "affine"

    def applies_to(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight is quantised: matrices (Linear, embedding) with whole groups in a row; never a norm."""
        return len(shape) == 2 and shape[-1] % self.group_size == 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
