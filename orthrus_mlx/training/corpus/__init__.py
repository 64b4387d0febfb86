"""The demo model's training text: a program writes it, holds a part of it out and checks answers."""

from orthrus_mlx.training.corpus.chat import CHAT_TEMPLATE, render_chat, render_document, render_prompt
from orthrus_mlx.training.corpus.core import FAMILIES, TRAIN, Example, Split, Verdict
from orthrus_mlx.training.corpus.mix import MIX, check, generate, heldout, training_document, training_documents
from orthrus_mlx.training.corpus.tokenizer import save_tokenizer, train_tokenizer

__all__ = [
    "CHAT_TEMPLATE",
    "FAMILIES",
    "MIX",
    "TRAIN",
    "Example",
    "Split",
    "Verdict",
    "check",
    "generate",
    "heldout",
    "render_chat",
    "render_document",
    "render_prompt",
    "save_tokenizer",
    "train_tokenizer",
    "training_document",
    "training_documents",
]
