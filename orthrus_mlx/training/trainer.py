"""The training loop both kinds of run share: one compiled step, checkpoints that resume to the bit.

Everything a step needs follows from (settings, data, seed, step): which rows, which random numbers, which
learning rate. A checkpoint is the parameters, both moments, the step and the half-filled metrics window.
"""

from __future__ import annotations

import json
import math
import signal
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np

from ..atomic_file import replacing
from ..errors import TrainingError
from .data import BatchOrder, Rows
from .optimizer import AdamW, cosine_schedule
from .parameters import Parameters
from .report import Report, draw_curves

Batch = tuple[mx.array, mx.array, mx.array]
"""Tokens, segments and answers, each [B, L]."""

Metrics = dict[str, mx.array]
"""Each [2, ..]: what is summed over steps, and the count it is divided by."""

Loss = Callable[[Parameters, Batch, mx.array], tuple[mx.array, Metrics]]
"""(parameters in fp32, batch, random key) -> (scalar, metrics)."""

STATE_FILE = "state.safetensors"
_CHECKPOINT_SECONDS = 300.0


@dataclass(frozen=True)
class Settings:
    """What a run is made of; a checkpoint continues only under the same ones.

    `log_every`: steps averaged into one line of metrics.
    """

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    seed: int = 0
    log_every: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise TrainingError(f"learning_rate must be a positive number, not {self.learning_rate}")


