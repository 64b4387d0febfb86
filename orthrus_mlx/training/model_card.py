"""The demo model's card."""

from __future__ import annotations

from typing import Any

from ..model import DIFFUSION, Model
from .parameters import flat_parameters
from .plan import Plan

_CARD = """---
license: apache-2.0
library_name: mlx
pipeline_tag: text-generation
---

# Orthrus demo model

**A demonstration, not an assistant.** It shows both views of an Orthrus model, their common KV cache and lossless
block decoding at a size that runs on any CPU. It knows nothing beyond the shapes of text it was trained on, makes
things up in prose, and refuses politely (when it notices) what it was not trained for.

- Architecture: Qwen3, {layers} layers, hidden {hidden_size}, {heads} query and {kv_heads} key/value heads of
  {head_dim}, MLP {intermediate_size}, tied embeddings, byte-level BPE of {vocab_size} entries; {parameters:.1f} M
  parameters, of which {diffusion:.1f} M are the diffusion view; bfloat16.
- Block size {block_size}, mask token {mask_token}. Context 2048 positions, trained on rows of {row_length} tokens;
  quality falls off beyond those.
- Chat format: Qwen's, without thinking.

## Figures

Greedy, on held-out examples (`python -m orthrus_mlx.training.evaluate`): names, numbers and other values that
training never combined so; "held-out wordings" are questions phrased in a way that training never saw. Answers are
those of the AR view, judged by the checker in `orthrus_mlx.training.corpus`; block decoding gives the same ones.
Tokens per cycle are from real block decoding with blocks of {block_size}: tokens over cycles of all prompts.

| family | right | right, held-out wordings | tokens per cycle (median of prompts) | accepted / drafted |
|---|---|---|---|---|
{figures}

## Training

- Text: {documents:,} documents written by the program in `orthrus_mlx/training/corpus` (word problems, JSON and
  tables, small Python functions, prose, conversations). Nothing was taken from other models or from the web.
  Licence: Apache-2.0, as the program.
- Base: next-token cross-entropy, {pretrain_steps:,} steps of {pretrain_batch} rows of {row_length} tokens, AdamW,
  peak learning rate {pretrain_rate:g}.
- Diffusion view: copied from the AR view, then forward KL to the frozen AR view on the base's own greedy answers to
  {distill_documents:,} further documents, {distill_steps:,} steps of {distill_batch} rows with {anchors} random blocks
  each, peak learning rate {distill_rate:g} (method: Orthrus, arXiv 2605.12825).
- Made by `python -m orthrus_mlx.training.demo --out FOLDER` (seed {seed}).
"""


def model_card(plan: Plan, model: Model, report: dict[str, Any]) -> str:
    """The card's text: `report` is from `evaluate`."""
    sizes = {k: v.size / 1e6 for k, v in flat_parameters(model).items()}
    return _CARD.format(
        **vars(plan),
        parameters=sum(sizes.values()),
        diffusion=sum(v for k, v in sizes.items() if f"{DIFFUSION}." in k),
        mask_token=model.args.mask_token_id,
        figures="\n".join(_line(family, figures) for family, figures in report.items()),
    )


def _line(family: str, figures: dict[str, Any]) -> str:
    seen, unseen, cycle = (figures[k] for k in ("seen_wordings", "unseen_wordings", "tokens_per_cycle"))
    return (
        f"| {family} | {seen['right']}/{seen['count']} | {unseen['right']}/{unseen['count']} "
        f"| {cycle['mean']} ({cycle['median']}) | {cycle['acceptance']:.0%} |"
    )
