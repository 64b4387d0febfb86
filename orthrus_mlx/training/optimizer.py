"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) as one pure function over flat parameter dictionaries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx

from .parameters import Parameters


@dataclass(frozen=True)
class AdamW:
    """Settings; weight decay spares vectors (norm weights)."""

    weight_decay: float
    clip: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8

    def update(
        self,
        parameters: Parameters,
        gradients: Parameters,
        first: Parameters,
        second: Parameters,
        learning_rate: mx.array,
        step: mx.array,
    ) -> tuple[Parameters, Parameters, Parameters, mx.array]:
        """One step, with the gradients clipped to the global norm `clip`; all arrays fp32.

        `first` and `second` are the moments; `step` is a scalar that counts from 1. Returns the new
        parameters, both new moments, and the norm before clipping.
        """
        norm = mx.sqrt(sum((g.square().sum() for g in gradients.values()), start=mx.array(0.0)))
        shrink = mx.minimum(self.clip / (norm + 1e-6), 1.0)
        correction1 = 1 - self.beta1**step
        correction2 = 1 - self.beta2**step
        new: Parameters = {}
        new_first: Parameters = {}
        new_second: Parameters = {}
        for name, parameter in parameters.items():
            g = gradients[name] * shrink
            new_first[name] = self.beta1 * first[name] + (1 - self.beta1) * g
            new_second[name] = self.beta2 * second[name] + (1 - self.beta2) * g.square()
            change = (new_first[name] / correction1) / (mx.sqrt(new_second[name] / correction2) + self.epsilon)
            decay = self.weight_decay if parameter.ndim > 1 else 0.0
            new[name] = parameter - learning_rate * (change + decay * parameter)
        return new, new_first, new_second, norm


def cosine_schedule(step: int, steps: int, peak: float, warmup: float = 0.05, final: float = 0.1) -> float:
    """Learning rate of `step` (from 0): linear warm-up over a share of the steps, then cosine to `final * peak`."""
    warm = max(int(steps * warmup), 1)
    if step < warm:
        return peak * (step + 1) / warm
    progress = (step - warm) / max(steps - warm, 1)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))
