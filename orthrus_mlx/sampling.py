"""Rule A: which token stands at a position is a function of its logits, the seed and the position alone.

    y_t = argmax_v( filter(logits_t)[v] / T + g(seed, t)[v] )

g is zero at T = 0, else Gumbel noise whose key is (seed, t), so y_t is an exact sample of the filtered softmax
(the Gumbel-max trick) and every way of decoding draws the same one. Drafts use the same noise on their own
logits, which couples them with the verifier (Daliri et al., arXiv 2408.07978). Verification is equality.

Filters have mlx-lm's definitions and order: top-p, min-p, XTC, top-k on untempered log-probabilities, the
temperature last, all in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, cast

import mlx.core as mx

from .errors import RequestError

Sampler = Callable[[mx.array], mx.array]
"""mlx-lm's: log-probabilities [1, V] -> token [1]."""

LogitsProcessor = Callable[[mx.array, mx.array], mx.array]
"""mlx-lm's: (tokens so far [n], logits [1, V]) -> logits [1, V]."""

Positions = int | mx.array
"""Absolute positions of rows: of the first one, the others following it, or an int array [L] of all."""

LEAST_TEMPERATURE = 1e-6
"""Below it, logits over the temperature leave float32."""

# XTC's coin must be independent of the Gumbel noise of the same position: its key is (seed ^ this, t).
_COIN = 0x58544321


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Args:
        temperature: 0 is greedy; otherwise at least `LEAST_TEMPERATURE`.
        top_p: nucleus mass in (0, 1); 0 or 1 turns it off.
        min_p: keep tokens of at least `min_p` times the likeliest one's probability; 0 is off.
        min_tokens_to_keep: the least number of tokens that min-p leaves.
        top_k: keep the k likeliest tokens; 0 is off.
        xtc_probability, xtc_threshold, xtc_special_tokens: with this chance per position, drop every token
            above the threshold but the least likely of them; special tokens are never dropped.
        seed: 32-bit; the same seed draws the same tokens in every decoding mode.
    """

    temperature: float = 0.0
    top_p: float = 0.0
    min_p: float = 0.0
    min_tokens_to_keep: int = 1
    top_k: int = 0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    xtc_special_tokens: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self):
        if self.temperature != 0:
            _require_number("temperature", self.temperature, LEAST_TEMPERATURE, math.inf, "0, or at least 1e-6")
        _require_number("top_p", self.top_p, 0, 1, "in 0..1")
        _require_number("min_p", self.min_p, 0, 1, "in 0..1")
        require_integer("min_tokens_to_keep", self.min_tokens_to_keep, 1)
        require_integer("top_k", self.top_k, 0)
        _require_number("xtc_probability", self.xtc_probability, 0, 1, "in 0..1")
        _require_number("xtc_threshold", self.xtc_threshold, 0, 0.5, "in 0..0.5")
        require_integer("seed", self.seed, 0, 2**32 - 1)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def filtered(self) -> bool:
        return 0 < self.top_p < 1 or self.min_p > 0 or self.top_k > 0 or self.xtc_probability > 0

    def choose(self, logits: mx.array, position: Positions) -> mx.array:
        """Tokens [L] for logits [L, V] whose rows speak of the absolute positions `position`."""
        return mx.argmax(self.scores(logits, position), axis=-1)

    def scores(self, logits: mx.array, position: Positions) -> mx.array:
        """What rule A takes the largest of, float32 [L, V]: of logits [L, V] that speak of the positions `position`."""
        logits = logits.astype(mx.float32)
        if self.greedy:
            # Filters never drop the likeliest token (XTC may: its coin is the one thing greedy decoding skips,
            # as mlx-lm's does).
            return logits
        if self.filtered:
            logits = self.filter(logits, position)
        keys = position_keys(self.seed, position, logits.shape[0])
        return logits * (1 / self.temperature) + gumbel(keys, logits.shape[-1])

    def filter(self, logits: mx.array, position: Positions) -> mx.array:
        """Float32 log-probabilities [L, V] of logits [L, V], -inf where a filter drops a token."""
        logprobs = log_softmax(logits)
        if 0 < self.top_p < 1:
            logprobs = keep_top_p(logprobs, self.top_p)
        if self.min_p > 0:
            logprobs = keep_min_p(logprobs, self.min_p, self.min_tokens_to_keep)
        if self.xtc_probability > 0:
            keys = position_keys(self.seed ^ _COIN, position, logits.shape[0])
            coins = mx.vmap(lambda key: mx.random.uniform(key=key))(keys)
            chosen = exclude_top_choices(logprobs, self.xtc_threshold, self.xtc_special_tokens)
            logprobs = mx.where((coins < self.xtc_probability)[:, None], chosen, logprobs)
        if 0 < self.top_k < logits.shape[-1]:
            logprobs = keep_top_k(logprobs, self.top_k)
        return logprobs


def fresh_seed() -> int:
    """A seed from MLX's global random state, so that `mx.random.seed` makes unseeded calls reproducible."""
    return cast(int, mx.random.randint(0, 2**31 - 1).item())


