"""Ways of decoding, timed alike: this package's modes and block sizes, and mlx-lm on the same AR weights.

Every answer is timed from outside, with three points: the call, the moment when all of the prompt but its last token
is in the cache (both packages report it and leave that token to the first pass), and the last token. Speed is tokens
over the time between the last two; a token that this package had from the prompt's last pass (`DecodeStats.given`) is
not counted, as its pass is not timed. Timing from the first token instead would give block decoding the tokens of its
first block for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..decoding.stats import DecodeStats
from ..errors import BenchmarkError
from ..generation import stream_generate
from ..model import Model
from ..weights import is_diffusion
from .cases import Item

MLX_LM = "mlx_lm"
MODES = (MLX_LM, "ar", "diffusion", "auto")
BLOCK = "block "


@dataclass
class Run:
    """One answer of one lane.

    Attributes:
        tokens: the ids, EOS included.
        prompt_seconds: from the call until all of the prompt but its last token was read.
        first_token_seconds, seconds: from the call to the first and to the last token.
        memory: bytes above those held before the call, at the peak.
        stats: this package's `DecodeStats` as a dictionary; None for mlx-lm.
    """

    tokens: list[int]
    prompt_seconds: float
    first_token_seconds: float
    seconds: float
    memory: int
    stats: dict[str, Any] | None = None


@dataclass
class Models:
    """What the lanes run on; `reference` is mlx-lm's model of the same AR weights, where it is measured."""

    model: Model
    tokenizer: Any
    reference: Any = None
    prefill_step_size: int = 2048


def block_lane(size: int) -> str:
    """The lane that always drafts blocks of `size` rows."""
    return f"{BLOCK}{size}"


def is_fixed(lane: str) -> bool:
    """Whether the lane is a fixed setting of this package, one that `auto` competes with."""
    return lane in ("ar", "diffusion") or lane.startswith(BLOCK)


def load_reference(folder: Path) -> Any:
    """The folder's AR view as mlx-lm's own Qwen3, whatever the layout; the diffusion weights are left out.

    Raises:
        BenchmarkError: mlx-lm cannot load it.
    """
    from mlx_lm.models import qwen3
    from mlx_lm.utils import load_model

    class ARView(qwen3.Model):
        def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
            return super().sanitize({k: w for k, w in weights.items() if not is_diffusion(k)})

    def classes(config: dict[str, Any]) -> tuple[Any, Any]:
        return ARView, qwen3.ModelArgs

    try:
        return load_model(folder, get_model_classes=classes)[0]
    except Exception as error:
        # mlx-lm raises what its loader meets; it has no exception type of its own.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BenchmarkError(
            f"{folder}: mlx-lm cannot load the AR view ({reason}); leave mlx_lm out of --modes"
        ) from error


def answer(models: Models, lane: str, item: Item, *, until_eos: bool) -> Run:
    """Answer `item` greedily in `lane`, timed."""
    stats = None if lane == MLX_LM else DecodeStats()
    eos = models.tokenizer.eos_token_ids
    if not until_eos:
        models.tokenizer.eos_token_ids = []
    try:
        run = _timed(models, lane, item, stats)
    finally:
        models.tokenizer.eos_token_ids = eos
    run.stats = None if stats is None else _plain(asdict(stats))
    return run


def _timed(models: Models, lane: str, item: Item, stats: DecodeStats | None) -> Run:
    mx.clear_cache()
    held = mx.get_active_memory()
    mx.reset_peak_memory()
    read_at = None

    def on_progress(processed: int, total: int) -> None:
        nonlocal read_at
        if read_at is None and processed >= total - 1:
            read_at = time.perf_counter()

    options = {"prefill_step_size": models.prefill_step_size, "prompt_progress_callback": on_progress}
    tokens: list[int] = []
    first = None
    start = time.perf_counter()
    for token in _stream(models, lane, item, stats, options):
        tokens.append(token)
        if first is None:
            first = time.perf_counter()
    end = time.perf_counter()
    assert first is not None and read_at is not None
    return Run(tokens, read_at - start, first - start, end - start, mx.get_peak_memory() - held)


def _stream(models: Models, lane: str, item: Item, stats: DecodeStats | None, options: dict[str, Any]) -> Iterator[int]:
    prompt = list(item.tokens)
    if lane == MLX_LM:
        import mlx_lm

        theirs = mlx_lm.stream_generate(models.reference, models.tokenizer, prompt, item.max_tokens, **options)
        return (response.token for response in theirs)
    if lane.startswith(BLOCK):
        options = {**options, "mode": "diffusion", "block_size": int(lane.removeprefix(BLOCK))}
    else:
        options = {**options, "mode": lane}
    ours = stream_generate(models.model, models.tokenizer, prompt, item.max_tokens, stats=stats, **options)
    return (response.token for response in ours)


def first_difference(tokens: Collection[int], reference: Collection[int]) -> int | None:
    """The first position where two answers differ, the shorter one's end included; None where they are equal."""
    if list(tokens) == list(reference):
        return None
    pairs = zip(tokens, reference, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(tokens), len(reference)))


def _plain(value: Any) -> Any:
    """`value` as JSON keeps it: keys are texts."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
