"""Memory: what a request may need at most, and whether it fits beside those that run."""

from __future__ import annotations

import os
from dataclasses import dataclass

import mlx.core as mx

from ..cache import CHUNK
from ..config import MAX_BLOCK_SIZE, ModelArgs
from ..errors import RequestError
from ..model import Model
from ..units import byte_count
from .spill import parameters
from .tickets import TooLarge

RAM_SHARE = 0.5
"""Share of a machine's memory that is taken where the device names no limit: others live there too."""

_LOGITS_COPIES = 6
"""Float32 arrays of the size of a pass's logits that choosing may hold at once (filters sort and sum them)."""

_STREAM_COPIES = 8
"""Arrays of the size of a chunk's hidden states that a layer may hold at once, queries, keys and values included."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that a model takes.

    Attributes:
        weights: all parameters.
        token: keys and values of one token in all layers.
        scratch: most of what passes, choosing and reading a prompt hold besides.
        scores: attention scores of a chunk of the prompt against one token, where no fused kernel keeps them small.
    """

    weights: int
    token: int
    scratch: int
    scores: int = 0

    @classmethod
    def of(cls, model: Model, step_size: int) -> Footprint:
        """Of `model`, reading prompts in chunks of `step_size` tokens."""
        args = model.args
        item = model.model.norm.weight.dtype.size
        weights = sum(array.nbytes for array in parameters(model).values())
        token = 2 * args.num_hidden_layers * args.num_key_value_heads * args.head_dim * item
        # On the CPU a layer's scores are written out, and their softmax beside them.
        scores = 2 * 4 * step_size * args.num_attention_heads if mx.default_device() == mx.cpu else 0
        return cls(weights, token, _scratch(args, step_size, item), scores)

    def request(self, tokens: int) -> int:
        """Bytes of a request of `tokens` tokens; a buffer grows in chunks, and one layer's is there twice then."""
        return (-(-tokens // CHUNK) + 1) * CHUNK * self.token + tokens * self.scores


def _scratch(args: ModelArgs, step_size: int, item: int) -> int:
    rows = max(step_size, MAX_BLOCK_SIZE)
    logits = MAX_BLOCK_SIZE * args.vocab_size * 4 * _LOGITS_COPIES
    layer = rows * (_STREAM_COPIES * args.hidden_size + 3 * args.intermediate_size) * item
    return logits + layer


def memory_limit() -> int:
    """Bytes that this machine lets one process use: what the device recommends, else a share of the RAM."""
    info = mx.device_info()
    recommended = info.get("max_recommended_working_set_size")
    if recommended:
        return int(recommended)
    if mx.default_device() == mx.gpu and info.get("total_memory"):
        return int(0.9 * int(info["total_memory"]))
    return int(RAM_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


class Admission:
    """Bytes that are promised to running requests.

    A request is promised all it may come to need, its longest answer included, so that what runs can always finish.

    Args:
        footprint: of the model.
        limit: bytes for everything: weights, scratch, caches of requests, cached prefixes.

    Raises:
        RequestError: the limit does not even hold the model.
    """

    def __init__(self, footprint: Footprint, limit: int):
        self.footprint, self.limit = footprint, limit
        self.room = limit - footprint.weights - footprint.scratch
        self.promised = 0
        if self.room < footprint.request(1):
            needed = footprint.weights + footprint.scratch + footprint.request(1)
            raise RequestError(
                f"--memory-limit: {byte_count(limit)} do not hold this model, which needs at least "
                f"{byte_count(needed)}; raise the limit, or read prompts in smaller steps (--prefill-step-size)"
            )

    def need(self, tokens: int) -> int:
        """Bytes of a request whose prompt and answer have at most `tokens` tokens.

        Raises:
            TooLarge: more than there could ever be.
        """
        bytes_needed = self.footprint.request(tokens)
        if bytes_needed > self.room:
            raise TooLarge(
                f"max_tokens: prompt and answer of {tokens} tokens need {byte_count(bytes_needed)} of memory, more "
                f"than the {byte_count(self.room)} that are possible here; shorten the prompt or the answer"
            )
        return bytes_needed

    @property
    def free(self) -> int:
        """Bytes that nothing is promised of; cached prefixes live there."""
        return self.room - self.promised

    def promise(self, bytes_needed: int) -> bool:
        """Promise them, if they are free."""
        if bytes_needed > self.free:
            return False
        self.promised += bytes_needed
        return True

    def give_back(self, bytes_promised: int) -> None:
        self.promised -= bytes_promised