def position_keys(seed: int, position: Positions, rows: int) -> mx.array:
    """Keys uint32 [rows, 2] of rows at `position`: (seed, t)."""
    if isinstance(position, int):
        position = mx.arange(position, position + rows, dtype=mx.uint32)
    return mx.stack([mx.full((rows,), seed, dtype=mx.uint32), position.astype(mx.uint32)], axis=-1)


def gumbel(keys: mx.array, size: int) -> mx.array:
    """Gumbel noise float32 [L, size] for keys [L, 2]; a row depends on its own key only."""
    return mx.vmap(lambda key: mx.random.gumbel((size,), key=key))(keys)


def log_softmax(logits: mx.array) -> mx.array:
    """Float32 log-probabilities of logits [..., V]."""
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def keep_top_p(logprobs: mx.array, top_p: float) -> mx.array:
    """Keep the smallest set of likeliest tokens whose mass reaches `top_p`, and their equals. Shapes [L, V]."""
    descending = -mx.sort(-logprobs, axis=-1)
    probs = mx.exp(descending)
    likelier = mx.cumsum(probs, axis=-1, inclusive=False)
    kept = mx.sum(likelier < top_p * mx.sum(probs, axis=-1, keepdims=True), axis=-1, keepdims=True)
    floor = mx.take_along_axis(descending, kept - 1, axis=-1)
    return mx.where(logprobs < floor, -math.inf, logprobs)


def keep_min_p(logprobs: mx.array, min_p: float, min_tokens_to_keep: int = 1) -> mx.array:
    """Keep tokens of at least `min_p` times the top probability, and at least `min_tokens_to_keep`. Shapes [L, V]."""
    floor = mx.max(logprobs, axis=-1, keepdims=True) + math.log(min_p)
    if min_tokens_to_keep > 1:
        kept = mx.topk(logprobs, min(min_tokens_to_keep, logprobs.shape[-1]), axis=-1)
        floor = mx.minimum(floor, mx.min(kept, axis=-1, keepdims=True))
    return mx.where(logprobs < floor, -math.inf, logprobs)


def keep_top_k(logprobs: mx.array, top_k: int) -> mx.array:
    """Keep the `top_k` likeliest tokens; of equals at the edge, those that MLX's partition puts first. [L, V]."""
    dropped = mx.argpartition(-logprobs, kth=top_k - 1, axis=-1)[..., top_k:]
    return mx.put_along_axis(logprobs, dropped, mx.array(-math.inf, logprobs.dtype), axis=-1)


def exclude_top_choices(logprobs: mx.array, threshold: float, special_tokens: Sequence[int] = ()) -> mx.array:
    """XTC: drop every token above `threshold` but the least likely of them; never a special one. Shapes [L, V]."""
    # Earlier filters took mass away: XTC's threshold is on what they left, renormalised.
    probs = mx.softmax(logprobs, axis=-1)
    above = probs > threshold
    least = mx.min(mx.where(above, probs, math.inf), axis=-1, keepdims=True)
    drop = probs > least
    if special_tokens:
        drop[..., mx.array(list(special_tokens))] = False
    return mx.where(drop, -math.inf, logprobs)


def require_integer(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raises RequestError unless `value` is an integer in low..high."""
    if not isinstance(value, Integral) or int(value) < low or (high is not None and int(value) > high):
        expected = f"at least {low}" if high is None else f"in {low}..{high}"
        raise RequestError(f"{name} must be an integer, {expected}, not {value!r}")


def _require_number(name: str, value: Any, low: float, high: float, expected: str) -> None:
    if not isinstance(value, Real) or not math.isfinite(value) or not low <= float(value) <= high:
        raise RequestError(f"{name} must be {expected}, not {value!r}")
