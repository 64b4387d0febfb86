"""Which weights are quantised and how: MLX's modes and mlx-lm's rule for choosing modules."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from orthrus_mlx.errors import ConfigError
from orthrus_mlx.weights import QUANTIZATION_MODES

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
        if mode not in QUANTIZATION_MODES:
            raise ConfigError(
                f"quantisation mode {mode!r} is not supported; expected one of {', '.join(QUANTIZATION_MODES)}"
            )
        groups, widths = QUANTIZATION_MODES[mode]
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
        # nvfp4 has groups of 16, but MLX 0.32.4 cannot quantise an odd number of them; no mode minds whole 32s.
        return len(shape) == 2 and shape[-1] % max(self.group_size, 32) == 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


_Settings = tuple[str | None, int | None, int | None]


def choose(
    quantize: bool, own: _Settings, diff_quantize: bool | None, diff: _Settings
) -> tuple[Quantization | None, Quantization | None]:
    """(backbone's, diffusion weights') settings; None where not quantised. Settings are (mode, bits, group size).

    The diffusion weights follow the backbone unless `diff_quantize` is False or `diff` says something.

    Raises:
        ConfigError: contradicting options, or settings that MLX does not have.
    """
    nothing = (None, None, None)
    if not quantize and own != nothing:
        raise ConfigError("--q-bits, --q-group-size and --q-mode need --quantize")
    if diff_quantize is False and diff != nothing:
        raise ConfigError("--diff-no-quantize contradicts --diff-q-bits, --diff-q-group-size and --diff-q-mode")
    quantization = _make(own) if quantize else None
    if diff_quantize is False:
        return quantization, None
    if diff != nothing:
        return quantization, _make(diff)
    return quantization, quantization or (_make(nothing) if diff_quantize else None)


def _make(settings: _Settings) -> Quantization:
    mode, bits, group_size = settings
    return Quantization.make(mode or "affine", bits, group_size)
