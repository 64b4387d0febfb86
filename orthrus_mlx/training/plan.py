"""What the demo model is made of, and how long it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STAGES = ("tokenizer", "rows", "base", "model", "evaluation")


@dataclass(frozen=True)
class Plan:
    """Sizes of the run; the defaults make the shipped model."""

    vocab_size: int = 4096
    hidden_size: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    intermediate_size: int = 896
    block_size: int = 32
    row_length: int = 1024
    tokenizer_documents: int = 20_000
    documents: int = 3_000_000
    pretrain_steps: int = 10_500
    pretrain_batch: int = 64
    pretrain_rate: float = 2e-3
    cotrain_documents: int = 500_000
    cotrain_steps: int = 3_530
    cotrain_batch: int = 24
    cotrain_rate: float = 1e-3
    anchors: int = 32
    questions: int = 200
    decoded: int = 40
    seed: int = 0


SMOKE = Plan(
    vocab_size=512,
    hidden_size=32,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=16,
    intermediate_size=64,
    block_size=8,
    row_length=256,
    tokenizer_documents=100,
    documents=60,
    pretrain_steps=3,
    pretrain_batch=2,
    cotrain_documents=8,
    cotrain_steps=3,
    cotrain_batch=2,
    anchors=4,
    questions=1,
    decoded=1,
)
"""A run of seconds that goes through every stage and learns nothing."""


def demo_config(plan: Plan) -> dict[str, Any]:
    """The base's `config.json`: a Qwen3 with tied embeddings."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "bos_token_id": None,
        "eos_token_id": [2, 0],
        "head_dim": plan.head_dim,
        "hidden_act": "silu",
        "hidden_size": plan.hidden_size,
        "intermediate_size": plan.intermediate_size,
        "max_position_embeddings": 2048,
        "num_attention_heads": plan.heads,
        "num_hidden_layers": plan.layers,
        "num_key_value_heads": plan.kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": plan.vocab_size,
    }