class Trainer:
    """Trains `parameters` (flat, fp32) on `rows`.

    `identity` names what else the result depends on (the kind of run, the base model's fingerprint).
    `folder` receives the checkpoint, the metrics and the curves. `compiled` fuses the whole step with `mx.compile`;
    without it the optimizer's update alone is.
    """

    def __init__(
        self,
        name: str,
        parameters: Parameters,
        loss: Loss,
        rows: Rows,
        settings: Settings,
        folder: Path,
        identity: dict[str, Any] | None = None,
        *,
        compiled: bool = True,
    ):
        self.name, self.settings, self.folder = name, settings, folder
        self.parameters = parameters
        self.first = {k: mx.zeros_like(v) for k, v in parameters.items()}
        self.second = {k: mx.zeros_like(v) for k, v in parameters.items()}
        self.step = 0
        self._window: dict[str, np.ndarray] = {}
        self._rows = rows
        self._order = BatchOrder(len(rows), settings.batch_size, settings.seed)
        self._identity = {
            "run": name,
            **asdict(settings),
            "rows": f"{rows.tokens.shape} crc {zlib.crc32(np.ascontiguousarray(rows.tokens).data):08x}",
            **(identity or {}),
        }
        adamw = AdamW(settings.weight_decay)
        self._update = adamw.update if compiled else mx.compile(adamw.update)
        self._loss = loss
        self._step = mx.compile(self._one_step) if compiled else self._one_step
        folder.mkdir(parents=True, exist_ok=True)

    def _one_step(self, parameters, first, second, batch, key, learning_rate, count):
        gradient = mx.value_and_grad(self._loss)
        (loss, metrics), gradients = gradient(parameters, batch, key)
        parameters, first, second, norm = self._update(parameters, gradients, first, second, learning_rate, count)
        one = mx.array(1.0)
        metrics = {
            "loss": mx.stack([loss, one]),
            **metrics,
            "gradient_norm": mx.stack([norm, one]),
        }
        return parameters, first, second, metrics

    def run(self, stop_after_minutes: float | None = None) -> bool:
        """Train to the last step, or stop early with a checkpoint. Returns whether the run is finished.

        Ctrl-C finishes the step, writes a checkpoint, and is then passed on.

        Raises:
            TrainingError: the loss is not finite any more; the last checkpoint is left as it is.
        """
        deadline = math.inf if stop_after_minutes is None else time.monotonic() + 60 * stop_after_minutes
        saved = time.monotonic()
        pending: Metrics | None = None
        with Report(self.folder, self.name, self.settings.steps, self.step) as report, _Interrupt() as interrupt:
            while self.step < self.settings.steps:
                metrics = self._advance()
                # The device works on this step while the host waits for, and books, the one before.
                if pending is not None:
                    self._book(pending, self.step - 1, report)
                pending = metrics
                now = time.monotonic()
                last = self.step == self.settings.steps or now >= deadline or interrupt.requested
                if last or now - saved > _CHECKPOINT_SECONDS:
                    self._book(pending, self.step, report)
                    pending = None
                    self.save()
                    saved = time.monotonic()
                if last:
                    break
        if interrupt.requested:
            raise KeyboardInterrupt
        if self.step < self.settings.steps:
            return False
        draw_curves(self.folder, self.name)
        return True

    def _advance(self) -> Metrics:
        s = self.settings
        rows = self._order(self.step)
        batch = tuple(
            mx.array(a[rows].astype(np.int32)) for a in (self._rows.tokens, self._rows.segments, self._rows.answers)
        )
        key = mx.array([s.seed & 0xFFFFFFFF, self.step], mx.uint32)
        rate = mx.array(cosine_schedule(self.step, s.steps, s.learning_rate), mx.float32)
        count = mx.array(self.step + 1, mx.float32)
        state = self._step(self.parameters, self.first, self.second, batch, key, rate, count)
        self.parameters, self.first, self.second, metrics = state
        mx.async_eval(self.parameters, self.first, self.second, metrics)
        self.step += 1
        return metrics

    def _book(self, metrics: Metrics, step: int, report: Report) -> None:
        """Add a step's metrics to the window; at its end, log the averages."""
        for name, value in metrics.items():
            self._window[name] = self._window.get(name, 0.0) + np.array(value, dtype=np.float64)
        if not np.isfinite(self._window["loss"]).all():
            raise TrainingError(f"{self.name}: the loss is not finite at step {step}; lower --learning-rate")
        if step % self.settings.log_every == 0 or step == self.settings.steps:
            averages = {k: np.round(v[0] / np.maximum(v[1], 1e-9), 6) for k, v in self._window.items()}
            report.log({"step": step, **{k: v.tolist() for k, v in averages.items()}})
            self._window = {}

    def save(self) -> None:
        """Write the checkpoint, atomically."""
        arrays = {
            **{f"parameters.{k}": v for k, v in self.parameters.items()},
            **{f"first.{k}": v for k, v in self.first.items()},
            **{f"second.{k}": v for k, v in self.second.items()},
        }
        window = {k: v.tolist() for k, v in self._window.items()}
        metadata = {"step": self.step, "window": window, "identity": self._identity}
        write_safetensors(self.folder / STATE_FILE, arrays, {"orthrus_training": json.dumps(metadata)})

    def resume(self) -> bool:
        """Continue from the folder's checkpoint; False when there is none.

        Raises:
            TrainingError: the file is damaged, or belongs to a run with other settings, data or model.
        """
        path = self.folder / STATE_FILE
        if not path.exists():
            return False
        try:
            arrays, metadata = cast(Any, mx.load(str(path), return_metadata=True))
            state = json.loads(metadata["orthrus_training"])
            step, window, identity = int(state["step"]), dict(state["window"]), dict(state["identity"])
        except Exception as error:
            # mx.load raises whatever the reader of a damaged file meets first.
            raise TrainingError(
                f"{path}: not a readable training checkpoint ({error}); delete it to start again"
            ) from error
        for name, now in self._identity.items():
            if identity.get(name) != now:
                raise TrainingError(
                    f"{path}: made with {name} = {identity.get(name)!r}, this run has {now!r}; "
                    f"use the same settings or another output folder"
                )
        for group in ("parameters", "first", "second"):
            current = getattr(self, group)
            for name, array in current.items():
                saved = arrays.get(f"{group}.{name}")
                if saved is None or saved.shape != array.shape:
                    raise TrainingError(
                        f"{path}: lacks {group}.{name} of shape {array.shape}; delete it to start again"
                    )
                current[name] = saved
        mx.eval(arrays)
        self.step = step
        self._window = {k: np.array(v) for k, v in window.items()}
        return True


class _Interrupt:
    """Holds Ctrl-C back until the step is done."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> _Interrupt:
        def remember(*_: object) -> None:
            self.requested = True

        self._previous = signal.signal(signal.SIGINT, remember)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)


def write_safetensors(path: Path, arrays: Parameters, metadata: dict[str, str]) -> None:
    """Write a safetensors file, atomically."""
    with replacing(path) as partial:
        mx.save_safetensors(str(partial), arrays, metadata)
