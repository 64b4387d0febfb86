"""Pre-training a small AR base: next-token cross-entropy over packed documents."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..model import Model
from .parameters import Parameters, flat_parameters, load_parameters
from .trainer import Batch, Loss, Metrics
from .views import packed_pass

PROMPT_WEIGHT = 0.2
"""Loss weight of tokens outside answers: questions need to be read, seldom to be written."""


def initial_parameters(model: Model, seed: int) -> Parameters:
    """Fresh fp32 weights: normal with deviation 0.02, less by sqrt(2 layers) where a sub-layer writes the residual."""
    parameters: Parameters = {}
    layers = len(model.layers)
    key = mx.random.key(seed)
    for name, value in flat_parameters(model).items():
        if value.ndim == 1:
            parameters[name] = mx.ones(value.shape, mx.float32)
            continue
        key, own = mx.random.split(key)
        writes_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        deviation = 0.02 / (2 * layers) ** 0.5 if writes_residual else 0.02
        parameters[name] = deviation * mx.random.normal(value.shape, key=own)
    mx.eval(parameters)
    return parameters


def pretraining_loss(model: Model, dtype: mx.Dtype) -> Loss:
    """The loss of `model`'s AR view, computed in `dtype`.

    Every next token inside a document counts: answers in full, the rest with `PROMPT_WEIGHT`. Metrics:
    `answer_loss` (nats) and `answer_accuracy` over answer tokens.
    """

    def loss(parameters: Parameters, batch: Batch, key: mx.array) -> tuple[mx.array, Metrics]:
        tokens, segments, _ = batch
        load_parameters(model, parameters, lambda p: p.astype(dtype))
        # Looked up in fp32: the gradient is a sum over thousands of occurrences, too many for bfloat16.
        embeddings = parameters["model.embed_tokens.weight"][tokens].astype(dtype)
        hidden, _ = packed_pass(model, tokens, segments, embeddings)
        return next_token_loss(model, hidden, batch)

    return loss


def next_token_loss(model: Model, hidden: mx.array, batch: Batch) -> tuple[mx.array, Metrics]:
    """Cross-entropy of the AR view's hidden states [B, L, hidden] over a packed batch, and its metrics."""
    tokens, segments, answers = batch
    logits = model.head(hidden[:, :-1]).astype(mx.float32)
    targets = tokens[:, 1:]
    inside = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    answer = (inside & (answers[:, 1:] > 0)).astype(mx.float32)
    weight = answer + PROMPT_WEIGHT * (inside.astype(mx.float32) - answer)
    each = nn.losses.cross_entropy(logits, targets)
    hits = (mx.argmax(mx.stop_gradient(logits), axis=-1) == targets) * answer
    metrics = {
        "answer_loss": mx.stack([(each * answer).sum(), answer.sum()]),
        "answer_accuracy": mx.stack([hits.sum(), answer.sum()]),
    }
    total = (each * weight).sum() / mx.maximum(weight.sum(), 1.0)
    return total, {k: mx.stop_gradient(v) for k, v in metrics.items()}
