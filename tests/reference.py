"""Orthrus-Qwen3 in NumPy float64, written from the formulas: both views and the decode cycle, no cache, no MLX.

Everything is recomputed from the token ids at every call, which is slow and leaves nothing to go stale. Sources:
Qwen3 (arXiv 2505.09388, section 2: GQA, SwiGLU, RoPE, RMSNorm before each part, normed queries and keys), RoPE
(arXiv 2104.09864, equation 34), YaRN (arXiv 2309.00071, section 3, with the ramp over dimensions of its published
code, which every implementation follows), Orthrus (arXiv 2605.12825, section 3).

Shapes: L rows, H query heads, G key/value heads, D head dimension, V vocabulary; one sequence, no batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Choose = Callable[[np.ndarray, int], int]
"""(logits [V], absolute position) -> token."""


def rms_norm(x: np.ndarray, gain: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * gain


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rope_frequencies(D: int, theta: float, scaling: dict[str, Any] | None) -> tuple[np.ndarray, float]:
    """(radians per position [D/2], factor on queries and keys)."""
    frequency = theta ** (-np.arange(0, D, 2) / D)
    kind = (scaling or {}).get("rope_type", "default")
    if kind == "default":
        return frequency, 1.0
    s = scaling["factor"]
    if kind == "linear":
        return frequency / s, 1.0
    trained = scaling["original_max_position_embeddings"]

    def dimension_turning(turns: float) -> float:
        # lambda_d = 2 pi theta^(2d/D) is the wave length of dimension d; the one with trained / lambda_d = turns.
        return D / 2 * math.log(trained / (2 * math.pi * turns)) / math.log(theta)

    low = max(math.floor(dimension_turning(scaling.get("beta_fast", 32))), 0)
    high = min(math.ceil(dimension_turning(scaling.get("beta_slow", 1))), D - 1)
    ramp = np.clip((np.arange(D // 2) - low) / max(high - low, 1e-3), 0, 1)
    return (1 - ramp) * frequency + ramp * frequency / s, 0.1 * math.log(s) + 1


def rotate(x: np.ndarray, positions: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """x [L, heads, D]: the pair (x_d, x_{d + D/2}) turns by position * frequency_d."""
    angle = positions[:, None, None] * frequency
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], axis=-1)


@dataclass
class Decoded:
    """What the cycle did: the tokens, and per cycle the drafts verified and accepted."""

    tokens: list[int]
    drafted: list[int]
    accepted: list[int]


class Reference:
    """Both views of a checkpoint: a Hugging Face config and weights by their names."""

    def __init__(self, config: dict[str, Any], weights: dict[str, np.ndarray]):
        self.config = config
        self.w = {name: value.astype(np.float64) for name, value in weights.items()}
        self.frequency, self.stretch = rope_frequencies(
            config["head_dim"], config["rope_theta"], config.get("rope_scaling")
        )

    def ar_logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits [L, V] of the autoregressive view over ids [L]."""
        return self._forward(tokens, 0, "", None)[0]

    def diffusion_logits(self, prefix: Sequence[int], block: Sequence[int]) -> np.ndarray:
        """Logits [K, V] of the diffusion view over a block behind `prefix`, whose AR keys and values it sees."""
        cached = self._forward(prefix, 0, "", None)[1] if prefix else None
        return self._forward(block, len(prefix), "_diff", cached)[0]

    def decode(
        self, prompt: Sequence[int], limit: int, block_size: int, choose: Choose, stop: Collection[int] = ()
    ) -> Decoded:
        """Cycles of draft, verify, accept (block_size 1: plain decoding), `limit` tokens or to a stop token."""
        done = Decoded([], [], [])
        while len(done.tokens) < limit:
            text = [*prompt, *done.tokens]
            verified, pending = text[:-1], text[-1]
            rows = min(block_size, limit - len(done.tokens))
            drafts: list[int] = []
            if rows > 1:
                block = [pending] + [self.config["mask_token_id"]] * (block_size - 1)
                logits = self.diffusion_logits(verified, block)
                drafts = [choose(logits[i], len(text) + i) for i in range(rows - 1)]
            logits = self.ar_logits(text + drafts)[len(verified) :]
            accepted = 0
            for i in range(rows):
                token = choose(logits[i], len(text) + i)
                done.tokens.append(token)
                agrees = i < len(drafts) and drafts[i] == token
                accepted += agrees
                if token in stop or not agrees:
                    break
            done.drafted.append(len(drafts))
            done.accepted.append(accepted)
            if done.tokens[-1] in stop:
                break
        return done

    def _forward(self, tokens, offset, view, cached):
        """(logits [L, V], keys and values of the block by layer); `cached` ones stand before it."""
        c, w = self.config, self.w
        eps, D = c["rms_norm_eps"], c["head_dim"]
        H, G = c["num_attention_heads"], c["num_key_value_heads"]
        L = len(tokens)
        positions = np.arange(offset, offset + L)
        x = w["model.embed_tokens.weight"][np.array(tokens)]
        kept = []
        for i in range(c["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            attention = f"{layer}self_attn."
            h = rms_norm(x, w[f"{layer}input_layernorm.weight"], eps)
            q = (h @ w[f"{attention}q_proj{view}.weight"].T).reshape(L, H, D)
            k = (h @ w[f"{attention}k_proj{view}.weight"].T).reshape(L, G, D)
            v = (h @ w[f"{attention}v_proj{view}.weight"].T).reshape(L, G, D)
            q = rms_norm(q, w[f"{attention}q_norm{view}.weight"], eps)
            k = rms_norm(k, w[f"{attention}k_norm{view}.weight"], eps)
            q = self.stretch * rotate(q, positions, self.frequency)
            k = self.stretch * rotate(k, positions, self.frequency)
            kept.append((k, v))
            if cached is not None:
                k, v = np.concatenate([cached[i][0], k]), np.concatenate([cached[i][1], v])
            heads = []
            for head in range(H):
                g = head * G // H
                scores = q[:, head] @ k[:, g].T / math.sqrt(D)
                if view == "":
                    scores = np.where(positions[:, None] >= np.arange(len(k)), scores, -np.inf)
                heads.append(softmax(scores) @ v[:, g])
            x = x + np.concatenate(heads, axis=-1) @ w[f"{attention}o_proj{view}.weight"].T
            h = rms_norm(x, w[f"{layer}post_attention_layernorm.weight"], eps)
            gate, up = h @ w[f"{layer}mlp.gate_proj.weight"].T, h @ w[f"{layer}mlp.up_proj.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{layer}mlp.down_proj.weight"].T
        head = w["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"]
        return rms_norm(x, w["model.norm.weight"], eps) @ head.T, kept


def rule_a(
    temperature: float,
    noise: Callable[[int], np.ndarray],
    top_p: float = 0.0,
    min_p: float = 0.0,
    top_k: int = 0,
) -> Choose:
    """argmax(filter(logits) / T + noise(position)); without noise at T = 0."""

    def choose(logits: np.ndarray, position: int) -> int:
        if temperature == 0:
            return int(np.argmax(logits))
        return int(np.argmax(np.log(filtered(softmax(logits), top_p, min_p, top_k)) / temperature + noise(position)))

    return choose


def filtered(p: np.ndarray, top_p: float = 0.0, min_p: float = 0.0, top_k: int = 0) -> np.ndarray:
    """Probabilities [V], not renormalised, zero (tiny, for its logarithm) where a filter drops a token."""
    p = p.copy()
    if 0 < top_p < 1:
        order = np.argsort(-p)
        before = np.cumsum(p[order]) - p[order]
        p[order[before >= top_p]] = 0
    if min_p > 0:
        p[p < min_p * p.max()] = 0
    if top_k > 0:
        p[np.argsort(-p)[top_k:]] = 0
    return np.maximum(p, 1e-300)
