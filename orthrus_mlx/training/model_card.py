"""The demo model's card."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import mlx.core as mx

from ..model import DIFFUSION, Model
from .corpus import FAMILIES
from .parameters import flat_parameters
from .plan import Plan

AIMS = {"reasoning": (0.95, 10.0), "json": (0.98, 14.0), "code": (None, 8.0)}
"""Per family, what was asked of the model before it was trained: share of right answers, tokens per cycle."""

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
- Chat format: Qwen's, without thinking. English.
- **One departure from Orthrus:** an Orthrus model freezes a released Qwen3 and trains the diffusion view alone, which
  is what `orthrus-mlx train` does. This model's base was made here, too, and its weights went on training together
  with the diffusion view's, so that what the views share (embeddings, MLPs, norms) serves both. Decoding knows no
  difference: the AR view as it ships decides every token.

## Figures

Greedy, on held-out examples: names, numbers and other values that training never combined so; "held-out wordings" are
questions phrased in a way that training never saw. Answers are those of the AR view, judged by the checker in
`orthrus_mlx.training.corpus`: numbers must be right, JSON must parse and hold the values asked for, code must run and
pass its cases; of prose it judges only length, vocabulary, repetition and subject. Tokens per cycle are from real
block decoding of chat-formatted prompts (held-out values) with blocks of {block_size}: tokens over cycles of all
prompts, and in brackets the median of the prompts.

| family | right | right, held-out wordings | tokens per cycle | accepted / drafted | prompts decoded |
|---|---|---|---|---|---|
{figures}

{aims}{unmeasured}

Measured by `python -m orthrus_mlx.training.evaluate --model FOLDER --questions {questions} --decoded {decoded}` on
{machine}.

## Training

- Text: {documents:,} documents written by the program in `orthrus_mlx/training/corpus` (word problems, JSON and
  tables, small Python functions, prose, conversations with follow-up questions, system prompts and refusals). One
  combination of values in 20 and one wording in 10 are held out. Nothing was taken from other models or from the web.
  Licence: Apache-2.0, as the program.
- Base: next-token cross-entropy, {pretrain_steps:,} steps of {pretrain_batch} rows of {row_length} tokens, AdamW,
  peak learning rate {pretrain_rate:g}.
- Both views: the diffusion view begins as a copy of the AR view; then {cotrain_steps:,} steps of {cotrain_batch} rows
  from {cotrain_documents:,} further documents with {anchors} random blocks each, peak learning rate {cotrain_rate:g}:
  next-token cross-entropy plus half of the forward KL from the AR view (the target, which takes no gradient from it)
  to the diffusion view. Architecture and KL are from Orthrus (arXiv 2605.12825).
- Made by one command, `python -m orthrus_mlx.training.demo --out FOLDER` (seed {seed}).

Licence of the weights: Apache-2.0.
"""


def model_card(plan: Plan, model: Model, report: dict[str, Any]) -> str:
    """The card's text: `report` is from `evaluate`, run with this machine and these versions."""
    sizes = {k: v.size / 1e6 for k, v in flat_parameters(model).items()}
    return _CARD.format(
        **vars(plan),
        parameters=sum(sizes.values()),
        diffusion=sum(v for k, v in sizes.items() if f"{DIFFUSION}." in k),
        mask_token=model.args.mask_token_id,
        figures="\n".join(_line(family, figures) for family, figures in report.items()),
        aims=_aims(report),
        unmeasured="".join(f" Trained, but not measured: {family}." for family in FAMILIES if family not in report),
        machine=f"{platform.system()} {platform.machine()}, MLX {version('mlx')}, {mx.default_device().type.name}",
    )


def _line(family: str, figures: dict[str, Any]) -> str:
    seen, unseen, cycle = (figures[k] for k in ("seen_wordings", "unseen_wordings", "tokens_per_cycle"))
    return (
        f"| {family} | {seen['right']}/{seen['count']} | {unseen['right']}/{unseen['count']} "
        f"| {cycle['mean']} ({cycle['median']}) | {cycle['acceptance']:.0%} | {cycle['count']} |"
    )


def _aims(report: dict[str, Any]) -> str:
    """What was aimed at, and which of it the figures miss."""
    aims, missed = [], []
    for family, (share, tokens) in AIMS.items():
        seen, cycle = report[family]["seen_wordings"], report[family]["tokens_per_cycle"]
        if share is not None:
            aims.append(f"{share:.0%} of {family} answers right")
            if seen["right"] < share * seen["count"]:
                missed.append(f"{family} answers ({seen['right'] / seen['count']:.1%})")
        aims.append(f"{tokens:g} tokens per cycle on {family}")
        if cycle["mean"] < tokens:
            missed.append(f"{family} tokens per cycle ({cycle['mean']})")
    return f"Aims set before training: {', '.join(aims)}. Missed: {', '.join(missed) or 'none'}."
