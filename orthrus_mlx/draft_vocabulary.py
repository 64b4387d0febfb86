"""The tokens that a checkpoint's draft passes may be limited to: chosen by the converter, checked when they are read.

The ids are the tensor `draft_vocabulary`, int32 [N] in ascending order, and `config.json` says how many there are and
how much of a text they cover, in its `orthrus` object or, in the all-in-one layout, at its top level.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .config import ModelArgs
from .errors import CheckpointError, ConfigError
from .safetensors_file import TensorEntry

DRAFT_VOCABULARY = "draft_vocabulary"
"""The name of both, the tensor and the setting."""

LEAST_IDS = 16
"""Fewest ids: a draft tree takes several candidates a position, and special tokens are always among the ids."""


@dataclass(frozen=True)
class DraftVocabulary:
    """Ids int32 [N], ascending, and the share of a text's tokens, 0..1, that the converter found among them."""

    ids: np.ndarray = field(repr=False)
    coverage: float

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` says of it."""
        return {"size": len(self.ids), "coverage": self.coverage}


def take_draft_vocabulary(
    config: dict[str, Any], tensors: dict[str, TensorEntry], args: ModelArgs
) -> DraftVocabulary | None:
    """The checkpoint's draft vocabulary, its tensor taken out of `tensors`; None where `config` names none.

    Raises:
        ConfigError: the setting is not one of ours.
        CheckpointError: the tensor is missing or damaged, or does not fit `config`.
    """
    orthrus = config.get("orthrus")
    found = (orthrus if isinstance(orthrus, dict) else config).get(DRAFT_VOCABULARY)
    if found is None:
        return None
    size, coverage = (found.get("size"), found.get("coverage")) if isinstance(found, dict) else (None, None)
    whole = isinstance(size, int) and not isinstance(size, bool) and LEAST_IDS <= size < args.vocab_size
    if not whole or not isinstance(coverage, int | float) or not 0 <= coverage <= 1:
        raise ConfigError(
            f"config.json: draft_vocabulary must have size, {LEAST_IDS}..{args.vocab_size - 1}, and coverage, 0..1, "
            f"not {found!r:.80}; convert the checkpoint again"
        )
    entry = tensors.pop(DRAFT_VOCABULARY, None)
    if entry is None:
        raise CheckpointError(
            "tensor draft_vocabulary is missing, but config.json names it; convert the checkpoint again"
        )
    if entry.dtype != "I32" or entry.shape != (size,):
        raise CheckpointError(
            f"{entry.file}: tensor draft_vocabulary is {entry.dtype} {list(entry.shape)}, config.json asks for "
            f"I32 [{size}]"
        )
    ids = np.frombuffer(entry.read(0, entry.nbytes), "<i4")
    if ids[0] < 0 or ids[-1] >= args.vocab_size or np.any(np.diff(ids.astype(np.int64)) <= 0):
        raise CheckpointError(
            f"{entry.file}: tensor draft_vocabulary must hold ascending ids in 0..{args.vocab_size - 1}; "
            "convert the checkpoint again"
        )
    return DraftVocabulary(ids, float(coverage))
