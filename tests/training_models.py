"""A tiny model and toy chats for the training tests."""

from __future__ import annotations

import numpy as np

from orthrus_mlx.config import ModelArgs
from orthrus_mlx.model import Model
from orthrus_mlx.training.checkpoint import side_car_config
from orthrus_mlx.training.data import ChatFormat, Document, chat_document
from orthrus_mlx.training.parameters import load_parameters
from orthrus_mlx.training.plan import SMOKE, demo_config
from orthrus_mlx.training.pretrain import initial_parameters

ANSWER_END = 2
CHAT = ChatFormat(start=1, assistant=(5, 6), end=ANSWER_END)


def tiny_config(diffusion: bool = True) -> dict:
    config = demo_config(SMOKE)
    return side_car_config(config, 8, 511) if diffusion else config


def tiny_model(seed: int = 0, diffusion: bool = True, spread: float = 3.0) -> Model:
    """fp32, every weight random: large enough to make attention matter, both views different."""
    model = Model(ModelArgs.from_dict(tiny_config(diffusion)))
    load_parameters(model, initial_parameters(model, seed), lambda p: p if p.ndim == 1 else p * spread)
    return model


def chat_documents(count: int, seed: int = 0, turns: int = 2) -> list[Document]:
    """Chats whose answers count upwards from the number asked."""
    random = np.random.default_rng(seed)
    documents = []
    for _ in range(count):
        ids: list[int] = []
        for _ in range(int(random.integers(1, turns + 1))):
            asked, length = int(random.integers(10, 60)), int(random.integers(3, 18))
            ids += [1, 7, asked, 2, 8, 1, 5, 6, *range(asked + 1, asked + 1 + length), 2, 8]
        documents.append(chat_document([*ids, 0], CHAT))
    return documents
